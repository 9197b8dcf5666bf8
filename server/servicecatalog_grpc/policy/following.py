"""The policy in force: that of a file, as it changes."""

from pathlib import Path

from servicecatalog_grpc.files import Reloaded
from servicecatalog_grpc.policy.loading import load_policy
from servicecatalog_grpc.policy.rules import Policy


class PolicyInForce:
    """Called, returns the policy; None where there is no file, and everybody may do everything."""

    def __init__(self, path: str) -> None:
        """Follow the file of that path, unless it is empty, until `stop`. Raises DocumentError if it is bad now."""
        file = Path(path)
        self._reloaded = Reloaded("policy", [file], lambda: load_policy(file)) if path else None
        if self._reloaded is not None:
            self._reloaded.start()

    def __call__(self) -> Policy | None:
        """Return it as of the last good file. Never blocks."""
        return self._reloaded.value if self._reloaded is not None else None

    def stop(self) -> None:
        """Follow the file no longer."""
        if self._reloaded is not None:
            self._reloaded.stop()
