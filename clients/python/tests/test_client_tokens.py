"""The token of a write: once for each call of the application, and never where the caller has said something."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from both_clients import BOTH, AnyClient, Threads
from servicecatalog.v1 import provisioned_product_service_pb2 as products_pb
from servicecatalog.v1 import provisioning_service_pb2 as provisioning_pb
from servicecatalog.v1 import record_service_pb2 as records_pb
from stand_in import StandIn, give

WRITES = [
    (
        "ProvisioningService/ProvisionProduct",
        provisioning_pb.ProvisionProductRequest(product_name="p"),
        "provision_token",
    ),
    (
        "ProvisioningService/UpdateProvisionedProduct",
        provisioning_pb.UpdateProvisionedProductRequest(product_name="p"),
        "update_token",
    ),
    (
        "ProvisioningService/UpdateProvisionedProductProperties",
        provisioning_pb.UpdateProvisionedProductPropertiesRequest(provisioned_product_id="p"),
        "idempotency_token",
    ),
    (
        "ProvisionedProductService/TerminateProvisionedProduct",
        products_pb.TerminateProvisionedProductRequest(provisioned_product_id="p"),
        "terminate_token",
    ),
]


@pytest.fixture
def facade() -> Iterator[StandIn]:
    with StandIn() as running:
        running.answer(give(provisioning_pb.ProvisionProductResponse()))
        yield running


@pytest.fixture(params=BOTH)
def client(request: pytest.FixtureRequest, facade: StandIn) -> Iterator[AnyClient]:
    with BOTH[request.param](facade.address, plaintext=True) as client:
        yield client


@pytest.mark.parametrize(("method", "request_", "field"), WRITES)
def test_a_write_without_a_token_gets_one_and_stays_as_it_is(
    client: AnyClient, facade: StandIn, method: str, request_: Any, field: str
) -> None:
    before = request_.SerializeToString()
    client.call(method, request_)
    client.call(method, request_)
    assert request_.SerializeToString() == before
    first, second = (getattr(each.request, field) for each in facade.received)
    assert str(uuid.UUID(first)) == first
    assert first != second
    for each in facade.received:
        each.request.ClearField(field)
        assert each.request == request_


@pytest.mark.parametrize(("method", "request_", "field"), WRITES)
def test_a_token_of_the_callers_stays(
    client: AnyClient, facade: StandIn, method: str, request_: Any, field: str
) -> None:
    own = type(request_)(**{field: "order-17"})
    client.call(method, own)
    assert facade.received[0].request == own


@pytest.mark.parametrize("key", ["idempotency-key", "x-request-id"])
@pytest.mark.parametrize(("method", "request_", "field"), WRITES)
def test_a_key_in_the_metadata_leaves_the_token_to_the_facade(
    client: AnyClient, facade: StandIn, method: str, request_: Any, field: str, key: str
) -> None:
    client.call(method, request_, metadata=(("team", "a"), (key, "order-17")))
    (received,) = facade.received
    assert received.request == request_
    assert received.metadata[key] == "order-17"


def test_other_metadata_does_not(client: AnyClient, facade: StandIn) -> None:
    client.call(WRITES[0][0], WRITES[0][1], metadata=(("team", "a"),))
    assert facade.received[0].request.provision_token


def test_reads_are_sent_as_they_are(client: AnyClient, facade: StandIn) -> None:
    facade.answer(give(records_pb.ListRecordHistoryResponse()))
    request = records_pb.ListRecordHistoryRequest(page_size=3)
    client.call("RecordService/ListRecordHistory", request)
    assert facade.received[0].request == request


def test_threads_share_a_client_and_no_token(facade: StandIn) -> None:
    method, request, field = WRITES[0]
    with Threads(facade.address, plaintext=True) as client, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: client.call(method, request), range(100)))
    assert len({getattr(each.request, field) for each in facade.received}) == 100
