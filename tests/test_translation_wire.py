"""The wire is what boto3 would send: the façade's HTTP request beside the one of a plain boto3 client."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore import xform_name
from calls import ANSWER, forwarded, operation_of
from facade import environment
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Request, Upstream
from wire_corpus import ROWS, Row


@pytest.fixture(scope="module")
def plain_boto3(_upstream: Upstream) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(_upstream.url).items():
            patch.setenv(name, value)
        client = boto3.Session(
            aws_access_key_id="dummy", aws_secret_access_key="dummy", region_name="us-east-1"
        ).client("servicecatalog", endpoint_url=_upstream.url)
        with closing(client):
            yield client


def _sent_by_boto3(client: Any, upstream: Upstream, operation: str, kwargs: dict[str, Any]) -> Request:
    upstream.behave(ANSWER)
    getattr(client, xform_name(operation))(**kwargs)
    (request,) = upstream.requests
    return request


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_the_wire_is_what_boto3_would_send(
    row: Row, stub: ProvisioningServiceStub, upstream: Upstream, plain_boto3: Any
) -> None:
    ours = forwarded(stub, upstream, row.request)
    theirs = _sent_by_boto3(plain_boto3, upstream, operation_of(row.request), row.kwargs)

    assert ours.http.target == theirs.target
    assert ours.http.headers["content-type"] == theirs.headers["content-type"]
    our_body, their_body = ours.body, theirs.json
    assert ours.token == our_body[row.token_member]
    if row.token_member not in row.kwargs:
        # Each side makes up its own.
        assert our_body.pop(row.token_member) != their_body.pop(row.token_member)
    assert our_body == their_body


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 100
