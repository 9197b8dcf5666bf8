"""Who makes the call being served, as far as that is proven, and as whom AWS is asked on its behalf."""

from contextvars import ContextVar
from typing import NamedTuple

# What people and policies call whoever has no identity.
ANONYMOUS = "anonymous"


class Caller(NamedTuple):
    """One caller. `identity` is empty where nothing proves one; `role` is empty for the server's own AWS credentials."""

    identity: str = ""
    role: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.identity or ANONYMOUS


_current: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039 - a tuple, which nobody changes


def current_caller() -> Caller:
    """Return the caller of this task, and of the tasks that it starts."""
    return _current.get()


def set_caller(caller: Caller) -> None:
    """Make it the caller of this task and of what it starts from now on."""
    _current.set(caller)
