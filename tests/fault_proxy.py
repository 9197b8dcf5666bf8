"""A proxy between the façade and the sandbox that loses, delays and garbles, so that the state behind it stays real."""

import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from upstream import Behaviour, Request, Upstream, abort, error, hang_up, reply

# How long a `delay` takes, and how long a `trickle` stretches its reply, in seconds.
DELAY = 0.1

FAULTS = (
    "delay",
    "drop before",
    "drop after",
    "reset before",
    "reset after",
    "500 before",
    "500 after",
    "503 before",
    "503 after",
    "throttle",
    "truncate",
    "garble",
    "trickle",
)


class FaultProxy:
    """Forwards what it gets to the endpoint, except where `choose` names a fault, or a behaviour, for a request."""

    def __init__(self, endpoint_url: str, choose: Callable[[Request], str | Behaviour | None]) -> None:
        self._address = urlsplit(endpoint_url)
        self._choose = choose
        self._upstream = Upstream()
        self._upstream.behave(self._handle)
        self.url = self._upstream.url
        self.faults: list[str] = []

    def close(self) -> None:
        self._upstream.close()

    def altering(self, change: Callable[[Any], Any]) -> Behaviour:
        """Return what forwards a request and answers with what `change` makes of the answer's JSON."""

        def behaviour(connection: socket.socket, request: Request) -> None:
            _, _, body = self._forward(request).partition(b"\r\n\r\n")
            reply(body=change(json.loads(body)))(connection, request)

        return behaviour

    def _handle(self, connection: socket.socket, request: Request) -> None:
        fault = self._choose(request)
        if fault is None:
            connection.sendall(self._forward(request))
        elif not isinstance(fault, str):
            fault(connection, request)
        else:
            self.faults.append(fault)
            self._do(fault, request)(connection, request)

    def _do(self, fault: str, request: Request) -> Behaviour:
        kind, _, when = fault.partition(" ")
        if when == "after":
            self._forward(request)
        before: Mapping[str, Behaviour] = {
            "drop": hang_up,
            "reset": abort,
            "500": error("InternalFailure", "", 500),
            "503": reply(503, b"<html>no healthy upstream</html>"),
            "throttle": error("ThrottlingException", "Rate exceeded"),
        }
        if kind in before:
            return before[kind]
        answer = self._forward(request)
        return {"delay": _delayed, "truncate": _truncated, "garble": _garbled, "trickle": _trickled}[kind](answer)

    def _forward(self, request: Request) -> bytes:
        """Return the endpoint's answer as it goes over the wire."""
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        with closing(http.client.HTTPConnection(self._address.hostname or "", self._address.port)) as client:
            client.request("POST", "/", body=request.body, headers=headers)
            response = client.getresponse()
            body = response.read()
        lines = [f"HTTP/1.1 {response.status} Forwarded"]
        lines += [f"{name}: {value}" for name, value in response.getheaders() if name.lower() != "transfer-encoding"]
        return "\r\n".join([*lines, "", ""]).encode() + body


def random_faults(seed: int, share: float) -> Callable[[Request], str | None]:
    """Return a chooser that gives this share of the requests a fault, any of them alike."""
    generator = random.Random(seed)
    lock = threading.Lock()

    def choose(_: Request) -> str | None:
        with lock:
            return generator.choice(FAULTS) if generator.random() < share else None

    return choose


def _delayed(answer: bytes) -> Behaviour:
    def behaviour(connection: socket.socket, _: Request) -> None:
        time.sleep(DELAY)
        connection.sendall(answer)

    return behaviour


def _truncated(answer: bytes) -> Behaviour:
    def behaviour(connection: socket.socket, request: Request) -> None:
        connection.sendall(answer[: len(answer) - 40])
        hang_up(connection, request)

    return behaviour


def _garbled(answer: bytes) -> Behaviour:
    head, _, body = answer.partition(b"\r\n\r\n")

    def behaviour(connection: socket.socket, _: Request) -> None:
        connection.sendall(head + b"\r\n\r\n" + bytes(byte ^ 0x55 for byte in body))

    return behaviour


def _trickled(answer: bytes) -> Behaviour:
    def behaviour(connection: socket.socket, _: Request) -> None:
        pieces = 10
        size = len(answer) // pieces + 1
        for start in range(0, len(answer), size):
            connection.sendall(answer[start : start + size])
            time.sleep(DELAY / pieces)

    return behaviour
