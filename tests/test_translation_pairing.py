"""The contract beside AWS's model: what stops the server, what is only drift, and that there is none today."""

import copy
from collections.abc import Callable
from typing import Any

import botocore.loaders
import botocore.session
import pytest
from botocore.model import ServiceModel
from calls import provision, update
from google.protobuf.message import Message
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.error_reason_pb2 import ErrorReason
from servicecatalog.v1.record_pb2 import RecordDetail, RecordError, RecordStatus
from servicecatalog_grpc.app import SERVICES
from servicecatalog_grpc.failure import Reason
from servicecatalog_grpc.translation.pairing import ContractError, Operation, pair_services

# AWS's model, as botocore loads it: `operations` and `shapes`, which a test may change.
Model = dict[str, Any]


@pytest.fixture
def model() -> Model:
    loaded: Model = botocore.loaders.Loader().load_service_model("servicecatalog", "service-2")
    return copy.deepcopy(loaded)


def _pair(model: Model) -> tuple[dict[str, Operation], list[str]]:
    return pair_services(SERVICES, ServiceModel(model, "servicecatalog"))


def _operation(operations: dict[str, Operation], request: type[Message]) -> Operation:
    return operations[request.DESCRIPTOR.full_name]


def test_the_contract_has_all_that_the_installed_boto3_has() -> None:
    operations, drift = pair_services(SERVICES, botocore.session.get_session().get_service_model("servicecatalog"))
    assert drift == [], f"AWS has grown: add {', '.join(drift)} to the contract"
    assert {operation.name for operation in operations.values()} == {
        "ProvisionProduct",
        "UpdateProvisionedProduct",
        "UpdateProvisionedProductProperties",
        "DescribeRecord",
        "ListRecordHistory",
        "SearchProducts",
        "DescribeProduct",
        "ListLaunchPaths",
        "DescribeProvisioningParameters",
        "DescribeProvisionedProduct",
        "SearchProvisionedProducts",
        "GetProvisionedProductOutputs",
        "TerminateProvisionedProduct",
    }


def test_each_write_knows_its_token(model: Model) -> None:
    operations, _ = _pair(model)
    tokens = {operation.name: operation.token.name for operation in operations.values() if operation.token}
    assert tokens == {
        "ProvisionProduct": "provision_token",
        "UpdateProvisionedProduct": "update_token",
        "UpdateProvisionedProductProperties": "idempotency_token",
        "TerminateProvisionedProduct": "terminate_token",
    }


@pytest.mark.parametrize(
    ("shape", "member", "field"),
    [
        ("ProvisionProductInput", "Tags", "ProvisionProductRequest.tags"),
        ("ProvisionProductInput", "PathName", "ProvisionProductRequest.path_name"),
        ("ProvisionProductInput", "ProvisionToken", "ProvisionProductRequest.provision_token"),
        ("UpdateProvisionedProductInput", "UpdateToken", "UpdateProvisionedProductRequest.update_token"),
        ("Tag", "Value", "Tag.value"),
        ("UpdateProvisioningParameter", "UsePreviousValue", "UpdateProvisioningParameter.use_previous_value"),
        ("ProvisioningPreferences", "StackSetRegions", "ProvisioningPreferences.stack_set_regions"),
        ("ProvisionProductOutput", "RecordDetail", "ProvisionProductResponse.record_detail"),
        ("RecordDetail", "LaunchRoleArn", "RecordDetail.launch_role_arn"),
        ("RecordError", "Code", "RecordError.code"),
        (
            "UpdateProvisionedProductPropertiesOutput",
            "RecordId",
            "UpdateProvisionedProductPropertiesResponse.record_id",
        ),
    ],
)
def test_a_field_that_aws_lacks_stops_the_server(shape: str, member: str, field: str, model: Model) -> None:
    definition = model["shapes"][shape]
    del definition["members"][member]
    definition["required"] = [name for name in definition.get("required", []) if name != member]
    with pytest.raises(ContractError) as raised:
        _pair(model)
    assert f"servicecatalog.v1.{field}:" in str(raised.value)


def test_an_operation_that_aws_lacks_stops_the_server(model: Model) -> None:
    del model["operations"]["UpdateProvisionedProduct"]
    with pytest.raises(ContractError, match=r"ProvisioningService\.UpdateProvisionedProduct\b"):
        _pair(model)


@pytest.mark.parametrize(
    ("enum", "string", "named"),
    [
        ("StackSetOperationType", "DELETE", "servicecatalog.v1.StackSetOperationType"),
        ("RecordStatus", "IN_PROGRESS_IN_ERROR", "servicecatalog.v1.RecordStatus"),
    ],
)
def test_an_enum_value_that_aws_lacks_stops_the_server(enum: str, string: str, named: str, model: Model) -> None:
    model["shapes"][enum]["enum"].remove(string)
    with pytest.raises(ContractError) as raised:
        _pair(model)
    assert named in str(raised.value)
    assert string in str(raised.value)


_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("shape", "becomes", "field"),
    [
        ("ProvisionedProductName", _INTEGER, "ProvisionProductRequest.provisioned_product_name"),
        ("ProvisionedProductName", {"type": "blob"}, "ProvisionProductRequest.provisioned_product_name"),
        ("ProvisionedProductName", {"type": "boolean"}, "ProvisionProductRequest.provisioned_product_name"),
        ("ProvisionedProductName", {"type": "timestamp"}, "ProvisionProductRequest.provisioned_product_name"),
        (
            "ProvisionedProductName",
            {"type": "list", "member": {"shape": "Id"}},
            "ProvisionProductRequest.provisioned_product_name",
        ),
        (
            "ProvisionedProductName",
            {"type": "structure", "members": {}},
            "ProvisionProductRequest.provisioned_product_name",
        ),
        ("StackSetFailureToleranceCount", _STRING, "ProvisioningPreferences.stack_set_failure_tolerance_count"),
        (
            "StackSetFailureToleranceCount",
            {"type": "long"},
            "ProvisioningPreferences.stack_set_failure_tolerance_count",
        ),
        (
            "StackSetFailureToleranceCount",
            {"type": "float"},
            "ProvisioningPreferences.stack_set_failure_tolerance_count",
        ),
        ("UsePreviousValue", _STRING, "UpdateProvisioningParameter.use_previous_value"),
        ("StackSetOperationType", _INTEGER, "UpdateProvisioningPreferences.stack_set_operation_type"),
        ("StackSetOperationType", _STRING, "StackSetOperationType"),
        ("NotificationArns", _STRING, "ProvisionProductRequest.notification_arns"),
        ("NotificationArn", _INTEGER, "ProvisionProductRequest.notification_arns"),
        (
            "NotificationArns",
            {"type": "map", "key": {"shape": "Id"}, "value": {"shape": "Id"}},
            "ProvisionProductRequest.notification_arns",
        ),
        ("Tags", {"type": "list", "member": {"shape": "Id"}}, "servicecatalog.v1.Tag"),
        ("Tag", _STRING, "servicecatalog.v1.Tag"),
        ("ProvisioningPreferences", _STRING, "servicecatalog.v1.ProvisioningPreferences"),
        (
            "ProvisionedProductProperties",
            {"type": "list", "member": {"shape": "Id"}},
            "UpdateProvisionedProductPropertiesRequest.provisioned_product_properties",
        ),
        (
            "ProvisionedProductProperties",
            {"type": "structure", "members": {}},
            "UpdateProvisionedProductPropertiesRequest.provisioned_product_properties",
        ),
        ("PropertyKey", _INTEGER, "ProvisionedProductPropertiesEntry.key"),
        ("PropertyValue", _INTEGER, "ProvisionedProductPropertiesEntry.value"),
        ("CreatedTime", _STRING, "RecordDetail.created_time"),
        ("RecordDetail", _STRING, "servicecatalog.v1.RecordDetail"),
    ],
)
def test_a_type_that_does_not_fit_stops_the_server(
    shape: str, becomes: dict[str, Any], field: str, model: Model
) -> None:
    model["shapes"][shape] = becomes
    with pytest.raises(ContractError) as raised:
        _pair(model)
    assert field in str(raised.value)


def _grow(shape: str, member: str) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model["shapes"][shape]["members"][member] = {"shape": "Id"}

    return change


def _grow_enum(shape: str, string: str) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        model["shapes"][shape]["enum"].append(string)

    return change


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_grow("ProvisionProductInput", "DryRun"), "ProvisionProductInput.DryRun"),
        (_grow("UpdateProvisionedProductInput", "DryRun"), "UpdateProvisionedProductInput.DryRun"),
        (_grow("Tag", "Scope"), "Tag.Scope"),
        (_grow("ProvisioningPreferences", "StackSetOrder"), "ProvisioningPreferences.StackSetOrder"),
        (_grow("ProvisionProductOutput", "Cost"), "ProvisionProductOutput.Cost"),
        (_grow("RecordDetail", "Cost"), "RecordDetail.Cost"),
        (_grow("RecordError", "Advice"), "RecordError.Advice"),
        (_grow_enum("RecordStatus", "PAUSED"), "RecordStatus=PAUSED"),
        (_grow_enum("StackSetOperationType", "REFRESH"), "StackSetOperationType=REFRESH"),
    ],
)
def test_what_aws_added_is_drift_by_name_and_breaks_nothing(
    change: Callable[[Model], None], name: str, model: Model
) -> None:
    change(model)
    operations, drift = _pair(model)
    assert drift == [name]

    operation = _operation(operations, pb.ProvisionProductRequest)
    request = provision(tags=[{"key": "team", "value": "blue"}], provisioning_preferences={"stack_set_regions": ["r"]})
    assert list(operation.request.check(request, "")) == []
    assert operation.request.to_aws(request) == {
        "ProductId": "prod-1",
        "ProvisioningArtifactId": "pa-1",
        "ProvisionedProductName": "mine",
        "Tags": [{"Key": "team", "Value": "blue"}],
        "ProvisioningPreferences": {"StackSetRegions": ["r"]},
    }
    response = pb.ProvisionProductResponse()
    operation.response.fill(
        response,
        {
            "Cost": "1",
            "RecordDetail": {
                "RecordId": "rec-1",
                "Status": "FAILED",
                "Cost": "1",
                "RecordErrors": [{"Code": "c", "Advice": "a"}],
            },
        },
    )
    assert response == pb.ProvisionProductResponse(
        record_detail=RecordDetail(
            record_id="rec-1",
            status=RecordStatus.RECORD_STATUS_FAILED,
            record_errors=[RecordError(code="c")],
        )
    )


def test_all_drift_is_named(model: Model) -> None:
    _grow("Tag", "Scope")(model)
    _grow("RecordDetail", "Cost")(model)
    _grow_enum("RecordStatus", "PAUSED")(model)
    _, drift = _pair(model)
    assert sorted(drift) == ["RecordDetail.Cost", "RecordStatus=PAUSED", "Tag.Scope"]


def test_a_member_added_to_a_shape_of_many_places_is_named_once(model: Model) -> None:
    _grow("Tag", "Scope")(model)
    _grow("RecordDetail", "Cost")(model)
    _, drift = _pair(model)
    assert sorted(drift) == ["RecordDetail.Cost", "Tag.Scope"]


@pytest.mark.parametrize("limit", ["max", "pattern", "required"])
def test_a_new_boto3_brings_new_limits_without_new_stubs(limit: str, model: Model) -> None:
    changes: dict[str, Callable[[], object]] = {
        "max": lambda: model["shapes"]["PortfolioDisplayName"].update(max=3),
        "pattern": lambda: model["shapes"]["PortfolioDisplayName"].update(pattern="[a-z]+"),
        "required": lambda: model["shapes"]["UpdateProvisionedProductInput"]["required"].append("ProductId"),
    }
    request = update(path_name="Main")
    assert _violated(model, request) == set()
    changes[limit]()
    assert _violated(model, request) == {"product_id" if limit == "required" else "path_name"}


def _violated(model: Model, request: Message) -> set[str]:
    operations, _ = _pair(model)
    return {violation.field for violation in _operation(operations, type(request)).request.check(request, "")}


def test_the_reasons_are_those_of_the_contract_both_ways() -> None:
    of_the_contract = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name}
    assert {reason.name for reason in Reason} == of_the_contract - {"UNSPECIFIED"}
    assert {reason.value[0] for reason in Reason} == {reason.name for reason in Reason}
