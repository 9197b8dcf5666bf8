"""What traces and metrics say of calls in an AWS role."""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from otlp import Collector, Span, collector, wait_for
from prometheus_client.parser import text_string_to_metric_families
from role_world import World, clockwork, role, serving
from servicecatalog_grpc.sandbox import Sandbox

RED, PLAIN = "spiffe://example.org/red/orders", "spiffe://example.org/plain/orders"
ROLE = "servicecatalog.aws.role"


class Seen(NamedTuple):
    """Callers that call, and what the collector gets to see of it."""

    world: World
    received: Collector

    def spans(self, name: str) -> list[Span]:
        return [span for span in self.received.spans() if span.name == name]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    directory = tmp_path_factory.mktemp("roles")
    with ExitStack() as stack:
        received = stack.enter_context(collector(tmp_path_factory.mktemp("collector")))
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRICS_EXPORTER": "none",
            "PYTHONPATH": clockwork(directory, _RENEWAL=(0.0005, 0.0005)),
        }
        sandbox = stack.enter_context(Sandbox(port=0))
        world = stack.enter_context(serving(sandbox.url, directory, "--metrics-listen", "127.0.0.1:0", **variables))
        world.search(RED)
        world.search(PLAIN)
        yield Seen(world, received)


def test_a_trace_tells_the_role_and_how_long_it_took_to_take_it(seen: Seen) -> None:
    wait_for(lambda: len(seen.spans("ServiceCatalog/SearchProducts")) == 2)
    red, plain = seen.spans("ServiceCatalog/SearchProducts")
    assert red.attributes[ROLE] == role("red")
    assert ROLE not in plain.attributes
    begun, *_ = seen.spans("STS/AssumeRole")
    assert (begun.trace, begun.parent) == (red.trace, red.parent)
    assert begun.kind == "CLIENT"
    assert begun.attributes["http.response.status_code"] == 200


def test_a_renewal_is_no_part_of_the_call_that_the_session_began_with(seen: Seen) -> None:
    wait_for(lambda: len(seen.spans("STS/AssumeRole")) >= 2)
    begun, renewed, *_ = seen.spans("STS/AssumeRole")
    assert renewed.trace != begun.trace
    assert renewed.parent == ""


def test_the_metrics_tell_how_long_the_sessions_of_each_role_are_good_for(seen: Seen) -> None:
    samples = [
        sample
        for family in text_string_to_metric_families(_scrape(seen.world))
        for sample in family.samples
        if sample.name in ("servicecatalog_grpc_credentials_expiry_seconds", "rpc_client_call_duration_seconds_count")
    ]
    (expiry,) = (sample for sample in samples if "expiry" in sample.name)
    assert expiry.labels["servicecatalog_aws_role"] == role("red")
    assert 3000 < expiry.value <= 3600
    assert any(sample.labels.get("rpc_method") == "STS/AssumeRole" for sample in samples)


def _scrape(world: World) -> str:
    (url,) = (match[1] for line in world.facade.log if (match := re.search(r"metrics on (http://[^\s\"]+)", line)))
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
    return text
