"""Both clients, behind the same few blocking methods, so that a test can be run with each."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, Self

import grpc
import grpc.aio
import servicecatalog
import servicecatalog.aio
from servicecatalog.v1.record_service_pb2 import WatchRecordResponse

_SERVICES = {
    "ProvisioningService": "provisioning",
    "ProvisionedProductService": "provisioned_products",
    "RecordService": "records",
    "CatalogService": "catalog",
}


class AnyClient(Protocol):
    """What the tests need of a client."""

    def __init__(self, address: str, **settings: Any) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def call(self, method: str, request: Any, **options: Any) -> Any:
        """Make a unary call, of the method `Service/Rpc`."""

    def watch(self, request: Any, **options: Any) -> list[Any]:
        """Call WatchRecord itself, and return all its messages."""

    def wait(self, record_id: str, **options: Any) -> WatchRecordResponse: ...


class Threads:
    """`servicecatalog.Client`."""

    def __init__(self, address: str, **settings: Any) -> None:
        self.client = servicecatalog.connect(address, **settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def call(self, method: str, request: Any, **options: Any) -> Any:
        return _rpc(self.client, method)(request, **options)

    def watch(self, request: Any, **options: Any) -> list[Any]:
        return list(self.client.records.WatchRecord(request, **options))

    def wait(self, record_id: str, **options: Any) -> WatchRecordResponse:
        return self.client.wait(record_id, **options)


class Asyncio:
    """`servicecatalog.aio.Client`, in an event loop of its own."""

    def __init__(self, address: str, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        try:
            self.client = self._runner.run(_connect(address, settings))
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.client.close())
        self._runner.close()

    def call(self, method: str, request: Any, **options: Any) -> Any:
        async def call() -> Any:
            return await _rpc(self.client, method)(request, **options)

        return self._runner.run(call())

    def watch(self, request: Any, **options: Any) -> list[Any]:
        async def watch() -> list[Any]:
            return [response async for response in self.client.records.WatchRecord(request, **options)]

        return self._runner.run(watch())

    def wait(self, record_id: str, **options: Any) -> WatchRecordResponse:
        return self._runner.run(self.client.wait(record_id, **options))


BOTH: dict[str, type[AnyClient]] = {"python": Threads, "python-aio": Asyncio}


class ThreadsSpy(grpc.UnaryUnaryClientInterceptor):
    """An interceptor that keeps the requests it sees."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        self.requests.append(request)
        return continuation(client_call_details, request)


class AsyncioSpy(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor that keeps the requests it sees, and awaits the calls itself."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        self.requests.append(request)
        call = await continuation(client_call_details, request)
        await call
        return call


class ThreadsGenerator(grpc.UnaryStreamClientInterceptor):
    """An interceptor that puts a generator in the place of a stream."""

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        yield from continuation(client_call_details, request)


class AsyncioGenerator(grpc.aio.UnaryStreamClientInterceptor):
    """An interceptor that puts a generator in the place of a stream."""

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        call = await continuation(client_call_details, request)
        return (response async for response in call)


GENERATORS: dict[type[AnyClient], Any] = {Threads: ThreadsGenerator, Asyncio: AsyncioGenerator}
SPIES: dict[type[AnyClient], Any] = {Threads: ThreadsSpy, Asyncio: AsyncioSpy}


async def _connect(address: str, settings: dict[str, Any]) -> servicecatalog.aio.Client:
    return servicecatalog.aio.connect(address, **settings)


def _rpc(client: Any, method: str) -> Any:
    service, _, rpc = method.rpartition("/")
    return getattr(getattr(client, _SERVICES[service.rpartition(".")[2]]), rpc)
