"""One trace from the caller to AWS, as a real collector gets it, however the call ends."""

import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, NamedTuple

import grpc
import pytest
from calls import ANSWER, properties, provision
from facade import Facade, environment
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from otlp import Collector, Span, collector, wait_for
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.telemetry.call import token_digest
from upstream import REQUEST_ID, Behaviour, Request, Upstream, after, error, hang_up, reply

METHOD = "servicecatalog.v1.ProvisioningService/ProvisionProduct"
FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED"}
THROTTLE = error("ThrottlingException", "Rate exceeded")


class World(NamedTuple):
    """A caller, a façade, something in the place of AWS, and the collector that all of them report to."""

    upstream: Upstream
    received: Collector
    facade: Facade
    channel: grpc.Channel
    caller: "Caller"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(Upstream()) as upstream, collector(tmp_path_factory.mktemp("collector")) as received:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        with (
            Facade("serve", "--listen", "127.0.0.1:0", env=environment(upstream.url, **variables)) as facade,
            grpc.insecure_channel(facade.address, options=(("grpc.enable_retries", 0),)) as channel,
            closing(Caller(received.endpoint)) as caller,
        ):
            yield World(upstream, received, facade, channel, caller)


class Caller:
    """A program that makes calls and traces them."""

    def __init__(self, endpoint: str) -> None:
        self._provider = TracerProvider(resource=Resource({"service.name": "caller"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), schedule_delay_millis=50))
        self._tracer = self._provider.get_tracer("caller")

    def close(self) -> None:
        self._provider.shutdown()

    def call(self, channel: grpc.Channel, request: Any, *, cancel_after: float = 0, timeout: float = 10) -> "Made":
        """Make the call within a span of its own."""
        with self._tracer.start_as_current_span("caller", kind=SpanKind.CLIENT) as span:
            carrier: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
            stub = ProvisioningServiceStub(channel)
            method = getattr(stub, request.DESCRIPTOR.name.removesuffix("Request"))
            call = method.future(request, timeout=timeout, metadata=tuple(carrier.items()))
            if cancel_after:
                time.sleep(cancel_after)
                call.cancel()
            context = span.get_span_context()
            return Made(call.code(), format_trace_id(context.trace_id), format_span_id(context.span_id))


class Made(NamedTuple):
    """A call that was made, by its caller's span."""

    code: grpc.StatusCode
    trace: str
    span: str


class Attempt(NamedTuple):
    error: str | None
    http: int | None = 200
    resent: int | None = None


class Case(NamedTuple):
    """How AWS behaves, how the call is made, and what its trace has to say."""

    behaviours: tuple[Behaviour, ...]
    status: str
    reason: str | None
    attempts: tuple[Attempt, ...]
    request: Any = provision()
    call: Mapping[str, float] = MappingProxyType({})


CASES = {
    "success": Case((ANSWER,), "OK", None, (Attempt(None),)),
    "validation": Case(
        (ANSWER,),
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
        (),
        request=provision(product_id=None, accept_language="xx"),
    ),
    "throttled, with retries": Case(
        (THROTTLE, THROTTLE, ANSWER),
        "OK",
        None,
        (Attempt("ThrottlingException", 400), Attempt("ThrottlingException", 400, 1), Attempt(None, 200, 2)),
    ),
    "throttled for good": Case(
        (THROTTLE,),
        "RESOURCE_EXHAUSTED",
        "THROTTLED",
        (Attempt("ThrottlingException", 400), *(Attempt("ThrottlingException", 400, number) for number in (1, 2, 3))),
    ),
    "refused by AWS": Case(
        (error("ResourceNotFoundException", "no such product"),),
        "NOT_FOUND",
        "RESOURCE_NOT_FOUND",
        (Attempt("ResourceNotFoundException", 400),),
    ),
    "lost": Case((hang_up, ANSWER), "OK", None, (Attempt("ConnectionClosedError", None), Attempt(None, 200, 1))),
    "unknown to us": Case(
        (error("NewException", "news"),), "UNKNOWN", "UNMAPPED_AWS_ERROR", (Attempt("NewException", 400),)
    ),
    "answered with nonsense": Case(
        (reply(418, {"__type": "no code at all, but a sentence", "message": ""}),),
        "UNKNOWN",
        "UNMAPPED_AWS_ERROR",
        (Attempt("_OTHER", 418),),
    ),
    "deadline, noticed here": Case(
        (after(1, ANSWER),),
        "DEADLINE_EXCEEDED",
        "DEADLINE_EXCEEDED",
        (Attempt("timeout", None),),
        call={"timeout": 0.5},
    ),
    "cancelled": Case((after(0.4, ANSWER),), "CANCELLED", None, (Attempt(None),), call={"cancel_after": 0.15}),
    "cancelled, and over only after its deadline": Case(
        (after(0.8, ANSWER),),
        "CANCELLED",
        None,
        (Attempt("timeout", None),),
        call={"cancel_after": 0.15, "timeout": 0.6},
    ),
    "properties": Case((ANSWER,), "OK", None, (Attempt(None),), request=properties()),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_trace_leads_from_the_caller_to_each_attempt(world: World, case: Case) -> None:
    world.upstream.behave(*case.behaviours)
    made = world.caller.call(world.channel, case.request, **case.call)
    assert made.code.name == case.status
    spans = world.received.spans_of(made.trace, 2 + len(case.attempts))

    (above,) = [span for span in spans if span.service == "caller"]
    (server,) = [span for span in spans if span.kind == "SERVER"]
    attempts = [span for span in spans if span.service == "servicecatalog-grpc" and span.kind == "CLIENT"]
    assert len(spans) == 2 + len(case.attempts)
    assert (above.id, server.parent) == (made.span, made.span)
    assert [span.parent for span in attempts] == [server.id] * len(case.attempts)

    operation = case.request.DESCRIPTOR.name.removesuffix("Request")
    host, _, port = world.facade.address.rpartition(":")
    assert server.name == f"servicecatalog.v1.ProvisioningService/{operation}"
    expected: dict[str, Any] = {
        "rpc.system.name": "grpc",
        "rpc.method": server.name,
        "rpc.response.status_code": case.status,
        "server.address": host,
        "server.port": int(port),
        "client.address": "127.0.0.1",
    }
    assert {name: server.attributes.get(name) for name in expected} == expected
    assert server.error == (case.status in FAULTS)
    assert server.attributes.get("error.type") == (case.status if (case.status in FAULTS) else None)
    assert server.attributes.get("servicecatalog.error.reason") == case.reason

    found = [
        Attempt(
            span.attributes.get("error.type"),
            span.attributes.get("http.response.status_code"),
            span.attributes.get("http.request.resend_count"),
        )
        for span in attempts
    ]
    assert found == list(case.attempts)
    for span in attempts:
        assert span.name == span.attributes["rpc.method"] == f"ServiceCatalog/{operation}"
        assert span.attributes["rpc.system.name"] == "aws-api"
        assert span.attributes["cloud.region"] == "us-east-1"
        assert span.error == ("error.type" in span.attributes)
        answered = "http.response.status_code" in span.attributes
        assert span.attributes.get("aws.request_id") == (REQUEST_ID if answered else None)


def test_a_trace_is_found_by_its_record_and_by_its_token(world: World) -> None:
    record = {"RecordId": "rec-7", "ProvisionedProductId": "pp-7"}
    world.upstream.behave(reply(body={"RecordDetail": record}))
    made = world.caller.call(world.channel, provision(provision_token="a-token-of-mine"))
    (server,) = [span for span in world.received.spans_of(made.trace, 3) if span.kind == "SERVER"]
    assert server.attributes["servicecatalog.record.id"] == "rec-7"
    assert server.attributes["servicecatalog.provisioned_product.id"] == "pp-7"
    assert server.attributes["servicecatalog.token.digest"] == token_digest("a-token-of-mine")
    assert server.attributes["servicecatalog.token.source"] == "request"
    assert server.attributes["aws.request_id"] == REQUEST_ID


def test_the_fields_of_a_bad_request_are_an_event_without_values_and_foreign_keys(world: World) -> None:
    made = world.caller.call(
        world.channel,
        properties(accept_language="canary", provisioned_product_properties={"OWNER": "canary", "canary": "canary"}),
    )
    (server,) = [span for span in world.received.spans_of(made.trace, 2) if span.kind == "SERVER"]
    ((name, said),) = server.events
    assert name == "invalid_request"
    assert set(said["servicecatalog.invalid_fields"]) == {
        "accept_language",
        'provisioned_product_properties["OWNER"]',
        "provisioned_product_properties[…]",
    }
    assert "canary" not in str(server)


def test_without_a_caller_who_traces_a_trace_begins_here(world: World) -> None:
    world.upstream.behave(reply(body={"RecordDetail": {"RecordId": "rec-root"}}))
    ProvisioningServiceStub(world.channel).ProvisionProduct(provision())

    def roots() -> list[Span]:
        return [
            span for span in world.received.spans() if span.attributes.get("servicecatalog.record.id") == "rec-root"
        ]

    wait_for(roots)
    assert [span.parent for span in roots()] == [""]


@pytest.mark.parametrize(
    ("method", "content", "name", "status"),
    [
        ("/nobody.Knows/This", b"", "grpc", "UNIMPLEMENTED"),
        (f"/{METHOD}", b"\xff\xff", METHOD, "INVALID_ARGUMENT"),
        (f"/{METHOD}", b"x" * (1024 * 1024 + 1), METHOD, "RESOURCE_EXHAUSTED"),
    ],
    ids=["unknown", "garbled", "too large"],
)
def test_what_no_servicer_sees_has_a_span_too(
    world: World, method: str, content: bytes, name: str, status: str
) -> None:
    trace = f"{secrets.randbits(128):032x}"
    with pytest.raises(grpc.RpcError) as raised:
        world.channel.unary_unary(method)(content, metadata=(("traceparent", f"00-{trace}-00000000000000aa-01"),))  # type: ignore[arg-type]  # bytes go as they are
    assert raised.value.code().name == status
    (span,) = world.received.spans_of(trace, 1)
    assert (span.name, span.kind, span.parent) == (name, "SERVER", "00000000000000aa")
    assert span.attributes["rpc.response.status_code"] == status
    assert span.attributes["rpc.method"] == (name if name == METHOD else "_OTHER")
    assert span.attributes.get("rpc.method_original") == (None if name == METHOD else method[1:])


def test_streams_have_spans_too(world: World) -> None:
    trace = "5" * 32
    watch = health_pb2_grpc.HealthStub(world.channel).Watch(  # type: ignore[attr-defined]  # the stubs lack it
        health_pb2.HealthCheckRequest(), metadata=(("traceparent", f"00-{trace}-00000000000000aa-01"),)
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    (span,) = world.received.spans_of(trace, 1)
    assert (span.name, span.attributes["rpc.response.status_code"]) == ("grpc.health.v1.Health/Watch", "CANCELLED")


def test_no_span_goes_astray_among_many_calls_at_a_time(world: World) -> None:
    count = 200
    seen: set[str] = set()

    def throttle_some_once(connection: socket.socket, request: Request) -> None:
        token = request.json["ProvisionToken"]
        first = token not in seen
        seen.add(token)
        (after(0.02, THROTTLE) if first and token[-1] in "0123" else after(0.02, ANSWER))(connection, request)

    world.upstream.behave(throttle_some_once)
    with ThreadPoolExecutor(count) as callers:
        made = list(callers.map(lambda _: world.caller.call(world.channel, provision(), timeout=20), range(count)))
    assert {each.code for each in made} == {grpc.StatusCode.OK}
    sent: dict[str, list[Span]] = {}
    wait_for(
        lambda: (
            sum(span.trace in {each.trace for each in made} for span in world.received.spans())
            >= count * 2 + len(world.upstream.requests)
        )
    )
    for span in world.received.spans():
        sent.setdefault(span.trace, []).append(span)
    total = 0
    for each in made:
        spans = sent[each.trace]
        (server,) = [span for span in spans if span.kind == "SERVER"]
        assert server.parent == each.span
        attempts = [span for span in spans if span.name == "ServiceCatalog/ProvisionProduct"]
        assert {span.parent for span in attempts} == {server.id}
        resent = sorted(span.attributes.get("http.request.resend_count", 0) for span in attempts)
        assert resent == list(range(len(attempts)))
        total += len(attempts)
    assert total == len(world.upstream.requests)


def test_the_process_says_who_it_is(world: World) -> None:
    world.upstream.behave(ANSWER)
    world.received.spans_of(world.caller.call(world.channel, provision()).trace, 3)
    resources = [
        {each["key"]: each["value"].get("stringValue") for each in spans["resource"]["attributes"]}
        for batch in world.received.batches()
        for spans in batch.get("resourceSpans", ())
    ]
    # The caller reports there too.
    (said, *others) = [each for each in resources if each["service.name"] == "servicecatalog-grpc"]
    assert said["deployment.environment.name"] == "test"
    assert said["service.version"] == version("servicecatalog-grpc")
    assert said["service.instance.id"]
    assert all(each == said for each in others)
