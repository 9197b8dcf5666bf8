"""A rate of calls to AWS per operation, to stay below limits that the account shares with others."""

import time
from collections.abc import Mapping


class Pace:
    """Spaces the calls of each operation evenly. An operation without a rate is not held back."""

    def __init__(self, rates: Mapping[str, float]) -> None:
        """Take the calls per second by operation, e.g. `{"ProvisionProduct": 2.0}`."""
        self._intervals = {operation: 1 / rate for operation, rate in rates.items()}
        self._next: dict[str, float] = {}

    def wait(self, operation: str) -> float:
        """Return how many seconds from now the operation's next turn is."""
        return max(0.0, self._next.get(operation, 0.0) - time.monotonic())

    def take(self, operation: str) -> float:
        """Take the next turn and return how many seconds from now it is."""
        wait = self.wait(operation)
        if operation in self._intervals:
            self._next[operation] = time.monotonic() + wait + self._intervals[operation]
        return wait
