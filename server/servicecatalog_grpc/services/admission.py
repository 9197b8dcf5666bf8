"""How many calls are at work at a time, and how many may wait for their turn."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.failures import deadline_exceeded, overloaded

_RETRY_SECONDS = (0.5, 1.5)


class Admission:
    """Lets `limit` calls of a class in at a time, in the order in which they came; up to `max_waiting` more wait.

    A place is given back when its call ends, and a call that is cancelled ends only when its thread is free: there are
    never more calls than threads.
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

    @asynccontextmanager
    async def place(self, deadline: Deadline) -> AsyncIterator[None]:
        """Hold a place. Raises Failure: OVERLOADED at once if too many wait, DEADLINE_EXCEEDED if the wait is too long."""
        if self._places.locked() and self._waiting >= self._max_waiting:
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
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._places.release()
