"""A façade in this process: a test says how it answers, and sees what it was sent."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from servicecatalog.v1 import (
    catalog_service_pb2,
    provisioned_product_service_pb2,
    provisioning_service_pb2,
    record_service_pb2,
)

DETAILS = "grpc-status-details-bin"

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (
        catalog_service_pb2,
        provisioned_product_service_pb2,
        provisioning_service_pb2,
        record_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class Received(NamedTuple):
    """One attempt as the server sees it."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    time_left: float
    at: float


Answer = Callable[[grpc.ServicerContext], Any]


class StandIn:
    """The server. `answer` says what it does with the attempts to come, the last of it for ever."""

    def __init__(self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> None:
        self.received: list[Received] = []
        self._answers: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers([_Handlers(self._handle)])
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"

    def answer(self, *answers: Answer) -> None:
        self._answers = deque(answers)

    def stop(self) -> None:
        self._server.stop(None).wait()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handle(self, method: str, request: Message, context: grpc.ServicerContext) -> Any:
        with self._lock:
            metadata = dict(context.invocation_metadata())
            self.received.append(Received(method, request, metadata, context.time_remaining(), time.monotonic()))
            answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        return answer(context)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, handle: Callable[..., Any]) -> None:
        self._handle = handle

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = handler_call_details.method
        method = METHODS[name]
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        return make(
            lambda request, context: self._handle(name, request, context),
            GetMessageClass(method.input_type).FromString,
            GetMessageClass(method.output_type).SerializeToString,
        )


def give(response: Message, *initial_metadata: tuple[str, str]) -> Answer:
    """Answer with the message."""

    def answer(context: grpc.ServicerContext) -> Message:
        context.send_initial_metadata(initial_metadata)
        context.set_trailing_metadata((("x-amzn-requestid", "request-1"),))
        return response

    return answer


def states(*responses: Message, then: Answer | None = None) -> Answer:
    """Send the messages of a watch, and then end it, well unless `then` says otherwise."""

    def answer(context: grpc.ServicerContext) -> Iterator[Message]:
        yield from responses
        if then is not None:
            then(context)

    return answer


def fail(
    code: grpc.StatusCode, *details: Message, message: str = "no", initial_metadata: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """End with the code, and with a rich status if there are details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return fail_raw(code, status.SerializeToString() if details else None, message, initial_metadata)


def fail_raw(
    code: grpc.StatusCode,
    status: bytes | None,
    message: str = "no",
    initial_metadata: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """End with the code, and with these bytes as the rich status."""

    def answer(context: grpc.ServicerContext) -> Any:
        if initial_metadata:  # gRPC retries no call whose answer has begun
            context.send_initial_metadata(initial_metadata)
        if status is not None:
            context.set_trailing_metadata(((DETAILS, status),))
        context.abort(code, message)

    return answer


def hold(event: threading.Event) -> Answer:
    """Say nothing more until the event is set, or the caller has gone."""

    def answer(context: grpc.ServicerContext) -> None:
        context.add_callback(event.set)
        event.wait(20)

    return answer


def info(reason: str, domain: str = "servicecatalog-grpc", **metadata: str) -> Any:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def retry_in(seconds: float) -> Any:
    retry_info = error_details_pb2.RetryInfo()
    retry_info.retry_delay.FromMilliseconds(round(seconds * 1000))
    return retry_info


def bad_request(violations: Iterable[tuple[str, str]]) -> Any:
    message = error_details_pb2.BadRequest()
    for field, description in violations:
        message.field_violations.add(field=field, description=description)
    return message
