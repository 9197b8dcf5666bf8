"""How many calls are at work at a time, and how many may wait for their turn."""

import asyncio
import random
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.failures import deadline_exceeded, overloaded

_RETRY_SECONDS = (0.5, 1.5)


class Admission:
    """Lets `limit` calls of a class in at a time, in the order in which they came; up to `max_waiting` more wait.

    A place is given back when its call ends, and a call that is cancelled ends only when AWS has answered what it sent:
    AWS never works on more of them than there are places.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._places = asyncio.Semaphore(limit)
        self._max_waiting = max_waiting
        self._waiting = 0
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """How many calls hold a place."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return self._waiting

    def place(self, deadline: Deadline) -> "_Place":
        """Return what holds a place.

        Entering it raises Failure: OVERLOADED at once if too many wait, DEADLINE_EXCEEDED if the wait is too long.
        """
        return _Place(self, deadline)

    async def enter(self, deadline: Deadline) -> None:
        """Take a place. Raises Failure, see `place`."""
        if self._places.locked():
            await self._wait(deadline)
        else:
            await self._places.acquire()
        self._in_flight += 1

    def leave(self) -> None:
        """Give a place back."""
        self._in_flight -= 1
        self._places.release()

    async def _wait(self, deadline: Deadline) -> None:
        if self._waiting >= self._max_waiting:
            # Spread out, or all that were refused would come back together.
            raise overloaded(retry_after=random.uniform(*_RETRY_SECONDS))
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline.remaining()):
                await self._places.acquire()
        except TimeoutError:
            raise deadline_exceeded(sent=False) from None
        finally:
            self._waiting -= 1


class _Place(AbstractAsyncContextManager[None]):
    def __init__(self, admission: Admission, deadline: Deadline) -> None:
        self._admission = admission
        self._deadline = deadline

    async def __aenter__(self) -> None:
        await self._admission.enter(self._deadline)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self._admission.leave()
