"""One HTTP request to AWS: what it may use, whether it has left, and how it is ended."""

import time
from collections.abc import Callable

from botocore.credentials import ReadOnlyCredentials

from servicecatalog_grpc.aws.deadline import Deadline


class Attempt:
    """One HTTP request, from the connection that it opens or takes to the last byte of its reply.

    `keys` sign it. `sent` says whether any of it may have left this host, `expired` whether the deadline ended it, and
    `left` when it was cancelled after it had been sent, on the monotonic clock: it goes on to its end, as AWS does.
    """

    def __init__(self, deadline: Deadline, keys: ReadOnlyCredentials) -> None:
        self.deadline = deadline
        self.keys = keys
        self.sent = False
        self.expired = False
        self.left: float | None = None
        self._ended = False
        self._end: Callable[[], object] | None = None

    def ends_by(self, end: Callable[[], object]) -> None:
        """Have the attempt ended by this from now on, and at once if it has been ended before."""
        self._end = end
        if self._ended:
            end()

    def expire(self) -> None:
        """End the attempt, because its deadline has come."""
        self.expired = True
        self.cut()

    def cut(self) -> None:
        """End the attempt: its connection is broken, whatever it waits for."""
        self._ended = True
        if self._end is not None:
            self._end()

    def leave(self) -> None:
        """Note that nobody waits for the answer any longer."""
        self.left = self.left or time.monotonic()
