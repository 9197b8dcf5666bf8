"""The client for asyncio: the names of `servicecatalog`, on `grpc.aio`.

import servicecatalog.aio

async with servicecatalog.aio.connect("127.0.0.1:50051", plaintext=True) as client:
    response = await client.provisioning.ProvisionProduct(request)
    ended = await client.wait(response.record_detail.record_id, timeout=600)
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from servicecatalog._channel import channel_options, positive, transport
from servicecatalog._failure import Failure, Failures, Violation
from servicecatalog._tokens import with_token
from servicecatalog._watching import Watching
from servicecatalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from servicecatalog.v1.provisioned_product_service_pb2_grpc import ProvisionedProductServiceStub
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_service_pb2 import WatchRecordResponse
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub

__all__ = ["Client", "Failure", "Violation", "connect"]


def connect(
    address: str,
    *,
    plaintext: bool = False,
    credentials: grpc.ChannelCredentials | None = None,
    default_deadline: float = 30.0,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> "Client":
    """Return a client of the façade at the address, for the event loop that is running.

    The arguments and what they raise are those of `servicecatalog.connect`; the interceptors are those of `grpc.aio`.
    """
    deadline = positive(default_deadline)
    tls = transport(credentials, plaintext=plaintext)
    settings = channel_options(options)
    ours_first = [_UnaryInterceptor(deadline), _StreamInterceptor(), *interceptors]
    channel = (
        grpc.aio.insecure_channel(address, settings, interceptors=ours_first)
        if tls is None
        else grpc.aio.secure_channel(address, tls, settings, interceptors=ours_first)
    )
    return Client(channel)


class Client:
    """The services of the façade on one channel, made by `connect`, as `servicecatalog.Client` is.

    The calls are those of the stubs on `grpc.aio`: `await client.records.DescribeRecord(request, timeout=5)`.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.provisioning = ProvisioningServiceStub(channel)
        self.provisioned_products = ProvisionedProductServiceStub(channel)
        self.records = RecordServiceStub(channel)
        self.catalog = CatalogServiceStub(channel)
        self._channel = channel

    async def wait(
        self,
        record_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 # of WatchRecord, as any call of gRPC has one
        on_change: Callable[[WatchRecordResponse], object] | None = None,
    ) -> WatchRecordResponse:
        """Return the record once it has ended, SUCCEEDED or FAILED, as `servicecatalog.Client.wait` does.

        Cancelling the task ends the wait, as `asyncio.timeout` does.
        """
        last = WatchRecordResponse()
        async with aclosing(self._states(Watching(record_id, timeout))) as states:
            async for response in states:
                if on_change is not None and response != last:
                    on_change(response)
                last = response
        return last

    async def close(self) -> None:
        """Close the channel. Calls that are under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _states(self, watching: Watching) -> AsyncGenerator[WatchRecordResponse, None]:
        while not watching.ended:
            failure = None
            stream = self.records.WatchRecord(watching.request, timeout=watching.time_left())
            try:
                async for response in stream:
                    watching.saw(response)
                    yield response
            except Failure as error:
                failure = error
            finally:
                stream.cancel()
            if not watching.ended:
                await asyncio.sleep(watching.pause(failure))


# Two classes, because grpc.aio takes an interceptor for one kind of call only.
class _UnaryInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives calls their token and deadline, and failures their type. The outermost one: it sees a call once."""

    def __init__(self, default_deadline: float) -> None:
        self._default_deadline = default_deadline

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        request, token = with_token(request, client_call_details.metadata)
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            self._default_deadline if client_call_details.timeout is None else client_call_details.timeout,
            client_call_details.metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        failures = Failures(token)
        with failures:
            return _Unary(await continuation(details, request), failures)


class _StreamInterceptor(grpc.aio.UnaryStreamClientInterceptor):
    """Gives failures of streams their type."""

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        failures = Failures()
        with failures:
            return _Stream(await continuation(client_call_details, request), failures)


class _Call:
    """A call of gRPC, except for what it raises."""

    def __init__(self, call: Any, failures: Failures) -> None:
        self._call = call
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


@grpc.aio.UnaryUnaryCall.register
class _Unary(_Call):
    def __await__(self) -> Generator[Any, None, Any]:
        with self._failures:
            return (yield from self._call.__await__())


@grpc.aio.UnaryStreamCall.register
class _Stream(_Call):
    async def __aiter__(self) -> AsyncIterator[Any]:
        with self._failures:
            async for response in self._call:
                yield response
