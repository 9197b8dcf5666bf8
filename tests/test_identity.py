"""Who calls, as the server knows it: by a certificate, by a proxy beside it, or not at all. Never by the caller's word."""

import json
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from callers import Mesh, callers_of, plain_channel, policed
from calls import ANSWER, provision
from facade import Facade, environment, logged, serve
from google.protobuf.message import Message
from servicecatalog.v1 import catalog_service_pb2 as catalog
from servicecatalog.v1 import record_service_pb2 as records
from status import Details
from stubs import Stubs
from upstream import Upstream
from waiting import wait_for

ORDERS = "spiffe://example.org/ns/shop/sa/orders"
BILLING = "spiffe://example.org/ns/shop/sa/billing"
XFCC = "x-forwarded-client-cert"
FORWARDED = f'By=spiffe://example.org/gateway;Hash=ab;Subject="CN=a,O=b";URI={ORDERS}'
IGNORED = f"{XFCC} from .* is ignored"

TRUST = "--forwarded-client-cert=trust"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, for this module alone."""
    with closing(Upstream()) as server:
        server.behave(ANSWER)
        yield server


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    return Mesh(tmp_path_factory.mktemp("mesh"))


@pytest.fixture(scope="module")
def mutual(upstream: Upstream, mesh: Mesh) -> Iterator[Facade]:
    """A façade that knows its callers by their certificates, and would believe a proxy."""
    with serve(upstream.url, *mesh.flags, TRUST) as facade:
        yield facade


@pytest.fixture(scope="module")
def trusting(upstream: Upstream) -> Iterator[Facade]:
    """A façade without TLS that believes the proxy beside it. It listens to everybody."""
    arguments = ("serve", "--listen", "0.0.0.0:0", "--max-attempts", "1", TRUST)
    with Facade(*arguments, env=environment(upstream.url)) as facade:
        yield facade


def seen(facade: Facade, channel: grpc.Channel, *headers: str) -> str:
    """Make a call with these headers and return as whom the façade has seen its caller."""
    before = len(callers_of(facade))
    Stubs(channel).SearchProducts(catalog.SearchProductsRequest(), metadata=[(XFCC, each) for each in headers])
    wait_for(lambda: len(callers_of(facade)) > before)
    return callers_of(facade)[-1]


def warnings(facade: Facade, pattern: str) -> list[str]:
    return [line for line in facade.log if re.search(pattern, line) and '"level":"WARNING"' in line]


def outside_address() -> str:
    """Return an address of this machine that is not loopback: what comes from it comes, as far as a server sees, from outside."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the address
        except OSError:
            pytest.skip("this machine has no network, and so no address that is not loopback")
        return str(probe.getsockname()[0])


# By a certificate

NAMES = {
    "spiffe-id": ([ORDERS], ORDERS),
    "spiffe-id-and-dns-names": (["a.example.org", ORDERS, "b.example.org"], ORDERS),
    "first-dns-name": (["a.example.org", "b.example.org"], "a.example.org"),
    "another-uri-and-a-dns-name": (["https://example.org/orders", "a.example.org"], "a.example.org"),
    "nothing": ([], "anonymous"),
    "address-alone": (["192.0.2.7"], "anonymous"),
    "another-uri-alone": (["https://example.org/orders"], "anonymous"),
}


@pytest.mark.parametrize(("names", "caller"), NAMES.values(), ids=NAMES)
def test_a_certificate_says_who_calls(names: list[str], caller: str, mutual: Facade, mesh: Mesh) -> None:
    with mesh.channel(mutual.address, *names) as channel:
        assert seen(mutual, channel) == caller


UNCLEAR = {
    "two-spiffe-ids": [ORDERS, BILLING],
    "spiffe-id-and-another-uri": [ORDERS, "https://example.org/orders"],
    "malformed-spiffe-id": ["spiffe://example.org/a/../b", "a.example.org"],
    "trust-domain": ["spiffe://example.org"],
    "wildcard": ["*.example.org"],
}


@pytest.mark.parametrize("names", UNCLEAR.values(), ids=UNCLEAR)
def test_a_certificate_that_is_not_clear_says_nothing_and_the_log_why(
    names: list[str], mutual: Facade, mesh: Mesh
) -> None:
    before = len(warnings(mutual, "stays anonymous"))
    with mesh.channel(mutual.address, *names) as channel:
        assert seen(mutual, channel) == "anonymous"
    assert len(warnings(mutual, "stays anonymous")) == before + 1


@pytest.mark.parametrize("names", [[BILLING], ["billing.example.org"], [], [BILLING, ORDERS]], ids=len)
def test_a_certificate_beats_the_header(names: list[str], mutual: Facade, mesh: Mesh) -> None:
    """On loopback and with trust in a proxy there: whoever has shown a certificate is nobody else."""
    before = len(warnings(mutual, IGNORED))
    with mesh.channel(mutual.address, *names) as channel:
        caller = seen(mutual, channel, FORWARDED)
    assert caller == (names[0] if len(names) == 1 else "anonymous")
    assert len(warnings(mutual, IGNORED)) == before + 1


# By a proxy beside the server


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.6"])
def test_the_proxy_on_loopback_is_believed(host: str, trusting: Facade) -> None:
    """Istio's sidecar connects from 127.0.0.6."""
    port = trusting.address.rpartition(":")[2]
    with plain_channel(f"{host}:{port}") as channel:
        assert seen(trusting, channel, FORWARDED) == ORDERS
        assert seen(trusting, channel) == "anonymous"
        assert seen(trusting, channel, f"URI={BILLING},{FORWARDED}") == ORDERS
        assert seen(trusting, channel, f"{FORWARDED},By=x;URI=;DNS=a.example.org;DNS=b") == "a.example.org"


def test_the_proxy_on_ipv6_loopback_is_believed(upstream: Upstream) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with (
        Facade("serve", "--listen", "[::1]:0", TRUST, env=environment(upstream.url)) as facade,
        plain_channel(facade.address) as channel,
    ):
        assert seen(facade, channel, FORWARDED) == ORDERS


@pytest.mark.parametrize(("flags", "caller"), [((TRUST,), ORDERS), ((), "anonymous")], ids=["trust", "ignore"])
def test_the_proxy_on_a_unix_socket_is_believed_where_that_is_wanted(
    flags: tuple[str, ...], caller: str, upstream: Upstream, tmp_path: Path
) -> None:
    listen = f"unix:{tmp_path}/socket"
    with (
        Facade("serve", "--listen", listen, *flags, env=environment(upstream.url)) as facade,
        plain_channel(listen) as channel,
    ):
        assert seen(facade, channel, FORWARDED) == caller
        assert len(warnings(facade, IGNORED)) == (caller == "anonymous")


def test_by_default_nobody_is_believed(upstream: Upstream) -> None:
    with serve(upstream.url) as facade, plain_channel(facade.address) as channel:
        assert seen(facade, channel, FORWARDED) == "anonymous"
        assert len(warnings(facade, IGNORED)) == 1
        assert not logged(facade, ORDERS)
        assert seen(facade, channel) == "anonymous"
        assert len(warnings(facade, IGNORED)) == 1


def test_a_header_from_outside_is_ignored_and_logged(trusting: Facade) -> None:
    port = trusting.address.rpartition(":")[2]
    address = outside_address()
    before = len(warnings(trusting, IGNORED))
    with plain_channel(f"{address}:{port}") as channel:
        assert seen(trusting, channel, FORWARDED) == "anonymous"
        assert seen(trusting, channel, f"URI={BILLING}", FORWARDED) == "anonymous"
    told = warnings(trusting, IGNORED)[before:]
    assert len(told) == 2
    assert all(address in line and "spiffe" not in line for line in told)


@pytest.mark.parametrize(
    "headers",
    [
        [FORWARDED, FORWARDED],
        [f"URI={BILLING}", FORWARDED],
        [f'{FORWARDED};Subject="open'],
        [f"URI={BILLING};URI={ORDERS}"],
        ["nonsense"],
        [""],
    ],
    ids=["twice", "two", "malformed", "two-spiffe-ids", "nonsense", "empty"],
)
def test_a_header_that_is_not_clear_names_nobody_and_is_logged_without_its_value(
    headers: list[str], trusting: Facade
) -> None:
    port = trusting.address.rpartition(":")[2]
    before = len(trusting.log)
    with plain_channel(f"127.0.0.1:{port}") as channel:
        assert seen(trusting, channel, *headers) == "anonymous"
    (warning,) = [line for line in trusting.log[before:] if '"level":"WARNING"' in line]
    assert "stays anonymous" in warning
    assert "spiffe" not in warning


@pytest.mark.parametrize(
    "header",
    ["x-forwarded-client-certs", "x-spiffe-id", "x-caller", "caller", "identity", "authorization", "forwarded"],
)
def test_no_other_header_names_anybody(header: str, trusting: Facade) -> None:
    port = trusting.address.rpartition(":")[2]
    before = len(callers_of(trusting))
    with plain_channel(f"127.0.0.1:{port}") as channel:
        Stubs(channel).SearchProducts(catalog.SearchProductsRequest(), metadata=[(header, FORWARDED)])
    wait_for(lambda: len(callers_of(trusting)) > before)
    assert callers_of(trusting)[before:] == ["anonymous"]


# What it is good for


def test_the_log_and_the_trace_say_who_calls_however_the_call_ends(
    upstream: Upstream, mesh: Mesh, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"callers: [{{identity: '{ORDERS}', grants: [{{methods: [SearchProducts]}}]}}]")
    variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}
    with policed(upstream, mesh, policy, **variables) as facade, mesh.channel(facade.address, ORDERS) as channel:
        stubs = Stubs(channel)
        stubs.SearchProducts(catalog.SearchProductsRequest())
        with pytest.raises(grpc.RpcError):
            stubs.ProvisionProduct(provision())
        garbled: Any = channel.unary_unary("/servicecatalog.v1.ProvisioningService/ProvisionProduct")
        with pytest.raises(grpc.RpcError):
            garbled(b"\xff")
        wait_for(lambda: len(callers_of(facade)) == 3)
        assert facade.stop() == 0
    assert callers_of(facade) == [ORDERS] * 3
    lines = [json.loads(line) for line in facade.log if '"servicecatalog_grpc.access"' in line]
    expected = [("OK", None), ("PERMISSION_DENIED", "CALLER_NOT_ALLOWED"), ("INVALID_ARGUMENT", "INVALID_REQUEST")]
    assert [(line["status"], line.get("reason")) for line in lines] == expected
    text = "".join(facade.output)
    assert text.count(f'"servicecatalog.caller": "{ORDERS}"') == 3
    assert text.count('"servicecatalog.error.reason": "CALLER_NOT_ALLOWED"') == 1


def test_a_denial_is_counted_as_a_refusal_also_where_aws_had_to_be_asked(
    upstream: Upstream, mesh: Mesh, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    grant = "{methods: [DescribeRecord], provisioned_product_names: [orders-*]}"
    policy.write_text(f"callers: [{{identity: '{ORDERS}', grants: [{grant}]}}]")
    variables = {"OTEL_METRICS_EXPORTER": "console", "OTEL_TRACES_EXPORTER": "none"}
    with policed(upstream, mesh, policy, **variables) as facade:
        with mesh.channel(facade.address, ORDERS) as channel:
            stubs = Stubs(channel)
            with pytest.raises(grpc.RpcError):
                stubs.SearchProducts(catalog.SearchProductsRequest())
            with pytest.raises(grpc.RpcError):
                stubs.DescribeRecord(records.DescribeRecordRequest(id="rec-1"))
        assert facade.stop() == 0
    exported: Any = [json.loads(each) for each in re.findall(r"(?s)^\{.*?^\}", "".join(facade.output), re.MULTILINE)]
    (refusals,) = [
        metric
        for resource in exported[-1]["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        if metric["name"] == "servicecatalog_grpc.refusals"
    ]
    counted = {
        (point["attributes"]["rpc.method"].rpartition("/")[2], point["attributes"]["servicecatalog.error.reason"])
        for point in refusals["data"]["data_points"]
    }
    assert counted == {("SearchProducts", "CALLER_NOT_ALLOWED"), ("DescribeRecord", "CALLER_NOT_ALLOWED")}


def test_one_key_of_two_callers_is_two_tokens(mutual: Facade, mesh: Mesh) -> None:
    key = secrets.token_hex()

    def token(name: str, *metadata: tuple[str, str], request: Message | None = None) -> Any:
        with mesh.channel(mutual.address, *filter(None, [name])) as channel:
            _, call = Stubs(channel).ProvisionProduct.with_call(request or provision(), metadata=metadata)
        return dict(call.initial_metadata())["idempotency-token"]

    for name in ("idempotency-key", "x-request-id"):
        tokens = [token(caller, (name, key)) for caller in (ORDERS, BILLING, "orders.example.org", "")]
        assert len(set(tokens)) == len(tokens)
        assert token(ORDERS, (name, key)) == tokens[0]
        # Nor does it help to say that one is another.
        assert token(BILLING, (name, key), (XFCC, FORWARDED)) == tokens[1]
    # A token of the request's own is the caller's business, and AWS's.
    assert token(ORDERS, request=provision(provision_token="t")) == "t"


def test_nobody_who_proves_nothing_has_what_is_granted_to_a_name(upstream: Upstream, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text('callers: [{identity: "*", grants: [{methods: ["*"]}]}]')
    with (
        serve(upstream.url, f"--policy={policy}", TRUST) as facade,
        plain_channel(facade.address) as channel,
    ):
        stubs = Stubs(channel)
        stubs.SearchProducts(catalog.SearchProductsRequest(), metadata=[(XFCC, FORWARDED)])
        with pytest.raises(grpc.RpcError) as raised:
            stubs.SearchProducts(catalog.SearchProductsRequest())
        assert Details(raised.value).info.metadata == {"caller": "anonymous"}


def test_a_name_that_is_anonymous_is_a_name(upstream: Upstream, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text('callers: [{identity: anonymous, grants: [{methods: ["*"]}]}]')
    with (
        serve(upstream.url, f"--policy={policy}", TRUST) as facade,
        plain_channel(facade.address) as channel,
    ):
        stubs = Stubs(channel)
        stubs.SearchProducts(catalog.SearchProductsRequest())
        with pytest.raises(grpc.RpcError) as raised:
            stubs.SearchProducts(catalog.SearchProductsRequest(), metadata=[(XFCC, "DNS=anonymous")])
        assert Details(raised.value).info.reason == "CALLER_NOT_ALLOWED"
