"""Refuses new calls while the server stops, and knows when those that it took on have ended."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

from servicecatalog_grpc.aws.failures import shutting_down
from servicecatalog_grpc.interceptors.handlers import Context, Guard, Handler, around

# Health and reflection, which go on to the end and hold nothing up.
_EXEMPT = "/grpc."


class DrainGuard(Guard):
    """Counts the calls in flight, and takes on no more once the server drains.

    gRPC's own stop cancels calls that arrive while it begins (https://github.com/grpc/grpc/issues/41785), and nobody may
    repeat a call that was cancelled. So calls are refused as UNAVAILABLE first, and gRPC stops when nothing is left.
    """

    def __init__(self) -> None:
        self._draining = False
        self._refused = 0.0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._streams: set[asyncio.Timeout] = set()

    def guard(self, _: Context) -> AbstractAsyncContextManager[None]:
        """Return what counts the call. Raises Failure while the server drains."""
        if self._draining:
            self._refused = time.monotonic()
            raise shutting_down()
        return _InFlight(self)

    def wrap(self, handler: Handler, method: str) -> Handler:
        """Wrap the handler of the method."""
        return around(handler, self._end_with_streams if method.startswith(_EXEMPT) else self.guard)

    def count(self, calls: int) -> None:
        """Note that so many calls more are in flight."""
        self._in_flight += calls
        if self._draining and not self._in_flight:
            self._idle.set()

    def drain(self) -> None:
        """Refuse calls from now on."""
        self._draining = True
        self._refused = time.monotonic()
        self.count(0)

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
            stream.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def _end_with_streams(self, _: Context) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None) as stream:
                self._streams.add(stream)
                try:
                    yield
                finally:
                    self._streams.discard(stream)
        except TimeoutError:
            raise shutting_down() from None


class _InFlight(AbstractAsyncContextManager[None]):
    def __init__(self, draining: DrainGuard) -> None:
        self._draining = draining

    async def __aenter__(self) -> None:
        self._draining.count(1)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self._draining.count(-1)
