"""What `connect` takes, and what every call gets by default."""

import datetime as dt
import ipaddress
import json
import math
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import grpc
import pytest
from both_clients import BOTH, SPIES, AnyClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from servicecatalog import Failure
from servicecatalog.v1.provisioning_service_pb2 import ProvisionProductRequest, ProvisionProductResponse
from servicecatalog.v1.record_service_pb2 import DescribeRecordRequest, DescribeRecordResponse, WatchRecordRequest
from stand_in import StandIn, fail, give, hold, info, states

PROVISION = "ProvisioningService/ProvisionProduct"
DESCRIBE = "RecordService/DescribeRecord"


@pytest.fixture(params=BOTH)
def client_class(request: pytest.FixtureRequest) -> type[AnyClient]:
    return BOTH[request.param]


@pytest.fixture
def facade() -> Iterator[StandIn]:
    with StandIn() as running:
        running.answer(give(DescribeRecordResponse()))
        yield running


def test_plaintext_excludes_credentials(client_class: type[AnyClient]) -> None:
    with pytest.raises(ValueError, match="plaintext"):
        client_class("127.0.0.1:1", plaintext=True, credentials=grpc.ssl_channel_credentials())


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_the_default_deadline_must_be_positive(client_class: type[AnyClient], seconds: float) -> None:
    with pytest.raises(ValueError, match="default_deadline"):
        client_class("127.0.0.1:1", plaintext=True, default_deadline=seconds)


def test_a_call_without_a_deadline_gets_the_default_one(client_class: type[AnyClient], facade: StandIn) -> None:
    with client_class(facade.address, plaintext=True) as client:
        client.call(DESCRIBE, DescribeRecordRequest())
        client.call(DESCRIBE, DescribeRecordRequest(), timeout=20)
    with client_class(facade.address, plaintext=True, default_deadline=7) as client:
        client.call(DESCRIBE, DescribeRecordRequest())
    assert [each.time_left for each in facade.received] == pytest.approx([30, 20, 7], abs=0.5)


def test_a_call_ends_at_its_default_deadline(client_class: type[AnyClient], facade: StandIn) -> None:
    facade.answer(hold(threading.Event()))
    with client_class(facade.address, plaintext=True, default_deadline=0.2) as client, pytest.raises(Failure) as raised:
        client.call(DESCRIBE, DescribeRecordRequest())
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_watch_gets_no_deadline(client_class: type[AnyClient], facade: StandIn) -> None:
    facade.answer(states())
    with client_class(facade.address, plaintext=True, default_deadline=0.2) as client:
        client.watch(WatchRecordRequest())
        client.watch(WatchRecordRequest(), timeout=5)
    without, given = (each.time_left for each in facade.received)
    assert without > 1e6
    assert given == pytest.approx(5, abs=0.5)


def test_unavailable_is_retried_with_the_same_token_and_nothing_else_is(
    client_class: type[AnyClient], facade: StandIn
) -> None:
    facade.answer(fail(grpc.StatusCode.UNAVAILABLE, info("UPSTREAM_UNREACHABLE")), give(ProvisionProductResponse()))
    with client_class(facade.address, plaintext=True) as client:
        client.call(PROVISION, ProvisionProductRequest())
        first, second = (each.request.provision_token for each in facade.received)
        assert first == second != ""
        for code in set(grpc.StatusCode) - {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}:
            facade.received.clear()
            facade.answer(fail(code))
            with pytest.raises(Failure):
                client.call(PROVISION, ProvisionProductRequest())
            assert len(facade.received) == 1


def test_a_service_config_of_the_callers_replaces_the_retry_policy(
    client_class: type[AnyClient], facade: StandIn
) -> None:
    facade.answer(fail(grpc.StatusCode.UNAVAILABLE), give(DescribeRecordResponse()))
    options = [("grpc.service_config", json.dumps({}))]
    with client_class(facade.address, plaintext=True, options=options) as client, pytest.raises(Failure):
        client.call(DESCRIBE, DescribeRecordRequest())


def test_the_retry_policy_is_the_contracts() -> None:
    copy = resources.files("servicecatalog") / "v1" / "servicecatalog_grpc_service_config.json"
    original = Path(__file__).parents[3] / "proto/servicecatalog/v1/servicecatalog_grpc_service_config.json"
    assert copy.read_bytes() == original.read_bytes()


def test_interceptors_see_each_call_once_with_its_token(client_class: type[AnyClient], facade: StandIn) -> None:
    facade.answer(fail(grpc.StatusCode.UNAVAILABLE), give(ProvisionProductResponse()))
    spy = SPIES[client_class]()
    with client_class(facade.address, plaintext=True, interceptors=[spy]) as client:
        client.call(PROVISION, ProvisionProductRequest())
    assert [each.provision_token for each in spy.requests] == [facade.received[0].request.provision_token]


def test_failures_keep_their_type_behind_interceptors(client_class: type[AnyClient], facade: StandIn) -> None:
    facade.answer(fail(grpc.StatusCode.NOT_FOUND, info("RESOURCE_NOT_FOUND")))
    spy = SPIES[client_class]()
    with (
        client_class(facade.address, plaintext=True, interceptors=[spy]) as client,
        pytest.raises(Failure, match=r"NOT_FOUND \(RESOURCE_NOT_FOUND\): no"),
    ):
        client.call(DESCRIBE, DescribeRecordRequest())


def test_a_unix_socket_is_an_address(client_class: type[AnyClient], tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/facade.sock"
    with StandIn(address) as facade, client_class(address, plaintext=True) as client:
        facade.answer(give(DescribeRecordResponse()))
        assert client.call(DESCRIBE, DescribeRecordRequest()) == DescribeRecordResponse()


def test_tls_is_the_default(client_class: type[AnyClient], facade: StandIn) -> None:
    with client_class(facade.address) as client, pytest.raises(Failure) as raised:
        client.call(DESCRIBE, DescribeRecordRequest(), timeout=0.5)
    assert raised.value.reason_name is None
    assert facade.received == []


def test_credentials_bring_a_private_ca(client_class: type[AnyClient]) -> None:
    key, certificate = _self_signed()
    with StandIn(credentials=grpc.ssl_server_credentials([(key, certificate)])) as facade:
        facade.answer(give(DescribeRecordResponse()))
        credentials = grpc.ssl_channel_credentials(certificate)
        with client_class(facade.address, credentials=credentials) as client:
            assert client.call(DESCRIBE, DescribeRecordRequest()) == DescribeRecordResponse()


def _self_signed() -> tuple[bytes, bytes]:
    """Return a key and a certificate of 127.0.0.1, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
