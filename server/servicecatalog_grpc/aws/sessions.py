"""Keeps the sessions of AWS roles: one for each caller that has a role, begun at its first call and renewed in time.

Everything here happens in the event loop; only the asking of AWS does not.
"""

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable

from botocore.credentials import ReadOnlyCredentials

from servicecatalog_grpc.aws import failures
from servicecatalog_grpc.aws.assuming import RoleSession
from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.session_names import session_name
from servicecatalog_grpc.caller import Caller, current_caller
from servicecatalog_grpc.failure import Failure, Reason

# The identities that one rule of a policy lets in are not counted by it, so they are here. At 2 KB of memory and less
# than two AssumeRole an hour each, these cost nothing; STS takes 600 a second from an account
# (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
_MAX_SESSIONS = 1000

# The shares of its time after which a session is renewed: of an hour, 9 minutes are left at least. Not all at once,
# although many may have begun together.
_RENEWAL = (0.7, 0.85)

# A session that nobody has used for this share of its time is not renewed.
_IDLE = 0.5

# How long until a renewal that failed is tried again, in seconds.
_RETRY_SECONDS = (10.0, 20.0)

# For so long AWS's refusal of a role is not asked for again, in seconds: callers repeat what is UNAVAILABLE, and IAM
# does not change its mind any sooner.
_REFUSAL_SECONDS = 5.0

Begin = Callable[[str, str], Awaitable[RoleSession]]


class Sessions:
    """The sessions of all callers in their roles, the least recently used first."""

    def __init__(self, begin: Begin) -> None:
        """`begin` takes a role and a session's name, and raises Failure."""
        self._begin = begin
        self._kept: dict[Caller, _Kept] = {}

    async def keys(self, caller: Caller, deadline: Deadline) -> ReadOnlyCredentials:
        """Return the keys of the caller in its role. The first time this waits for AWS. Raises Failure."""
        kept = self._kept.pop(caller, None) or _Kept(caller, self._begin, self._drop)
        self._kept[caller] = kept
        if len(self._kept) > _MAX_SESSIONS:
            self._drop(next(iter(self._kept)))
        return await kept.keys(deadline)

    def refuse(self, caller: Caller, keys: ReadOnlyCredentials) -> bool:
        """Take note that AWS refused these keys of the caller, and return whether there may be others at once."""
        kept = self._kept.get(caller)
        return kept is None or kept.refuse(keys)

    def seconds_left(self) -> dict[str, float]:
        """Return how long the sessions of each role are good for, the least of them. May be called from any thread."""
        least: dict[str, float] = {}
        for caller, kept in self._kept.copy().items():
            if left := kept.seconds_left:
                least[caller.role] = min(left, least.get(caller.role, left))
        return least

    def stop(self) -> None:
        """Renew no more."""
        for caller in tuple(self._kept):
            self._drop(caller)

    def _drop(self, caller: Caller) -> None:
        self._kept.pop(caller).stop()


class RoleCredentials:
    """The KeySource of a role: the keys of whichever caller calls, in this role and in no other."""

    def __init__(self, sessions: Sessions, role: str) -> None:
        self._sessions = sessions
        self._role = role

    async def keys(self, deadline: Deadline) -> ReadOnlyCredentials:
        """See KeySource."""
        return await self._sessions.keys(self._caller(), deadline)

    def refuse(self, keys: ReadOnlyCredentials) -> bool:
        """See KeySource."""
        return self._sessions.refuse(self._caller(), keys)

    def _caller(self) -> Caller:
        return current_caller()._replace(role=self._role)


class _Kept:
    """One caller's sessions in a role, of which one is in use at a time."""

    def __init__(self, caller: Caller, begin: Begin, drop: Callable[[Caller], None]) -> None:
        self._caller = caller
        self._begin = begin
        self._drop = drop
        self._keys: ReadOnlyCredentials | None = None
        self._seconds = 0.0
        self._good = self._fresh = self._refused = self._in_use = Deadline(0)
        self._refusal: Failure | None = None
        self._beginning: asyncio.Task[ReadOnlyCredentials | Failure] | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def seconds_left(self) -> float:
        """How long the keys are good for; 0 if there are none."""
        return self._good.remaining() if self._keys else 0.0

    async def keys(self, deadline: Deadline) -> ReadOnlyCredentials:
        """Return the keys, and begin a session where there are none: one, however many wait for it. Raises Failure."""
        if self._keys is not None and self._good.remaining():
            self._in_use = Deadline(self._seconds * _IDLE)
            return self._keys
        if self._refusal is not None and self._refused.remaining():
            raise self._refusal.again()
        beginning = self._beginning or self._start()
        # It is not the first caller's alone, so it goes on without it.
        await asyncio.wait([beginning], timeout=deadline.remaining())
        if not beginning.done():
            raise failures.deadline_exceeded(sent=False)
        outcome = beginning.result()
        if isinstance(outcome, Failure):
            raise outcome.again()
        return outcome

    def refuse(self, keys: ReadOnlyCredentials) -> bool:
        """Take note that AWS refused these keys, and return whether there may be others at once."""
        if keys != self._keys:
            return True
        self._keys = None
        if not self._fresh.remaining():
            return True
        # What was just begun is refused: another one would be too.
        self._refuse(failures.no_credentials())
        return False

    def stop(self) -> None:
        """Renew no more."""
        self._stopped = True
        if self._renewal is not None:
            self._renewal.cancel()

    def _start(self) -> "asyncio.Task[ReadOnlyCredentials | Failure]":
        self._beginning = asyncio.create_task(self._run())
        return self._beginning

    async def _run(self) -> ReadOnlyCredentials | Failure:
        """Begin a session and return its keys, or the failure. What is still good stays until there are new keys."""
        try:
            session = await self._begin(self._caller.role, session_name(self._caller.identity))
        except Failure as failure:
            if failure.reason == Reason.UPSTREAM_CREDENTIALS:
                self._refuse(failure)
            if self.seconds_left:
                self._renew_in(random.uniform(*_RETRY_SECONDS))
            return failure
        except Exception as error:  # noqa: BLE001 - a fault must end what waits for it
            return failures.internal(error)
        finally:
            self._beginning = None
        self._keys, self._seconds = session.keys, session.seconds
        self._good, self._fresh = Deadline(session.seconds), Deadline(_REFUSAL_SECONDS)
        self._renew_in(max(1.0, session.seconds * random.uniform(*_RENEWAL)))
        return session.keys

    def _refuse(self, failure: Failure) -> None:
        self._refusal, self._refused = failure, Deadline(_REFUSAL_SECONDS)

    def _renew_in(self, seconds: float) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        if not self._stopped:
            # In a context of its own: it is no part of the call that the session began with.
            loop = asyncio.get_running_loop()
            self._renewal = loop.call_later(seconds, self._renew, context=contextvars.Context())

    def _renew(self) -> None:
        if not self._in_use.remaining():
            self._drop(self._caller)
        elif self._beginning is None:
            self._start()
