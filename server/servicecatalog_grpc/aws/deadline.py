"""The moment by which a call must have ended."""

import time


class Deadline:
    """A moment on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        """Put the moment so many seconds from now."""
        self.moment = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left, 0 if none are."""
        return max(0.0, self.moment - time.monotonic())
