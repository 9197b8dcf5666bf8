"""Why the server has a telemetry interceptor of its own: what gRPC's instrumentation library makes of the same calls."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode
from opentelemetry import trace
from opentelemetry.instrumentation import grpc as library
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from servicecatalog_grpc.interceptors.draining import Draining
from servicecatalog_grpc.interceptors.identity import Identification
from servicecatalog_grpc.interceptors.interceptor import Interceptor
from servicecatalog_grpc.interceptors.telemetry import Observation

# It has no types of its own.
library_interceptor: Any = library.aio_server_interceptor
METHOD = "/example.v1.Service/Call"


@pytest.fixture(scope="module")
def provider() -> Iterator[TracerProvider]:
    """The provider of this process, which only the first module that sets one can."""
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    yield provider
    provider.shutdown()


async def _abort(_: bytes, context: Any) -> bytes:
    await context.abort(StatusCode.UNAVAILABLE, "not now")
    raise AssertionError


async def _raise(_: bytes, __: Any) -> bytes:
    raise ValueError("a fault")


async def _hang(_: bytes, __: Any) -> bytes:
    await asyncio.sleep(60)
    return b""


async def _call(interceptor: grpc.aio.ServerInterceptor, behavior: Any) -> StatusCode:
    """Make one call to a server with the interceptor and return its code."""
    server = grpc.aio.server(interceptors=(interceptor,))
    handler: Any = grpc.unary_unary_rpc_method_handler(behavior)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.v1.Service", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.unary_unary(METHOD)
            code: StatusCode = await method(b"", timeout=0.3).code()
            return code
    finally:
        await asyncio.sleep(0.2)
        await server.stop(0)


def _span(provider: TracerProvider, interceptor: grpc.aio.ServerInterceptor, behavior: Any) -> tuple[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    code = asyncio.run(_call(interceptor, behavior))
    (span,) = exporter.get_finished_spans()
    return code.name, span


@pytest.mark.parametrize("behavior", [_abort, _raise, _hang], ids=["aborted", "uncaught", "too late"])
def test_the_span_has_the_status_that_the_caller_got(provider: TracerProvider, behavior: Any) -> None:
    own = Interceptor(Observation(), Identification(trust_forwarded=False), Draining())
    code, span = _span(provider, own, behavior)
    attributes = dict(span.attributes or {})
    assert span.name == METHOD.lstrip("/")
    assert attributes["rpc.response.status_code"] == code
    assert span.status.status_code == trace.StatusCode.ERROR


@pytest.mark.parametrize("behavior", [_raise, _hang], ids=["uncaught", "too late"])
def test_the_library_says_ok_of_a_call_that_failed(provider: TracerProvider, behavior: Any) -> None:
    code, span = _span(provider, library_interceptor(tracer_provider=provider), behavior)
    assert code != "OK"
    assert dict(span.attributes or {})["rpc.grpc.status_code"] == StatusCode.OK.value[0]
    assert span.status.status_code != trace.StatusCode.ERROR


def test_the_library_uses_names_that_the_conventions_have_given_up(provider: TracerProvider) -> None:
    _, span = _span(provider, library_interceptor(tracer_provider=provider), _abort)
    assert span.name == METHOD
    assert {"rpc.system", "rpc.service", "rpc.grpc.status_code", "net.peer.ip"} <= set(span.attributes or {})
    assert "rpc.response.status_code" not in (span.attributes or {})
