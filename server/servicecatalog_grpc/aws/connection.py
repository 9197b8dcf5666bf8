"""One HTTP/1.1 connection, on which one request after the other is sent and answered.

The messages are https://www.rfc-editor.org/rfc/rfc9112; llhttp reads the answers, which is what Node.js reads with.
"""

import asyncio
import re
import select
import ssl
from typing import Any, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from servicecatalog_grpc.aws.encryption import Encryption

# No answer of AWS Service Catalog comes near it; whatever else sends more than this is not AWS.
_MAX_RESPONSE_BYTES = 32 * 1024 * 1024

# What is read at a time. All connections share it, because each has read what came before the next one does. asyncio
# would allocate 256 KiB for each.
_BUFFER = memoryview(bytearray(64 * 1024))

# As much as Python's own http.client takes, and more than any of AWS's answers has.
_MAX_HEADERS = 100

_INFORMATIONAL = range(100, 200)

# What a proxy says that has opened a tunnel, and how much it may say.
_OPENED = re.compile(rb"HTTP/1\.[01] 2\d\d\b")
_MAX_HEAD_BYTES = 64 * 1024


class Response(NamedTuple):
    """An answer: its status, its headers by their names in lower case, and its body as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.BufferedProtocol):
    """A connection. What comes when nothing was asked breaks it: nobody may take it for the next answer."""

    def __init__(self, encryption: Encryption | None = None) -> None:
        self._encryption = encryption
        self._transport: Any = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parser = HttpResponseParser(self)
        # A control character in a header is no reason to lose an answer.
        self._parser.set_dangerous_leniencies(lenient_headers=True)
        self._asked = self._reusable = False
        self._outcome: Response | Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._poll = select.poll()
        self._begin()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._reusable and not self._transport.is_closing()

    @property
    def untouched(self) -> bool:
        """Whether nothing has come, not even an end, that the event loop has not read yet. For a connection that is idle."""
        return not self._poll.poll(0)

    async def ready(self) -> None:
        """Wait until a request may be sent. Raises SSLError where the other side cannot be trusted, or OSError."""
        await self._ready

    def request(self, message: bytes) -> None:
        """Send a whole request."""
        self._asked, self._reusable, self._outcome = True, False, None
        self._begin()
        try:
            self._transport.write(self._encryption.encrypt(message) if self._encryption else message)
        except ssl.SSLError as error:
            self._break(error)

    async def answer(self) -> Response:
        """Wait for the answer to what was sent, again if this has been cancelled. Raises OSError if none will come."""
        if self._outcome is None:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if isinstance(self._outcome, Response):
            return self._outcome
        raise self._outcome or ConnectionAbortedError

    def abort(self) -> None:
        """Break the connection at once, and with it the answer that is under way."""
        self._break(ConnectionAbortedError())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)
        if self._encryption is None:
            self._begin_with_requests()
        else:
            self._decrypt(self._encryption, _BUFFER[:0])

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - all there is
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._encryption is None:
            self._receive(_BUFFER[:nbytes])
        else:
            self._decrypt(self._encryption, _BUFFER[:nbytes])

    def _decrypt(self, encryption: Encryption, data: memoryview) -> None:
        error = None
        try:
            for part in encryption.receive(data):
                self._receive(part)
        except ssl.SSLError as raised:
            error = raised
        # Also what tells the other side why it is not trusted.
        if answer := encryption.outgoing.read():
            self._transport.write(answer)
        if error is not None:
            self._break(error)
        elif encryption.ended:
            self._transport.close()
        elif encryption.established and not self._ready.done():
            self._begin_with_requests()

    def _begin_with_requests(self) -> None:
        self._reusable = True
        self._ready.set_result(None)

    def _receive(self, data: memoryview) -> None:
        self._size += len(data)
        if not self._asked or self._size > _MAX_RESPONSE_BYTES:
            self._break(ConnectionError("more than was asked for"))
            return
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._break(ConnectionError(f"not an HTTP answer: {type(error).__name__}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked and self._headers_read and exc is None:
            # An answer without a length ends so. One with a length is cut short: its headers still say something, and
            # whoever reads its body notices.
            self.on_message_complete()
        self._break(exc or ConnectionError("closed before its answer was whole"))

    def on_message_begin(self) -> None:
        """See httptools: an answer begins. Raises ValueError for one too many, which breaks the connection."""
        if not self._asked:
            raise ValueError

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools: a header has been read, or a trailer. Raises ValueError for one too many."""
        self._header_count += 1
        if self._header_count > _MAX_HEADERS:
            raise ValueError
        # A trailer is no header (https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1).
        if not self._headers_read:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """See httptools: what follows is the body."""
        self._headers_read = True

    def on_body(self, body: bytes) -> None:
        """See httptools: a part of the body has been read."""
        self._body += body

    def on_message_complete(self) -> None:
        """See httptools: the answer is whole."""
        status = self._parser.get_status_code()
        if status in _INFORMATIONAL:
            self._begin()
            return
        self._reusable = self._parser.should_keep_alive()
        self._settle(Response(status, self._headers, bytes(self._body)))
        self._begin()
        if not self._reusable:
            self._transport.close()

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._size = self._header_count = 0
        self._headers_read = False

    def _settle(self, outcome: Response | Exception) -> None:
        self._asked, self._outcome = False, outcome
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _break(self, error: Exception) -> None:
        self._reusable = False
        if not self._ready.done():
            self._ready.set_exception(error)
        if self._asked:
            self._settle(error)
        self._transport.abort()


class Tunnel(asyncio.Protocol):
    """A connection to a proxy that is asked for the way to somewhere else."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = bytearray()
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, message: bytes) -> asyncio.Transport:
        """Send the proxy a CONNECT and return what leads there. Raises OSError if it does not."""
        self._transport.write(message)
        await self._answer
        transport: asyncio.Transport = self._transport
        return transport

    def abort(self) -> None:
        """Break the connection at once."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if len(head) > _MAX_HEAD_BYTES or rest:
            self._fail(ConnectionError("the proxy answers more than a CONNECT has for an answer"))
        elif end and not _OPENED.match(head):
            self._fail(ConnectionError("the proxy does not lead there"))
        elif end and not self._answer.done():
            self._answer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the proxy hung up"))

    def _fail(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
