"""A collector that is away, hangs or refuses costs nothing but the telemetry: no call, no flood, no hanging stop."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import ANSWER, provision
from facade import Facade, environment
from grpc import StatusCode
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream

CALLS = 300
QUEUE = 128
# Far less than what the spans and log records of so many calls would take if they were kept.
REFUSED_CALLS = 3000
MAX_GROWTH_KIBIBYTES = 8 * 1024


@contextmanager
def down() -> Iterator[str]:
    """Give an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def slow() -> Iterator[str]:
    """Give an address where somebody accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def refusing() -> Iterator[str]:
    """Give the address of a gRPC server without any service."""
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(0).wait()


OUTAGES = {"down": down, "slow": slow, "refusing": refusing}


def serve(upstream: Upstream, **variables: str) -> Facade:
    return Facade("serve", "--listen", "127.0.0.1:0", env=environment(upstream.url, **variables))


def reporting_to(endpoint: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BSP_MAX_QUEUE_SIZE": str(QUEUE),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": str(QUEUE),
        "OTEL_BLRP_SCHEDULE_DELAY": "50",
        "OTEL_BLRP_MAX_QUEUE_SIZE": str(QUEUE),
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": str(QUEUE),
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }


def memory(facade: Facade) -> int:
    """Return the kibibytes that the process has."""
    (line,) = (line for line in Path(f"/proc/{facade.process.pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1])


def load(facade: Facade, calls: int, request: Any, expected: StatusCode) -> float:
    """Make the calls, eight at a time, see how all of them end, and return the 99th percentile of their seconds."""
    with grpc.insecure_channel(facade.address) as channel, ThreadPoolExecutor(8) as callers:
        stub = ProvisioningServiceStub(channel)

        def call(_: int) -> float:
            began = time.monotonic()
            assert stub.ProvisionProduct.future(request, timeout=20).code() == expected
            return time.monotonic() - began

        durations = sorted(callers.map(call, range(calls)))
    return durations[int(len(durations) * 0.99)]


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_calls_do_not_notice(outage: Callable[[], AbstractContextManager[str]]) -> None:
    with closing(Upstream()) as upstream, outage() as endpoint:
        upstream.behave(ANSWER)
        with serve(upstream) as without, serve(upstream, **reporting_to(endpoint)) as facade:
            usual = load(without, CALLS, provision(), StatusCode.OK)
            load(facade, CALLS, provision(), StatusCode.OK)  # more than the queues take
            # The best of three: what else the machine does in one of them says nothing of the outage.
            assert min(load(facade, CALLS, provision(), StatusCode.OK) for _ in range(3)) < 2 * usual + 0.05
            # The first of them fill the queues and the heap; bounded means that as many again take no more.
            load(facade, REFUSED_CALLS, provision(product_id=None), StatusCode.INVALID_ARGUMENT)
            before = memory(facade)
            load(facade, REFUSED_CALLS, provision(product_id=None), StatusCode.INVALID_ARGUMENT)
            assert memory(facade) - before < MAX_GROWTH_KIBIBYTES
            time.sleep(1.5)  # longer than an export may take
            facade.process.terminate()
            began = time.monotonic()
            assert facade.process.wait(20) == 0
            assert time.monotonic() - began < 3
    warnings = [line for line in facade.log if '"opentelemetry' in line]
    assert len(warnings) == 1


def test_a_call_in_flight_ends_before_telemetry_does() -> None:
    with closing(Upstream()) as upstream, down() as endpoint:
        release = threading.Event()
        upstream.behave(lambda connection, request: (release.wait(20), ANSWER(connection, request))[1])
        with (
            serve(upstream, **reporting_to(endpoint)) as facade,
            grpc.insecure_channel(facade.address) as channel,
        ):
            call = ProvisioningServiceStub(channel).ProvisionProduct.future(provision(), timeout=20)
            while not upstream.requests:
                time.sleep(0.01)
            facade.process.terminate()
            time.sleep(0.5)
            assert facade.process.poll() is None
            release.set()
            assert call.result(timeout=10).record_detail.record_id == "rec-1"
            began = time.monotonic()
            assert facade.process.wait(20) == 0
            assert time.monotonic() - began < 3
