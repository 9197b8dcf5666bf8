"""Requests that AWS would take, and calls that are expected to be forwarded or refused."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from status import Details
from upstream import Request, Upstream, reply

Metadata = Sequence[tuple[str, str]]

# An answer that is good for all of the operations: the record is where each of them looks for it.
ANSWER = reply(body={"RecordDetail": {"RecordId": "rec-1"}, "RecordId": "rec-1"})

OWNER = "arn:aws:iam::123456789012:user/ann"


def provision(**fields: Any) -> pb.ProvisionProductRequest:
    """Return a request with the required fields and these; None leaves a field out."""
    required = {
        "product_id": "prod-1",
        "provisioning_artifact_id": "pa-1",
        "provisioned_product_name": "mine",
    }
    return pb.ProvisionProductRequest(**{**required, **fields})


def update(**fields: Any) -> pb.UpdateProvisionedProductRequest:
    """Return a request with the required fields and these; None leaves a field out."""
    return pb.UpdateProvisionedProductRequest(**{"provisioned_product_id": "pp-1", **fields})


def properties(**fields: Any) -> pb.UpdateProvisionedProductPropertiesRequest:
    """Return a request with the required fields and these; None leaves a field out."""
    required = {"provisioned_product_id": "pp-1", "provisioned_product_properties": {"OWNER": OWNER}}
    return pb.UpdateProvisionedProductPropertiesRequest(**{**required, **fields})


class Forwarded(NamedTuple):
    """What AWS got, and the token that the caller got."""

    http: Request
    token: str

    @property
    def body(self) -> Any:
        return self.http.json


def operation_of(request: Message) -> str:
    """Return the name of the RPC, and of AWS's operation, that takes the request."""
    return request.DESCRIPTOR.name.removesuffix("Request")


def forwarded(
    stub: ProvisioningServiceStub, upstream: Upstream, request: Message, metadata: Metadata = ()
) -> Forwarded:
    """Make the call and return the one request that AWS got from it."""
    upstream.behave(ANSWER)
    _, call = getattr(stub, operation_of(request)).with_call(request, metadata=tuple(metadata))
    (http,) = upstream.requests
    return Forwarded(http, dict(call.initial_metadata())["idempotency-token"])


class Refusal(NamedTuple):
    """What the caller of a refused call gets: all violations in their order, and the rest of the status."""

    violations: list[tuple[str, str]]
    details: Details

    @property
    def fields(self) -> set[str]:
        return {field for field, _ in self.violations}

    def descriptions(self, field: str) -> list[str]:
        return [description for each, description in self.violations if each == field]


def refused(stub: ProvisioningServiceStub, upstream: Upstream, request: Message, metadata: Metadata = ()) -> Refusal:
    """Make the call, see it refused before AWS hears of it, and return what the caller gets."""
    upstream.behave(ANSWER)
    with pytest.raises(grpc.RpcError) as raised:
        getattr(stub, operation_of(request))(request, metadata=tuple(metadata))
    refusal = refusal_of(raised.value)
    assert refusal.details.info.metadata == {"aws_operation": operation_of(request)}
    assert upstream.requests == []
    return refusal


def refusal_of(error: Any) -> Refusal:
    """Read the status of a call that was refused for its request, before anything was sent on."""
    details = Details(error)
    assert details.code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.info.reason == "INVALID_REQUEST"
    assert "idempotency-token" not in details.initial
    status = rpc_status.from_call(error)
    bad_request = error_details_pb2.BadRequest()
    assert [detail.Unpack(bad_request) for detail in status.details].count(True) == 1
    assert bad_request.field_violations
    return Refusal([(each.field, each.description) for each in bad_request.field_violations], details)
