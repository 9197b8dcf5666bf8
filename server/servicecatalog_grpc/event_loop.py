"""The event loop of the server."""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop whose name look-ups hold up nobody.

    asyncio looks names up in a few threads that all share, and waits for them at the end, however long a resolver hangs.
    Here each name has a thread of its own while somebody asks for it, which does not keep the process alive.
    """

    def __init__(self) -> None:
        super().__init__()
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
