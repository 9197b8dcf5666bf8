"""One call of each operation, both ways."""

from datetime import UTC, datetime

import grpc
import pytest
from facade import Facade, logged
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_pb2 import RecordStatus
from status import Details
from upstream import REQUEST_ID, Upstream, reply
from waiting import wait_for

RECORD = {
    "RecordId": "rec-1",
    "ProvisionedProductName": "mine",
    "Status": "IN_PROGRESS_IN_ERROR",
    "CreatedTime": 1700000000.123456,
    "UpdatedTime": 1700000001.000001,
    "ProvisionedProductType": "CONTROL_TOWER_ACCOUNT",
    "RecordType": "PROVISION_PRODUCT",
    "ProvisionedProductId": "pp-1",
    "ProductId": "prod-1",
    "ProvisioningArtifactId": "pa-1",
    "PathId": "lpv2-1",
    "RecordErrors": [{"Code": "InternalFailure", "Description": "Größe ≠ 0"}],
    "RecordTags": [{"Key": "team", "Value": "blau"}],
    "LaunchRoleArn": "arn:aws:iam::123456789012:role/launch",
}
MINIMAL = pb.ProvisionProductRequest(
    product_id="prod-1", provisioning_artifact_id="pa-1", provisioned_product_name="mine"
)


def test_every_field_of_a_record_comes_back(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(reply(body={"RecordDetail": RECORD}))
    response, call = stub.ProvisionProduct.with_call(MINIMAL)
    record = response.record_detail
    assert {field.name for field, _ in record.ListFields()} == set(record.DESCRIPTOR.fields_by_name)
    assert record.record_id == "rec-1"
    assert record.provisioned_product_name == "mine"
    assert record.status == RecordStatus.RECORD_STATUS_IN_PROGRESS_IN_ERROR
    assert record.created_time.ToDatetime(tzinfo=UTC) == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert record.updated_time.ToDatetime(tzinfo=UTC) == datetime(2023, 11, 14, 22, 13, 21, 1, tzinfo=UTC)
    assert record.provisioned_product_type == "CONTROL_TOWER_ACCOUNT"
    assert record.record_type == "PROVISION_PRODUCT"
    assert record.provisioned_product_id == "pp-1"
    assert record.product_id == "prod-1"
    assert record.provisioning_artifact_id == "pa-1"
    assert record.path_id == "lpv2-1"
    assert [(error.code, error.description) for error in record.record_errors] == [("InternalFailure", "Größe ≠ 0")]
    assert [(tag.key, tag.value) for tag in record.record_tags] == [("team", "blau")]
    assert record.launch_role_arn == "arn:aws:iam::123456789012:role/launch"
    assert dict(call.trailing_metadata())["x-amzn-requestid"] == REQUEST_ID


def test_properties_come_back_flat(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    owner = {"OWNER": "arn:aws:iam::123456789012:user/ann"}
    upstream.behave(
        reply(
            body={
                "ProvisionedProductId": "pp-1",
                "ProvisionedProductProperties": owner,
                "RecordId": "rec-1",
                "Status": "SUCCEEDED",
            }
        )
    )
    request = pb.UpdateProvisionedProductPropertiesRequest(
        provisioned_product_id="pp-1", provisioned_product_properties=owner
    )
    assert stub.UpdateProvisionedProductProperties(request) == pb.UpdateProvisionedProductPropertiesResponse(
        provisioned_product_id="pp-1",
        provisioned_product_properties=owner,
        record_id="rec-1",
        status=RecordStatus.RECORD_STATUS_SUCCEEDED,
    )


def test_a_status_that_aws_added_is_unspecified_and_logged(
    stub: ProvisioningServiceStub, upstream: Upstream, facade: Facade
) -> None:
    upstream.behave(reply(body={"RecordDetail": {**RECORD, "Status": "PAUSED"}, "News": {"of": ["AWS"]}}))
    response = stub.ProvisionProduct(MINIMAL)
    assert response.record_detail.status == RecordStatus.RECORD_STATUS_UNSPECIFIED
    wait_for(lambda: logged(facade, "'PAUSED'"))


def test_all_violations_are_named_at_once(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    request = pb.ProvisionProductRequest(product_id="", accept_language="fr", provisioned_product_name="bad name")
    request.tags.add(key="a")
    request.provisioning_preferences.stack_set_accounts[:] = ["123456789012", "12345678901", "1" * 13]
    with pytest.raises(grpc.RpcError) as raised:
        stub.ProvisionProduct(request)
    details = Details(raised.value)
    assert details.code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.info.reason == "INVALID_REQUEST"
    assert set(details.violations) == {
        "product_id",
        "provisioning_artifact",
        "accept_language",
        "provisioned_product_name",
        "tags[0].value",
        "provisioning_preferences.stack_set_accounts[1]",
        "provisioning_preferences.stack_set_accounts[2]",
    }
    assert upstream.requests == []
    assert "idempotency-token" not in details.initial
