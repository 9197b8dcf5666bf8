"""HTTP/2 below gRPC: a connection that sends and answers what a test tells it to, and nothing by itself.

See https://www.rfc-editor.org/rfc/rfc9113#name-frame-definitions
"""

import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
ENHANCE_YOUR_CALM = 11


class Frame(NamedTuple):
    """A frame of stream 0."""

    kind: int
    flags: int
    payload: bytes


class Connection:
    """A connection whose settings have been exchanged."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.sendall(PREFACE)
        self.send(SETTINGS)
        self.send(SETTINGS, ACK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._socket.close()

    def send(self, kind: int, flags: int = 0, payload: bytes = b"") -> None:
        self._socket.sendall(struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + bytes(4) + payload)

    def ping(self, payload: bytes) -> None:
        """Send a ping with these eight bytes."""
        self.send(PING, 0, payload)

    def frames(self) -> Iterator[Frame]:
        """Yield what the server sends, until it closes the connection."""
        stream = self._socket.makefile("rb")
        while header := stream.read(9):
            yield Frame(header[3], header[4], stream.read(int.from_bytes(header[:3])))
