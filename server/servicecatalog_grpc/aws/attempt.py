"""One HTTP request to AWS: what it may use, whether it has left, and how it is ended."""

import asyncio
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


class Attempts:
    """The attempts that are under way: each is ended when its deadline comes.

    One alarm is set for all, at the earliest deadline that has been seen. One for each, which nearly always is taken back,
    would take longer than all else that is done to send a request but writing it.
    """

    def __init__(self) -> None:
        self._under_way: set[Attempt] = set()
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, attempt: Attempt) -> None:
        """End the attempt at its deadline, unless it is discarded before."""
        self._under_way.add(attempt)
        if self._alarm is None or attempt.deadline.moment < self._alarm.when():
            self._set_alarm(attempt.deadline)

    def discard(self, attempt: Attempt) -> None:
        """Let the attempt be, which has ended."""
        self._under_way.discard(attempt)

    def cut(self) -> None:
        """End all of them now, as if their answers were lost."""
        for attempt in tuple(self._under_way):
            attempt.cut()

    def _set_alarm(self, deadline: Deadline) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        # The event loop's clock is the monotonic one.
        self._alarm = asyncio.get_running_loop().call_at(deadline.moment, self._expire)

    def _expire(self) -> None:
        self._alarm = None
        for attempt in tuple(self._under_way):
            if not attempt.deadline.remaining():
                self._under_way.discard(attempt)
                attempt.expire()
        if self._under_way:
            self._set_alarm(min((attempt.deadline for attempt in self._under_way), key=lambda each: each.moment))
