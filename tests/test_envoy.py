"""The façade behind Envoy with the configuration of deploy/envoy/sidecar.yaml: everything that works without it does."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import ANSWER, provision
from envoy import ROOT, Envoy, deployed, routes
from facade import Facade, environment, serve
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog.v1.record_service_pb2 import DescribeRecordRequest, WatchRecordRequest
from servicecatalog_grpc.app import SERVICES
from servicecatalog_grpc.telemetry.call import token_digest
from status import Details
from stubs import Stubs
from tools import need
from upstream import Upstream, after, error, reply, silence
from waiting import wait_for

NO_RETRIES = (("grpc.enable_retries", 0),)
MAX_REQUEST_BYTES = 1024 * 1024

Statuses = health_pb2.HealthCheckResponse


def record(status: str) -> Any:
    return reply(body={"RecordDetail": {"RecordId": "rec-1", "Status": status}})


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, for this module alone."""
    with closing(Upstream()) as server:
        server.behave(ANSWER)
        yield server


@pytest.fixture(scope="module")
def facade(upstream: Upstream) -> Iterator[Facade]:
    with serve(upstream.url, "--poll-first", "0.1", "--poll-longest", "0.1", "--poll-rate", "100") as running:
        yield running


@pytest.fixture(scope="module")
def envoy(facade: Facade, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """The sidecar as it is, in front of the façade over TCP."""
    with Envoy(deployed("sidecar", facade.address), tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.fixture(scope="module")
def channel(envoy: Envoy) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(envoy.address, NO_RETRIES) as channel:
        yield channel


@pytest.fixture(scope="module")
def stubs(channel: grpc.Channel) -> Stubs:
    return Stubs(channel)


def grpcurl(*arguments: str) -> str:
    done = subprocess.run(
        [need("grpcurl"), "-plaintext", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_envoy_takes_the_configuration_as_it_is() -> None:
    path = ROOT / "deploy" / "envoy" / "sidecar.yaml"
    command = [need("envoy"), "--mode", "validate", "-l", "warning", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def test_grpcurl_learns_the_services_by_reflection_and_calls_them(envoy: Envoy, upstream: Upstream) -> None:
    upstream.behave(ANSWER)
    listed = grpcurl(envoy.address, "list").split()
    assert {service.full_name for service in SERVICES} < set(listed)
    assert "ProvisionProductRequest" in grpcurl(envoy.address, "describe", "servicecatalog.v1.ProvisioningService")
    request = json.dumps(
        {"product_id": "prod-1", "provisioning_artifact_id": "pa-1", "provisioned_product_name": "mine"}
    )
    method = "servicecatalog.v1.ProvisioningService/ProvisionProduct"
    assert json.loads(grpcurl("-d", request, envoy.address, method))["recordDetail"]["recordId"] == "rec-1"


def test_health_is_that_of_the_facade(channel: grpc.Channel) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
    for service in ("", *(each.full_name for each in SERVICES)):
        assert check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == Statuses.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_facade_at_a_unix_socket_is_served_too(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave(ANSWER)
    address = f"unix:{tmp_path / 'grpc.sock'}"
    with (
        Facade("serve", "--listen", address, env=environment(upstream.url)),
        # As it lies there, the configuration has an address of either kind; nobody is at the other one.
        Envoy(deployed("sidecar", "127.0.0.1:1", address), tmp_path) as envoy,
        grpc.insecure_channel(envoy.address, NO_RETRIES) as channel,
    ):
        for _ in range(20):
            assert Stubs(channel).ProvisionProduct(provision(), timeout=10).record_detail.record_id == "rec-1"
        assert envoy.stat("upstream_rq_retry") == 0


def test_where_no_facade_is_healthy_its_own_answer_says_why(upstream: Upstream, tmp_path: Path) -> None:
    unable = environment(upstream.url, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    with (
        Facade("serve", "--listen", "127.0.0.1:0", env=unable) as facade,
        Envoy(deployed("sidecar", facade.address), tmp_path) as envoy,
        grpc.insecure_channel(envoy.address, NO_RETRIES) as channel,
    ):
        assert envoy.stat("membership_healthy") == 0
        with pytest.raises(grpc.RpcError) as raised:
            Stubs(channel).ProvisionProduct(provision(), timeout=20)
        assert Details(raised.value).info.reason == "UPSTREAM_CREDENTIALS"


def test_the_log_of_the_sidecar_and_of_the_facade_tell_of_one_call(
    envoy: Envoy, facade: Facade, upstream: Upstream, stubs: Stubs
) -> None:
    upstream.behave(ANSWER)
    trace = "abcdef0123456789" * 2
    metadata = (
        ("traceparent", f"00-{trace}-00000000000000aa-01"),
        ("x-request-id", "mine"),
        ("x-forwarded-for", "192.0.2.1"),
    )
    _, call = stubs.ProvisionProduct.with_call(provision(), metadata=metadata, timeout=10)
    token = dict(call.initial_metadata())["idempotency-token"]

    def lines(log: list[Any]) -> list[dict[str, Any]]:
        found = (json.loads(line) if isinstance(line, str) else line for line in list(log))
        return [line for line in found if line.get("trace_id") == trace]

    wait_for(lambda: lines(envoy.access) and lines(facade.log))
    (outside,), (inside,) = lines(envoy.access), lines(facade.log)
    assert inside["token_digest"] == token_digest(token)
    assert inside["token_source"] == "request-id"
    assert outside["request_id"] == "mine"
    assert outside["method"] == f"/{inside['method']}"
    assert outside["status"] == inside["status"] == "OK"
    assert outside["attempts"] == 1
    assert outside["flags"] in {"-", None}
    assert outside["upstream"] == facade.address
    assert outside["peer"].startswith("127.0.0.1:")
    assert outside["user_agent"] == inside["user_agent"]


def test_a_call_without_a_trace_is_logged_without_one(envoy: Envoy, upstream: Upstream, stubs: Stubs) -> None:
    upstream.behave(error("ResourceNotFoundException", "no such record"))
    seen = len(envoy.access)
    with pytest.raises(grpc.RpcError):
        stubs.DescribeRecord(DescribeRecordRequest(id="rec-1"), timeout=10)
    wait_for(lambda: len(envoy.access) > seen)
    line = envoy.access[-1]
    assert line["trace_id"] is None
    assert line["status"] == "NOT_FOUND"
    assert re.fullmatch(r"[0-9a-f-]{36}", line["request_id"])


def test_the_details_of_a_failure_arrive_whole(upstream: Upstream, stubs: Stubs) -> None:
    upstream.behave(ANSWER)
    request = provision(product_id=None)
    for _ in range(100):
        request.tags.add(key="", value="x" * 300)
    with pytest.raises(grpc.RpcError) as raised:
        stubs.ProvisionProduct(request, timeout=10)
    details = Details(raised.value)
    assert details.info.reason == "INVALID_REQUEST"
    assert len(details.violations) > 10
    assert details.size > 3 * 1024


def test_a_request_of_almost_1_mib_passes_and_a_larger_one_is_the_facades_to_refuse(
    upstream: Upstream, stubs: Stubs
) -> None:
    upstream.behave(ANSWER)
    request = provision()
    while request.ByteSize() < MAX_REQUEST_BYTES - 5000:
        request.provisioning_parameters.add(key="k", value="x" * 4096)
    assert stubs.ProvisionProduct(request, timeout=20).record_detail.record_id == "rec-1"
    request.provisioning_parameters.add(key="k", value="x" * 5000)
    with pytest.raises(grpc.RpcError) as raised:
        stubs.ProvisionProduct(request, timeout=20)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(upstream.requests) == 1


def test_metadata_beyond_the_facades_limit_is_the_facades_to_refuse(upstream: Upstream, stubs: Stubs) -> None:
    upstream.behave(ANSWER)
    stubs.ProvisionProduct(provision(), metadata=(("x-large", "x" * 14 * 1024),), timeout=20)
    with pytest.raises(grpc.RpcError) as raised:
        stubs.ProvisionProduct(provision(), metadata=(("x-large", "x" * 40 * 1024),), timeout=20)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(upstream.requests) == 1


@pytest.fixture
def hasty(facade: Facade, tmp_path: Path) -> Iterator[Stubs]:
    """Stubs behind a sidecar that gives calls without a deadline a second."""
    config = deployed("sidecar", facade.address)
    for route in routes(config):
        if "max_stream_duration" in route["route"]:
            route["route"]["max_stream_duration"]["max_stream_duration"] = "1s"
    with Envoy(config, tmp_path) as envoy, grpc.insecure_channel(envoy.address, NO_RETRIES) as channel:
        yield Stubs(channel)


def test_a_call_without_a_deadline_gets_the_sidecars_and_the_facade_answers_before_it_is_cut(
    hasty: Stubs, upstream: Upstream
) -> None:
    upstream.behave(silence)
    with pytest.raises(grpc.RpcError) as raised:
        hasty.ProvisionProduct(provision(provision_token="mine"))
    details = Details(raised.value)
    assert details.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert details.info.metadata["idempotency_token"] == "mine"


def test_a_callers_own_deadline_may_be_longer_than_the_sidecars(hasty: Stubs, upstream: Upstream) -> None:
    upstream.behave(after(2, ANSWER))
    assert hasty.ProvisionProduct(provision(), timeout=20).record_detail.record_id == "rec-1"


def test_a_watch_outlives_what_bounds_other_calls(hasty: Stubs, upstream: Upstream) -> None:
    upstream.behave(record("IN_PROGRESS"))
    watch = hasty.WatchRecord(WatchRecordRequest(id="rec-1"))
    assert next(watch).record_detail.record_id == "rec-1"
    time.sleep(2)
    upstream.behave(record("SUCCEEDED"))
    assert len(list(watch)) == 1


def test_a_watcher_that_does_not_read_gets_the_last_state_and_holds_nobody_up(upstream: Upstream, stubs: Stubs) -> None:
    numbers = iter(range(10**9))

    def busy(connection: Any, request: Any) -> None:
        body = {"RecordDetail": {"RecordId": "rec-1", "Status": "IN_PROGRESS", "ProvisionedProductName": "x" * 128}}
        body["RecordDetail"]["UpdatedTime"] = next(numbers)  # type: ignore[assignment]
        reply(body=body)(connection, request)

    upstream.behave(busy)
    watch = stubs.WatchRecord(WatchRecordRequest(id="rec-1"), timeout=60)
    next(watch)
    ended = time.monotonic() + 2
    while time.monotonic() < ended:
        stubs.DescribeRecord(DescribeRecordRequest(id="rec-1"), timeout=10)
    upstream.behave(record("SUCCEEDED"))
    assert list(watch)[-1].record_detail.status == RecordStatus.RECORD_STATUS_SUCCEEDED


def test_a_caller_that_hangs_up_ends_its_watch_at_the_facade(facade: Facade, upstream: Upstream, envoy: Envoy) -> None:
    upstream.behave(record("IN_PROGRESS"))
    with grpc.insecure_channel(envoy.address, NO_RETRIES) as channel:
        watch = Stubs(channel).WatchRecord(WatchRecordRequest(id="rec-1"), timeout=60)
        next(watch)
        polls = len(upstream.requests)
        wait_for(lambda: len(upstream.requests) > polls + 2)
    wait_for(lambda: envoy.access and envoy.access[-1]["method"].endswith("WatchRecord"))
    wait_for(lambda: any("WatchRecord CANCELLED" in line for line in facade.log))
    time.sleep(0.3)
    polls = len(upstream.requests)
    time.sleep(0.5)
    assert len(upstream.requests) == polls
