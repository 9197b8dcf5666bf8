"""An HTTP/2 server in the place of a façade that takes calls and breaks them, each in the same way.

See https://www.rfc-editor.org/rfc/rfc9113#name-frame-definitions
"""

import socket
import socketserver
import struct
import threading
from typing import Any

from http2 import ACK, GOAWAY, PING, PREFACE, SETTINGS

HEADERS, RST_STREAM = 1, 3
INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 2, 7, 8


class Breaking:
    """The server. `how` is what it does with a call: `hang up`, `go away`, or the error code that it resets it with."""

    def __init__(self, how: str | int) -> None:
        self.calls = 0
        breaking = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                if self.rfile.read(len(PREFACE)) != PREFACE:
                    return
                _send(self.connection, SETTINGS)
                while header := self.rfile.read(9):
                    length, kind, flags, stream = int.from_bytes(header[:3]), header[3], header[4], header[5:]
                    payload = self.rfile.read(length)
                    if kind in {SETTINGS, PING} and not flags & ACK:
                        _send(self.connection, kind, ACK, payload if kind == PING else b"")
                    elif kind == HEADERS:
                        breaking.calls += 1
                        if not breaking._break(how, self.connection, stream):
                            return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                """A client that hangs up is part of the game."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _break(self, how: str | int, connection: socket.socket, stream: bytes) -> bool:
        """Break the call, and say whether its connection goes on."""
        if isinstance(how, int):
            _send(connection, RST_STREAM, 0, struct.pack(">I", how), stream)
            return True
        if how == "go away":
            # The last stream that it has looked at is none.
            _send(connection, GOAWAY, 0, bytes(8))
        return False


def _send(connection: Any, kind: int, flags: int = 0, payload: bytes = b"", stream: bytes = bytes(4)) -> None:
    connection.sendall(struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + stream + payload)
