"""Refuses new calls while the server stops, and knows when those that it took on have ended."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType

from servicecatalog_grpc.aws.failures import shutting_down

# Health and reflection, which go on to the end and hold nothing up.
_EXEMPT = "/grpc."


class Draining(AbstractContextManager[None]):
    """Counts the calls in flight, each of which is within it, and takes on no more once the server drains.

    gRPC's own stop cancels calls that arrive while it begins (https://github.com/grpc/grpc/issues/41785), and nobody may
    repeat a call that was cancelled. So calls are refused as UNAVAILABLE first, and gRPC stops when nothing is left.
    """

    def __init__(self) -> None:
        self._draining = False
        self._refused = 0.0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._streams: set[_Stream] = set()

    def place_of(self, method: str) -> Callable[[], AbstractContextManager[None]]:
        """Return what makes the place that a call of the method takes. Entering it raises Failure while the server drains."""
        return partial(_Stream, self._streams) if method.startswith(_EXEMPT) else lambda: self

    def __enter__(self) -> None:
        if self._draining:
            self._refused = time.monotonic()
            raise shutting_down()
        self._in_flight += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self._in_flight -= 1
        self._see_whether_idle()

    def drain(self) -> None:
        """Refuse calls from now on."""
        self._draining = True
        self._refused = time.monotonic()
        self._see_whether_idle()

    async def idle(self, seconds: float) -> bool:
        """Wait until no call is in flight, for so many seconds at most, and say whether that is so."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def quiet(self, seconds: float, at_most: float) -> None:
        """Wait until no call has been refused for so many seconds, for a given time at most."""
        end = time.monotonic() + at_most
        while True:
            left = min(end, self._refused + seconds) - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)

    def end_streams(self) -> None:
        """End the calls of health and reflection, of which one is a stream that would go on for ever."""
        for stream in self._streams:
            stream.end()

    def _see_whether_idle(self) -> None:
        if self._draining and not self._in_flight:
            self._idle.set()


class _Stream(AbstractContextManager[None]):
    """The place of one call that goes on until it is ended."""

    def __init__(self, streams: "set[_Stream]") -> None:
        self._streams = streams
        self._task = asyncio.current_task()
        self._ended = False

    def end(self) -> None:
        """End the call. It raises Failure."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> None:
        self._streams.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self._streams.discard(self)
        if self._ended and self._task is not None and not self._task.uncancel() and kind is asyncio.CancelledError:
            raise shutting_down() from None
