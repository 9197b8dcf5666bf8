"""The recipes do what they say; tests/test_readme.py runs the example of a product's life."""

import asyncio
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import servicecatalog
from servicecatalog.v1.provisioning_service_pb2 import ProvisionProductRequest, ProvisionProductResponse
from servicecatalog.v1.record_pb2 import RecordDetail, RecordStatus
from servicecatalog.v1.record_service_pb2 import WatchRecordResponse
from stand_in import StandIn, bad_request, fail, give, info, states

RECIPES: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "examples/recipes.py"))


@pytest.fixture
def facade() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def client(facade: StandIn) -> Iterator[servicecatalog.Client]:
    with servicecatalog.connect(facade.address, plaintext=True) as client:
        yield client


def test_a_failure_is_explained(
    client: servicecatalog.Client, facade: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    facade.answer(
        fail(grpc.StatusCode.INVALID_ARGUMENT, info("INVALID_REQUEST"), bad_request([("product", "is required")]))
    )
    assert RECIPES["provision"](client, ProvisionProductRequest()) is None
    assert capsys.readouterr().out == "product: is required\n"


def test_an_intent_is_repeated_with_its_token(client: servicecatalog.Client, facade: StandIn) -> None:
    facade.answer(fail(grpc.StatusCode.UNKNOWN, info("OUTCOME_UNKNOWN")), give(ProvisionProductResponse()))
    RECIPES["provision_for_certain"](client, ProvisionProductRequest())
    first, second = facade.received
    assert first.request == second.request
    assert first.request.provision_token


def test_many_records_are_waited_for(facade: StandIn) -> None:
    ended = WatchRecordResponse(record_detail=RecordDetail(status=RecordStatus.RECORD_STATUS_SUCCEEDED))
    facade.answer(states(ended))
    assert asyncio.run(RECIPES["wait_for_all"](facade.address, ["rec-1", "rec-2"])) == [ended, ended]
