"""An HTTP server in the place of AWS that answers with the bytes a test gives it, and keeps what it was sent."""

import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

REQUEST_ID = "11111111-2222-3333-4444-555555555555"

# What ends a behaviour and with it the connection: the server says no more.
Behaviour = Callable[[socket.socket, "Request"], None]


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    headers: dict[str, str]
    body: bytes

    @property
    def target(self) -> str:
        return self.headers["x-amz-target"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """The server. `behave` says what it does with each request: one behaviour for all, or one after the other."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._behaviours: list[Behaviour] = []
        self._lock = threading.Lock()
        upstream = self

        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with upstream._lock:
                    upstream.connections += 1
                while (request := _read(self.rfile)) is not None:
                    upstream._take(request)(self.connection, request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            request_queue_size = 1024

            def handle_error(self, *_: object) -> None:
                """A client that hangs up is part of the game."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def behave(self, *behaviours: Behaviour) -> None:
        """Forget what was, and from now on do this; the last behaviour goes on for ever."""
        with self._lock:
            self.requests.clear()
            self.connections = 0
            self._behaviours = list(behaviours)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, request: Request) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            return self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]


def reply(status: int = 200, body: object = b"", **headers: str) -> Behaviour:
    """Answer with the status and the body, which becomes JSON unless it is bytes already."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def behaviour(connection: socket.socket, _: Request) -> None:
        connection.sendall(_head(status, len(content), headers) + content)

    return behaviour


def error(code: str, message: str = "", status: int = 400) -> Behaviour:
    """Answer as AWS's JSON protocol does when it refuses."""
    return reply(status, {"__type": code, "message": message})


def after(seconds: float, then: Behaviour) -> Behaviour:
    def behaviour(connection: socket.socket, request: Request) -> None:
        time.sleep(seconds)
        then(connection, request)

    return behaviour


def until(event: threading.Event, then: Behaviour) -> Behaviour:
    """Wait for the event, and not longer than any test lasts."""

    def behaviour(connection: socket.socket, request: Request) -> None:
        event.wait(60)
        then(connection, request)

    return behaviour


def truncated(body: object, at: int) -> Behaviour:
    """Promise the whole body and hang up after so many bytes of it."""
    content = json.dumps(body).encode()

    def behaviour(connection: socket.socket, _: Request) -> None:
        connection.sendall(_head(200, len(content), {}) + content[:at])
        connection.shutdown(socket.SHUT_RDWR)

    return behaviour


def raw(content: bytes) -> Behaviour:
    """Send the bytes and hang up."""

    def behaviour(connection: socket.socket, _: Request) -> None:
        # The end goes with the bytes: who has read them has no time to send another request that nobody would read.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.sendall(content)
        connection.shutdown(socket.SHUT_RDWR)

    return behaviour


def hang_up(connection: socket.socket, _: Request) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def silence(connection: socket.socket, _: Request) -> None:
    """Never answer; ends when the client hangs up."""
    while connection.recv(1024):
        pass


def trickle(connection: socket.socket, _: Request) -> None:
    """Send a byte of a header now and then, so that no single read ever times out."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-long: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.02)


def _head(status: int, length: int, headers: dict[str, str]) -> bytes:
    fields = {
        "Content-Type": "application/x-amz-json-1.1",
        "Content-Length": str(length),
        "x-amzn-RequestId": REQUEST_ID,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _read(stream: Any) -> Request | None:
    if not stream.readline():
        return None
    headers = {}
    while (line := stream.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(headers, stream.read(int(headers.get("content-length", 0))))


def abort(connection: socket.socket, _: Request) -> None:
    """Reset the connection at once, whatever else still holds its socket."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    os.close(connection.detach())


def trickled(body: object, seconds: float) -> Behaviour:
    """Send the headers at once and the body byte by byte, with a pause after each."""
    content = json.dumps(body).encode()

    def behaviour(connection: socket.socket, _: Request) -> None:
        connection.sendall(_head(200, len(content), {}))
        for index in range(len(content)):
            connection.sendall(content[index : index + 1])
            time.sleep(seconds)

    return behaviour


class Connections:
    """A server below HTTP: `behave` says what it does with each connection that it accepts, which it then closes."""

    def __init__(self, backlog: int = 1024) -> None:
        self.accepted = 0
        self._behaviour: Callable[[socket.socket], None] = socket.socket.close
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def behave(self, behaviour: Callable[[socket.socket], None]) -> None:
        """Forget what was, and from now on do this."""
        self._behaviour = behaviour
        self.accepted = 0

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection, self._behaviour), daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket, behaviour: Callable[[socket.socket], None]) -> None:
        with suppress(OSError), connection:
            behaviour(connection)


def unread(connection: socket.socket) -> None:
    """Never read; ends when the other side has gone."""
    established = b"\x01"
    while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == established:
        time.sleep(0.02)
