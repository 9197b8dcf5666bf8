"""TLS of one connection, for what is read and sent by the event loop.

It stands where asyncio has a transport of its own, written in Python, which takes three times as long for a request and
its answer and keeps buffers for each connection. See https://docs.python.org/3/library/ssl.html#memory-bio-support
"""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

# The most that one record holds (https://www.rfc-editor.org/rfc/rfc8446#section-5.1). All connections share it: whoever
# asks for what a record holds is done with it before the next one is decrypted.
_RECORD = memoryview(bytearray(16 * 1024))


class Encryption:
    """The client's side of TLS. What there is to send meanwhile is in `outgoing`."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: Any = context.wrap_bio(self._incoming, self.outgoing, server_hostname=host)
        self.established = self.ended = False

    def receive(self, data: memoryview) -> Iterator[memoryview]:
        """Take what has come, and yield what it says once decrypted, a record at a time; at first nothing, to begin with.

        Raises SSLError, also where the other side cannot be trusted.
        """
        self._incoming.write(data)
        if not self.established:
            with suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                self.established = True
        # To ask once more than there is costs as much as what there is.
        while self.established and not self.ended and (self._incoming.pending or self._tls.pending()):
            try:
                count = self._tls.read(len(_RECORD), _RECORD)
            except ssl.SSLWantReadError:
                return
            if count:
                yield _RECORD[:count]
            else:
                self.ended = True

    def encrypt(self, message: bytes) -> bytes:
        """Return the message as it is to be sent. Raises SSLError."""
        rest = memoryview(message)
        while rest:
            rest = rest[self._tls.write(rest) :]
        return self.outgoing.read()
