"""The client for threads."""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, cast

import grpc

from servicecatalog._channel import channel_options, positive, transport
from servicecatalog._failure import Failure, Failures
from servicecatalog._tokens import with_token
from servicecatalog._watching import Watching
from servicecatalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from servicecatalog.v1.provisioned_product_service_pb2_grpc import ProvisionedProductServiceStub
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_service_pb2 import WatchRecordResponse
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub

Interceptor = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamUnaryClientInterceptor
    | grpc.StreamStreamClientInterceptor
)


def connect(
    address: str,
    *,
    plaintext: bool = False,
    credentials: grpc.ChannelCredentials | None = None,
    default_deadline: float = 30.0,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[Interceptor] = (),
) -> "Client":
    """Return a client of the façade at the address. It connects with its first call, and again whenever it has to.

    - `address`: where the façade is, as gRPC names it: `HOST:PORT`, `dns:///HOST:PORT`, `unix:PATH`.
    - `plaintext`: without TLS, for loopback, a Unix socket or a sidecar. By default TLS is used, with the root certificates
      that gRPC has: those in the file that `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` names, else the ones that it comes with.
    - `credentials`: TLS of your own, such as `grpc.ssl_channel_credentials(…)` with a private CA or a client certificate.
    - `default_deadline`: the seconds that a call may take that is given no `timeout`. Watches are not bounded by it.
    - `options`: channel options of gRPC, see https://grpc.github.io/grpc/core/group__grpc__arg__keys.html. A
      `grpc.service_config` among them replaces this package's retry policy.
    - `interceptors`: interceptors of gRPC, the outermost first. They see requests with their tokens.

    Raises ValueError if `plaintext` and `credentials` are given both, or `default_deadline` is not positive.
    """
    deadline = positive(default_deadline)
    tls = transport(credentials, plaintext=plaintext)
    settings = channel_options(options)
    channel = grpc.insecure_channel(address, settings) if tls is None else grpc.secure_channel(address, tls, settings)
    return Client(grpc.intercept_channel(channel, _Interceptor(deadline), *interceptors))


class Client:
    """The services of the façade on one channel, made by `connect`. Threads may share it.

    The calls are those of gRPC's stubs: `client.records.DescribeRecord(request, timeout=5)`, `….with_call(…)`,
    `….future(…)`. One that fails raises `Failure`. A write whose request has no token, and whose metadata has neither
    `idempotency-key` nor `x-request-id`, is sent with a random one, the same in all attempts; the request itself stays as
    it is. Failures that promise that nothing happened (`UNAVAILABLE`) are retried by gRPC within the call's deadline.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        methods = cast("grpc.Channel", _Methods(channel))
        self.provisioning = ProvisioningServiceStub(methods)
        self.provisioned_products = ProvisionedProductServiceStub(methods)
        self.records = RecordServiceStub(methods)
        self.catalog = CatalogServiceStub(methods)
        self._channel = channel
        self._closed = threading.Event()

    def wait(
        self,
        record_id: str,
        *,
        timeout: float | None = None,
        on_change: Callable[[WatchRecordResponse], object] | None = None,
    ) -> WatchRecordResponse:
        """Return the record once it has ended, SUCCEEDED or FAILED, with all its outputs and errors.

        A record that ended FAILED is returned like any other: see `record_detail.status` and `record_detail.record_errors`.
        The record is followed with WatchRecord, again after each break that passes: the façade restarts or has no
        room, AWS is away or throttles, a connection is lost.

        - `timeout`: the seconds to wait at most; without, as long as it takes.
        - `on_change`: called with each state of the record on the way, the last one included.

        Raises Failure: with the code DEADLINE_EXCEEDED when the time is up, CANCELLED when the client is closed, and
        whatever else ends a watch for good, such as NOT_FOUND.
        """
        last = WatchRecordResponse()
        with closing(self._states(Watching(record_id, timeout))) as states:
            for response in states:
                if on_change is not None and response != last:
                    on_change(response)
                last = response
        return last

    def close(self) -> None:
        """Close the channel. Calls that are under way are cancelled."""
        self._closed.set()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _states(self, watching: Watching) -> Generator[WatchRecordResponse, None, None]:
        while not watching.ended:
            failure = None
            stream = self.records.WatchRecord(watching.request, timeout=watching.time_left())
            try:
                for response in stream:
                    watching.saw(response)
                    yield response
            except Failure as error:
                failure = error
            finally:
                stream.cancel()
            if not watching.ended and self._closed.wait(watching.pause(failure)):
                raise Failure(grpc.StatusCode.CANCELLED, details="the client was closed") from failure


class _Methods:
    """What stubs need of a channel, except for handles of their methods.

    Behind an interceptor gRPC asks for the handle at each call, and that crashes the process once the channel is closed.
    See https://github.com/grpc/grpc/pull/43455
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> Any:
        return self._channel.unary_unary(method, request_serializer, response_deserializer)

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> Any:
        return self._channel.unary_stream(method, request_serializer, response_deserializer)


class _Interceptor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Gives calls their token and deadline, and failures their type. The outermost one: it sees a call once."""

    def __init__(self, default_deadline: float) -> None:
        self._default_deadline = default_deadline

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        request, token = with_token(request, client_call_details.metadata)
        details = _Details(client_call_details, self._default_deadline)
        return _Unary(continuation(details, request), Failures(token))

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return _Stream(continuation(client_call_details, request), Failures())


class _Details(grpc.ClientCallDetails):
    """What else there is to a call, with a deadline."""

    def __init__(self, details: grpc.ClientCallDetails, default_deadline: float) -> None:
        self.method = details.method
        self.timeout = default_deadline if details.timeout is None else details.timeout
        self.metadata = details.metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


@grpc.Call.register
class _Call:
    """A call of gRPC, except for what it raises."""

    def __init__(self, call: Any, failures: Failures) -> None:
        self._call = call
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


@grpc.Future.register
class _Unary(_Call):
    def result(self, timeout: float | None = None) -> Any:
        with self._failures:
            return self._call.result(timeout)

    def exception(self, timeout: float | None = None) -> Any:
        error = self._call.exception(timeout)
        return self._failures.of(error) if isinstance(error, grpc.RpcError) else error

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.add_done_callback(lambda _: callback(self))


class _Stream(_Call):
    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        with self._failures:
            return next(self._call)

    def cancel(self) -> None:
        # An interceptor may have put another iterator in the call's place, as OpenTelemetry's does a generator.
        for name in ("cancel", "close"):
            getattr(self._call, name, lambda: None)()
