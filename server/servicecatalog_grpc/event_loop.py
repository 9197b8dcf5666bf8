"""The event loop of the server, and the thread that brings it gRPC's events."""

import asyncio
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc.aio


class _Selector(selectors.DefaultSelector):
    """Looks for what has come from outside no more than every other time while there is something to do anyway.

    What comes of one event is done one turn of the loop after it, and that turn would ask the kernel again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._looked = True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._looked = timeout is None or timeout > 0 or not self._looked
        return super().select(timeout) if self._looked else []


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop whose name look-ups hold up nobody.

    asyncio looks names up in a few threads that all share, and waits for them at the end, however long a resolver hangs.
    Here each name has a thread of its own while somebody asks for it, which does not keep the process alive.
    """

    def __init__(self) -> None:
        super().__init__(_Selector())
        self._looking_up: dict[tuple[Any, ...], asyncio.Future[Any]] = {}

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """See asyncio. Those who ask the same at the same time get the same answer."""
        asked = host, port, family, type, proto, flags
        answer = self._looking_up.get(asked)
        if answer is None:
            answer = self._looking_up[asked] = self.create_future()
            threading.Thread(target=self._look_up, args=(answer, asked), name="getaddrinfo", daemon=True).start()
        return await asyncio.shield(answer)

    def _look_up(self, answer: "asyncio.Future[Any]", asked: tuple[Any, ...]) -> None:
        found: Any = None
        error: Exception | None = None
        try:
            found = socket.getaddrinfo(*asked)
        except Exception as raised:  # noqa: BLE001 - whoever asks is to handle it
            error = raised
        with suppress(RuntimeError):  # the loop has been closed
            self.call_soon_threadsafe(self._tell, answer, asked, found, error)

    def _tell(self, answer: "asyncio.Future[Any]", asked: tuple[Any, ...], found: Any, error: Exception | None) -> None:
        del self._looking_up[asked]
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)
            answer.exception()  # nobody may be left to take it


@contextmanager
def courteous_poller() -> Iterator[None]:
    """Have what is made here get its events from a thread that interrupts no other.

    gRPC wakes that thread for every event of a call, most of which come from what the event loop's own thread has just
    done. It would interrupt that thread each time, eight times a call, to tell it what it would notice soon by itself.
    With SCHED_BATCH it waits until somebody makes way (https://man7.org/linux/man-pages/man7/sched.7.html).
    """
    with _batch_policy():
        grpc.aio.init_grpc_aio()
    try:
        yield
    finally:
        grpc.aio.shutdown_grpc_aio()


@contextmanager
def _batch_policy() -> Iterator[None]:
    """Let the threads that are started here have it, unless somebody has chosen another one or the host refuses."""
    changed = False
    with suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            changed = True
    try:
        yield
    finally:
        if changed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
