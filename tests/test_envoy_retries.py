"""What the sidecar repeats: reads whose answer is lost, and writes only where the façade has done nothing."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from breaking import CANCEL, INTERNAL_ERROR, REFUSED_STREAM, Breaking
from envoy import Config, Envoy, cluster, deployed, routes
from servicecatalog_grpc.app import SERVICES
from servicecatalog_grpc.failure import Failure, Reason
from waiting import wait_for

NO_RETRIES = (("grpc.enable_retries", 0),)

WRITE = "/servicecatalog.v1.ProvisioningService/ProvisionProduct"
TERMINATE = "/servicecatalog.v1.ProvisionedProductService/TerminateProvisionedProduct"
READ = "/servicecatalog.v1.RecordService/DescribeRecord"
WATCH = "/servicecatalog.v1.RecordService/WatchRecord"
NEW = "/servicecatalog.v1.NewService/DoSomething"

ONCE, THRICE = 1, 3

Metadata = tuple[tuple[str, str | bytes], ...]


def test_every_read_of_the_contract_is_a_read_to_the_sidecar_and_no_write_is() -> None:
    (read,) = [route for route in routes(deployed("sidecar")) if "safe_regex" in route["match"]]
    pattern = read["match"]["safe_regex"]["regex"]
    methods = [method for service in SERVICES for method in service.methods if not method.server_streaming]
    writes = [
        method
        for method in methods
        if any(field.name.endswith("_token") and field.name != "page_token" for field in method.input_type.fields)
    ]
    for method in methods:
        path = f"/{method.containing_service.full_name}/{method.name}"
        assert bool(re.fullmatch(pattern, path)) is (method not in writes), path
    assert 0 < len(writes) < len(methods)


class Refusing(grpc.GenericRpcHandler):
    """In the place of a façade: refuses every call in the way it is told to, and keeps the metadata that it got."""

    def __init__(self) -> None:
        self.refusal: tuple[grpc.StatusCode, Metadata] = (grpc.StatusCode.UNKNOWN, ())
        self.calls: list[dict[str, str | bytes]] = []
        # Whether the response begins before it is known how it ends, as a write of the façade begins when it goes to AWS.
        self.begins = False

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        self.calls.append(dict(handler_call_details.invocation_metadata))

        def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
            if self.begins:
                context.send_initial_metadata(())
            code, trailing = self.refusal
            context.set_trailing_metadata(trailing)
            context.abort(code, "no")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture(scope="module")
def _facade() -> Iterator[tuple[Refusing, str]]:
    facade = Refusing()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[facade])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield facade, f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture(scope="module")
def envoy(_facade: tuple[Refusing, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """The sidecar in front of what refuses."""
    with Envoy(retrying(_facade[1]), tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.fixture
def facade(_facade: tuple[Refusing, str]) -> Refusing:
    """What is in the place of the façade; the test says how it refuses."""
    facade, _ = _facade
    facade.calls.clear()
    facade.begins = False
    return facade


def retrying(address: str) -> Config:
    """Return the sidecar's configuration without what looks after the health of a façade."""
    config = deployed("sidecar", address)
    del cluster(config)["health_checks"], cluster(config)["outlier_detection"]
    return config


def call(address: str, path: str, metadata: Metadata = (), request: bytes = b"") -> grpc.StatusCode:
    """Make the call without any retries of its own, and return the code that it ends with."""
    with grpc.insecure_channel(address, NO_RETRIES) as channel:
        method: Any = channel.unary_unary(path)
        with pytest.raises(grpc.RpcError) as raised:
            method(request, timeout=20, metadata=metadata)
    return raised.value.code()


def of_facade(reason: Reason) -> tuple[grpc.StatusCode, Metadata]:
    """Return how the façade refuses for this reason."""
    status = Failure(reason, "no").to_status()
    return reason.code, (("grpc-status-details-bin", status.SerializeToString()),)


STOPPING = of_facade(Reason.SHUTTING_DOWN)
SAID_BY_A_PROXY = (grpc.StatusCode.UNAVAILABLE, ())

REFUSALS = {
    "write-that-the-facade-has-not-done": (WRITE, STOPPING, THRICE),
    "write-that-a-proxy-has-lost": (WRITE, SAID_BY_A_PROXY, ONCE),
    "write-whose-outcome-is-unknown": (WRITE, of_facade(Reason.OUTCOME_UNKNOWN), ONCE),
    "write-beyond-its-deadline": (WRITE, of_facade(Reason.DEADLINE_EXCEEDED), ONCE),
    "write-that-aws-throttles": (WRITE, of_facade(Reason.THROTTLED), ONCE),
    "write-that-is-cancelled": (WRITE, (grpc.StatusCode.CANCELLED, ()), ONCE),
    "write-with-a-fault": (WRITE, of_facade(Reason.INTERNAL), ONCE),
    "termination-that-the-facade-has-not-done": (TERMINATE, STOPPING, THRICE),
    "termination-that-a-proxy-has-lost": (TERMINATE, SAID_BY_A_PROXY, ONCE),
    "something-new-that-a-proxy-has-lost": (NEW, SAID_BY_A_PROXY, ONCE),
    "read-that-the-facade-has-not-done": (READ, STOPPING, THRICE),
    "read-that-a-proxy-has-lost": (READ, SAID_BY_A_PROXY, THRICE),
    "read-that-aws-throttles": (READ, of_facade(Reason.THROTTLED), ONCE),
    "read-that-is-refused": (READ, of_facade(Reason.RESOURCE_NOT_FOUND), ONCE),
    "watch-of-a-facade-that-stops": (WATCH, STOPPING, ONCE),
}


@pytest.mark.parametrize(("path", "refusal", "attempts"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_taken_for_what_it_says(
    facade: Refusing, envoy: Envoy, path: str, refusal: tuple[grpc.StatusCode, Metadata], attempts: int
) -> None:
    facade.refusal = refusal
    assert call(envoy.address, path) == refusal[0]
    assert len(facade.calls) == attempts


@pytest.mark.parametrize("path", [WRITE, READ])
def test_nothing_is_repeated_once_its_response_has_begun(facade: Refusing, envoy: Envoy, path: str) -> None:
    facade.refusal, facade.begins = STOPPING, True
    assert call(envoy.address, path) == grpc.StatusCode.UNAVAILABLE
    assert len(facade.calls) == ONCE


def test_a_request_as_large_as_the_facade_takes_is_repeated_like_any_other(facade: Refusing, envoy: Envoy) -> None:
    facade.refusal = STOPPING
    assert call(envoy.address, WRITE, request=bytes(1024 * 1024)) == grpc.StatusCode.UNAVAILABLE
    assert len(facade.calls) == THRICE


BREAKS = {
    "hangs-up": ("hang up", ONCE, THRICE),
    "resets-the-call": (INTERNAL_ERROR, ONCE, THRICE),
    "cancels-the-call": (CANCEL, ONCE, THRICE),
    "refuses-the-stream": (REFUSED_STREAM, THRICE, THRICE),
    "goes-away-before-it": ("go away", THRICE, THRICE),
}


@pytest.mark.parametrize(("how", "write", "read"), BREAKS.values(), ids=BREAKS)
def test_a_write_that_breaks_is_repeated_only_if_http2_rules_out_that_it_was_looked_at(
    tmp_path: Path, how: str | int, write: int, read: int
) -> None:
    with closing(Breaking(how)) as breaking, Envoy(retrying(breaking.address), tmp_path) as envoy:
        for path, attempts in ((WRITE, write), (READ, read)):
            breaking.calls = 0
            assert call(envoy.address, path) == grpc.StatusCode.UNAVAILABLE
            assert breaking.calls == attempts


def test_a_facade_that_is_not_there_is_asked_again(tmp_path: Path) -> None:
    with Envoy(retrying(f"unix:{tmp_path / 'nobody'}"), tmp_path) as envoy:
        for path in (WRITE, READ):
            assert call(envoy.address, path) == grpc.StatusCode.UNAVAILABLE
        assert call(envoy.address, WATCH) == grpc.StatusCode.UNAVAILABLE
        wait_for(lambda: len(envoy.access) == 3)
        assert [line["attempts"] for line in envoy.access] == [THRICE, THRICE, ONCE]


def test_all_attempts_have_one_request_id(facade: Refusing, envoy: Envoy) -> None:
    facade.refusal = STOPPING
    call(envoy.address, WRITE)
    call(envoy.address, WRITE)
    first, second = ({str(each["x-request-id"]) for each in facade.calls[at : at + THRICE]} for at in (0, THRICE))
    assert len(first) == len(second) == 1
    assert first != second


def test_the_request_id_of_a_proxy_before_is_kept(facade: Refusing, envoy: Envoy) -> None:
    facade.refusal = STOPPING
    call(envoy.address, WRITE, (("x-request-id", "of a proxy before"),))
    assert {each["x-request-id"] for each in facade.calls} == {"of a proxy before"}


@pytest.mark.parametrize("path", [WRITE, READ, WATCH])
def test_no_caller_chooses_by_metadata_what_is_repeated_and_how_often(
    facade: Refusing, envoy: Envoy, path: str
) -> None:
    facade.refusal = of_facade(Reason.THROTTLED)
    wishes = (
        ("x-envoy-retry-on", "5xx,reset,retriable-status-codes"),
        ("x-envoy-retry-grpc-on", "resource-exhausted"),
        ("x-envoy-retriable-status-codes", "200"),
        ("x-envoy-max-retries", "9"),
    )
    assert call(envoy.address, path, wishes) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(facade.calls) == ONCE
    assert facade.calls[0].keys().isdisjoint(dict(wishes))


def test_what_a_caller_says_of_a_certificate_goes_no_further(facade: Refusing, envoy: Envoy) -> None:
    facade.refusal = of_facade(Reason.THROTTLED)
    call(envoy.address, WRITE, (("x-forwarded-client-cert", "URI=spiffe://example.org/x"),))
    assert "x-forwarded-client-cert" not in facade.calls[0]
