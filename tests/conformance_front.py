"""What stands between a client and the façade: it passes calls on as they are, except where a row's script says else."""

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from conformance_rows import WATCH
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "servicecatalog-grpc"
DETAILS = "grpc-status-details-bin"

PASS = "pass"
HANG_UP, SILENCE, END = "hang up", "silence", "end"
NOTHING, REQUEST, HEADERS = "nothing", "request", "headers"

# gRPC's own, which each hop makes for itself.
_HOP_BY_HOP = ("grpc-", "user-agent", ":")
_NO_DEADLINE_SECONDS = 10**6
_THREADS = 16


@dataclass
class Attempt:
    """One attempt of a call as it arrived: `deadline` in seconds from then, `responses` what was passed back."""

    method: str
    request: bytes
    metadata: Mapping[str, str | bytes]
    deadline: float | None
    at: float = field(default_factory=time.monotonic)
    responses: list[bytes] = field(default_factory=list)


class Front:
    """A gRPC server at `address` before the façade at `target`, for one row."""

    def __init__(self, target: str, script: Sequence[Any]) -> None:
        self.attempts: list[Attempt] = []
        self._script = list(script)
        self._acting = 0
        self._lock = threading.Lock()
        # What fails behind it is for the client to repeat.
        self._channel = grpc.insecure_channel(target, options=(("grpc.enable_retries", 0),))
        self._threads = ThreadPoolExecutor(_THREADS)
        self._server = grpc.server(self._threads, handlers=[_Handler(self)])
        self._relay = _Relay(self._server.add_insecure_port("127.0.0.1:0"))
        self._server.start()
        self.address = self._relay.address

    def close(self) -> None:
        self._relay.close()
        self._server.stop(0).wait()
        self._channel.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def scripted(self) -> bool:
        """Whether there are steps of the script still to come or to end."""
        with self._lock:
            return self._acting > 0 or any(step != PASS for step in self._script)

    def unary(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Handle one attempt of a unary call."""
        with self._attempt(method, request, context) as (attempt, step):
            return self._unary(attempt, step, context)

    def stream(self, method: str, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Handle one attempt of a watch; `after` may be a number of messages."""
        with self._attempt(method, request, context) as (attempt, step):
            yield from self._stream(attempt, step, context)

    def _unary(self, attempt: Attempt, step: Any, context: grpc.ServicerContext) -> bytes:
        after = PASS if step == PASS else step["after"]
        if after == NOTHING:
            return self._end(step["then"], context)
        call: Any = _raw(self._channel.unary_unary, attempt).future(attempt.request, **_onward(context))
        context.add_callback(call.cancel)
        try:
            # At once, because it is the point from which on nobody but the application repeats the call.
            if (initial := call.initial_metadata()) and after != REQUEST:
                context.send_initial_metadata(initial)
            answer: bytes = call.result()
        except grpc.FutureCancelledError:
            return b""
        except grpc.RpcError:
            if step != PASS:
                return self._end(step["then"], context)
            return _pass_failure(call, context)
        context.set_trailing_metadata(call.trailing_metadata())
        if step != PASS:
            return self._end(step["then"], context)
        attempt.responses.append(answer)
        return answer

    def _stream(self, attempt: Attempt, step: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        left = None if step == PASS else 0 if step["after"] == NOTHING else int(step["after"])
        if left != 0:
            call: Any = _raw(self._channel.unary_stream, attempt)(attempt.request, **_onward(context))
            context.add_callback(call.cancel)
            try:
                for message in call:
                    attempt.responses.append(message)
                    yield message
                    left = left and left - 1
                    if left == 0:
                        break
            except grpc.RpcError:
                if context.is_active():
                    _pass_failure(call, context)
            call.cancel()
        if left is not None and step["then"] != END:
            self._end(step["then"], context)

    @contextmanager
    def _attempt(self, method: str, request: bytes, context: grpc.ServicerContext) -> Iterator[tuple[Attempt, Any]]:
        """Record an attempt and give it its step of the script."""
        remaining = context.time_remaining()
        deadline = None if remaining is None or remaining > _NO_DEADLINE_SECONDS else remaining
        attempt = Attempt(method, request, dict(context.invocation_metadata()), deadline)
        with self._lock:
            self.attempts.append(attempt)
            step = self._script.pop(0) if self._script else PASS
            self._acting += step != PASS
        try:
            yield attempt, step
        finally:
            with self._lock:
                self._acting -= step != PASS

    def _end(self, then: Any, context: grpc.ServicerContext) -> bytes:
        away = isinstance(then, dict) and then.get("away")
        if away:
            self._relay.leave(away)
        elif then == HANG_UP:
            self._relay.hang_up()
        if away or then in (HANG_UP, SILENCE):
            gone = threading.Event()
            if context.add_callback(gone.set):
                gone.wait()
            return b""
        trailing = _details(then)
        if trailing is not None:
            context.set_trailing_metadata(((DETAILS, trailing),))
        context.abort(grpc.StatusCode[then["code"]], then.get("message", ""))
        raise AssertionError  # only mypy gets here


class _Handler(grpc.GenericRpcHandler):
    """Takes any method; none but the watch is a stream."""

    def __init__(self, front: Front) -> None:
        self._front = front

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method.endswith(f"/{WATCH}"):
            return grpc.unary_stream_rpc_method_handler(partial(self._front.stream, method))
        return grpc.unary_unary_rpc_method_handler(partial(self._front.unary, method))


def _raw(make: Callable[[str], Any], attempt: Attempt) -> Any:
    """Return the attempt's method, without any serializers: bytes go in and come out."""
    return make(attempt.method)


def _onward(context: grpc.ServicerContext) -> dict[str, Any]:
    remaining = context.time_remaining()
    return {
        "timeout": None if remaining is None or remaining > _NO_DEADLINE_SECONDS else remaining,
        "metadata": [pair for pair in context.invocation_metadata() if not pair[0].startswith(_HOP_BY_HOP)],
    }


def _pass_failure(call: Any, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata(call.trailing_metadata())
    context.abort(call.code(), call.details())
    raise AssertionError  # only mypy gets here


def _details(then: Mapping[str, Any]) -> bytes | None:
    """Return the `google.rpc.Status` of a scripted failure, or the bytes that the script gives in its place."""
    if "details" in then:
        return base64.b64decode(then["details"])
    more = [
        any_pb2.Any(type_url=f"type.googleapis.com/{each['type']}", value=base64.b64decode(each["value"]))
        for each in then.get("more", ())
    ]
    details: list[Any] = []
    if "reason" in then:
        domain, metadata = then.get("domain", DOMAIN), then.get("metadata", {})
        details.append(error_details_pb2.ErrorInfo(reason=then["reason"], domain=domain, metadata=metadata))
    if "retryDelay" in then:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(then["retryDelay"] * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if not details and not more:
        return None
    status = status_pb2.Status(
        code=grpc.StatusCode[then["code"]].value[0], message=then.get("message", ""), details=more
    )
    for each in details:
        packed = any_pb2.Any()
        packed.Pack(each)
        status.details.append(packed)
    content: bytes = status.SerializeToString()
    return content


class _Relay:
    """Passes bytes between its clients and a port, and can hang up on all of them at once, as a broken network does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listen(0)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"

    def leave(self, seconds: float) -> None:
        """Hang up, and take no connection for so long."""
        port: int = self._listening.getsockname()[1]
        self._stop_listening()
        self.hang_up()
        threading.Thread(target=self._come_back, args=(port, seconds), daemon=True).start()

    def hang_up(self) -> None:
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed.set()
        self._stop_listening()
        self.hang_up()

    def _listen(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _stop_listening(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _come_back(self, port: int, seconds: float) -> None:
        if not self._closed.wait(seconds):
            self._listen(port)

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open |= {client, server}
                ends = threading.Barrier(2, action=partial(self._forget, client, server))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_pump, args=(source, sink, ends), daemon=True).start()

    def _forget(self, *connections: socket.socket) -> None:
        with self._lock:
            self._open.difference_update(connections)
        for each in connections:
            each.close()


def _pump(source: socket.socket, sink: socket.socket, ends: threading.Barrier) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    ends.wait()
