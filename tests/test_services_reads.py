"""One call of each operation that came with records, both ways: what AWS gets, and what of its answer comes back."""

import itertools
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import grpc
import pytest
from botocore import xform_name
from calls import ANSWER, forwarded, operation_of, refused
from facade import Facade, environment, logged
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from servicecatalog.v1 import catalog_service_pb2, provisioned_product_service_pb2, record_service_pb2
from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog_grpc.app import SERVICES
from status import Details
from stubs import Stubs
from test_services_provisioning import RECORD
from test_translation_wire import plain_boto3
from upstream import REQUEST_ID, Behaviour, Request, Upstream, after, error, hang_up, reply, truncated

__all__ = ["plain_boto3"]

# Of any type, because protobuf takes dicts for messages and names for enums, which its type stubs do not know.
records: Any = record_service_pb2
catalog: Any = catalog_service_pb2
products: Any = provisioned_product_service_pb2


@pytest.fixture(scope="module")
def stubs(facade: Facade) -> Iterator[Stubs]:
    with grpc.insecure_channel(facade.address) as channel:
        yield Stubs(channel)


@pytest.fixture(scope="module")
def patient_stubs(_upstream: Upstream) -> Iterator[Stubs]:
    """Stubs of a façade that makes as many attempts as it does by default."""
    with (
        Facade("serve", "--listen", "127.0.0.1:0", env=environment(_upstream.url)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield Stubs(channel)


class Case(NamedTuple):
    """A request beside the arguments that one would give to boto3, and AWS's answer beside the response."""

    request: Message
    kwargs: dict[str, Any]
    answer: dict[str, Any]
    response: Message


def _time(micros: int) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(datetime(2023, 11, 14, 22, 13, 20, micros, tzinfo=UTC))
    return time


RECORD_FIELDS = {
    "record_id": "rec-1",
    "provisioned_product_name": "mine",
    "status": "RECORD_STATUS_IN_PROGRESS_IN_ERROR",
    "created_time": _time(123456),
    "updated_time": Timestamp(seconds=1700000001, nanos=1000),
    "provisioned_product_type": "CONTROL_TOWER_ACCOUNT",
    "record_type": "PROVISION_PRODUCT",
    "provisioned_product_id": "pp-1",
    "product_id": "prod-1",
    "provisioning_artifact_id": "pa-1",
    "path_id": "lpv2-1",
    "record_errors": [{"code": "InternalFailure", "description": "Größe ≠ 0"}],
    "record_tags": [{"key": "team", "value": "blau"}],
    "launch_role_arn": "arn:aws:iam::123456789012:role/launch",
}
OUTPUTS = [
    {"OutputKey": "BucketName", "OutputValue": "logs", "Description": "The bucket's name"},
    {"OutputKey": "Empty", "OutputValue": ""},
]
OUTPUT_FIELDS = [
    {"output_key": "BucketName", "output_value": "logs", "description": "The bucket's name"},
    {"output_key": "Empty"},
]
PRODUCT = {
    "Id": "prodview-1",
    "ProductId": "prod-1",
    "Name": "s3-bucket",
    "Owner": "platform",
    "ShortDescription": "Ein Eimer",
    "Type": "TERRAFORM_CLOUD",
    "Distributor": "us",
    "HasDefaultPath": True,
    "SupportEmail": "help@example.org",
    "SupportDescription": "by day",
    "SupportUrl": "https://example.org",
}
PRODUCT_FIELDS = {
    "id": "prodview-1",
    "product_id": "prod-1",
    "name": "s3-bucket",
    "owner": "platform",
    "short_description": "Ein Eimer",
    "type": "PRODUCT_TYPE_TERRAFORM_CLOUD",
    "distributor": "us",
    "has_default_path": True,
    "support_email": "help@example.org",
    "support_description": "by day",
    "support_url": "https://example.org",
}
PROVISIONED = {
    "Name": "mine",
    "Arn": "arn:aws:servicecatalog:us-east-1:123456789012:stack/mine/pp-1",
    "Type": "CFN_STACK",
    "Id": "pp-1",
    "Status": "TAINTED",
    "StatusMessage": "rolled back",
    "CreatedTime": 1700000000.5,
    "IdempotencyToken": "order-17",
    "LastRecordId": "rec-3",
    "LastProvisioningRecordId": "rec-2",
    "LastSuccessfulProvisioningRecordId": "rec-1",
    "ProductId": "prod-1",
    "ProvisioningArtifactId": "pa-1",
}
PROVISIONED_FIELDS = {
    "name": "mine",
    "arn": "arn:aws:servicecatalog:us-east-1:123456789012:stack/mine/pp-1",
    "type": "CFN_STACK",
    "id": "pp-1",
    "status": "PROVISIONED_PRODUCT_STATUS_TAINTED",
    "status_message": "rolled back",
    "created_time": _time(500000),
    "idempotency_token": "order-17",
    "last_record_id": "rec-3",
    "last_provisioning_record_id": "rec-2",
    "last_successful_provisioning_record_id": "rec-1",
    "product_id": "prod-1",
    "provisioning_artifact_id": "pa-1",
}

CASES = [
    Case(
        records.DescribeRecordRequest(accept_language="jp", id="rec-1"),
        {"AcceptLanguage": "jp", "Id": "rec-1", "PageSize": 20},
        {"RecordDetail": RECORD, "RecordOutputs": OUTPUTS},
        records.DescribeRecordResponse(record_detail=RECORD_FIELDS, record_outputs=OUTPUT_FIELDS),
    ),
    Case(
        records.ListRecordHistoryRequest(
            accept_language="en",
            access_level_filter={"key": "ACCESS_LEVEL_FILTER_KEY_ROLE", "value": "self"},
            search_filter={"key": "provisionedproduct", "value": "pp-1"},
            page_size=20,
            page_token="next please",
        ),
        {
            "AcceptLanguage": "en",
            "AccessLevelFilter": {"Key": "Role", "Value": "self"},
            "SearchFilter": {"Key": "provisionedproduct", "Value": "pp-1"},
            "PageSize": 20,
            "PageToken": "next please",
        },
        {"RecordDetails": [RECORD, {"RecordId": "rec-2"}], "NextPageToken": "more"},
        records.ListRecordHistoryResponse(
            record_details=[RECORD_FIELDS, {"record_id": "rec-2"}], next_page_token="more"
        ),
    ),
    Case(
        catalog.SearchProductsRequest(
            accept_language="zh",
            filters={
                "FullTextSearch": catalog.ProductViewFilterValues(values=["bucket", "桶"]),
                "Owner": catalog.ProductViewFilterValues(),
                "ProductType": catalog.ProductViewFilterValues(values=[""]),
                "SourceProductId": catalog.ProductViewFilterValues(values=["prod-0"]),
            },
            page_size=100,
            sort_by="PRODUCT_VIEW_SORT_BY_VERSION_COUNT",
            sort_order="SORT_ORDER_DESCENDING",
            page_token="t",
        ),
        {
            "AcceptLanguage": "zh",
            "Filters": {
                "FullTextSearch": ["bucket", "桶"],
                "Owner": [],
                "ProductType": [""],
                "SourceProductId": ["prod-0"],
            },
            "PageSize": 100,
            "SortBy": "VersionCount",
            "SortOrder": "DESCENDING",
            "PageToken": "t",
        },
        {
            "ProductViewSummaries": [PRODUCT],
            "ProductViewAggregations": {
                "Owner": [{"Value": "platform", "ApproximateCount": 2}, {"Value": "data", "ApproximateCount": 0}],
                "Vendor": [],
            },
            "NextPageToken": "more",
        },
        catalog.SearchProductsResponse(
            product_view_summaries=[PRODUCT_FIELDS],
            product_view_aggregations={
                "Owner": catalog.ProductViewAggregationValues(
                    values=[{"value": "platform", "approximate_count": 2}, {"value": "data"}]
                ),
                "Vendor": catalog.ProductViewAggregationValues(),
            },
            next_page_token="more",
        ),
    ),
    Case(
        catalog.DescribeProductRequest(accept_language="en", id="prod-1"),
        {"AcceptLanguage": "en", "Id": "prod-1"},
        {
            "ProductViewSummary": PRODUCT,
            "ProvisioningArtifacts": [
                {
                    "Id": "pa-1",
                    "Name": "v1",
                    "Description": "the first",
                    "CreatedTime": 1700000000.5,
                    "Guidance": "DEPRECATED",
                }
            ],
            "Budgets": [{"BudgetName": "yearly"}],
            "LaunchPaths": [{"Id": "lpv2-1", "Name": "Portfolio"}],
        },
        catalog.DescribeProductResponse(
            product_view_summary=PRODUCT_FIELDS,
            provisioning_artifacts=[
                {
                    "id": "pa-1",
                    "name": "v1",
                    "description": "the first",
                    "created_time": _time(500000),
                    "guidance": "PROVISIONING_ARTIFACT_GUIDANCE_DEPRECATED",
                }
            ],
            budgets=[{"budget_name": "yearly"}],
            launch_paths=[{"id": "lpv2-1", "name": "Portfolio"}],
        ),
    ),
    Case(
        catalog.ListLaunchPathsRequest(accept_language="en", product_id="prod-1", page_size=0, page_token="t"),
        {"AcceptLanguage": "en", "ProductId": "prod-1", "PageSize": 0, "PageToken": "t"},
        {
            "LaunchPathSummaries": [
                {
                    "Id": "lpv2-1",
                    "ConstraintSummaries": [{"Type": "LAUNCH", "Description": "as launch"}],
                    "Tags": [{"Key": "team", "Value": "blue"}],
                    "Name": "Portfolio",
                }
            ],
            "NextPageToken": "more",
        },
        catalog.ListLaunchPathsResponse(
            launch_path_summaries=[
                {
                    "id": "lpv2-1",
                    "constraint_summaries": [{"type": "LAUNCH", "description": "as launch"}],
                    "tags": [{"key": "team", "value": "blue"}],
                    "name": "Portfolio",
                }
            ],
            next_page_token="more",
        ),
    ),
    Case(
        catalog.DescribeProvisioningParametersRequest(
            accept_language="en", product_name="s3-bucket", provisioning_artifact_id="pa-1", path_name="Portfolio"
        ),
        {
            "AcceptLanguage": "en",
            "ProductName": "s3-bucket",
            "ProvisioningArtifactId": "pa-1",
            "PathName": "Portfolio",
        },
        {
            "ProvisioningArtifactParameters": [
                {
                    "ParameterKey": "Password",
                    "DefaultValue": "****",
                    "ParameterType": "String",
                    "IsNoEcho": True,
                    "Description": "A secret",
                    "ParameterConstraints": {
                        "AllowedValues": ["a", ""],
                        "AllowedPattern": "[a-z]*",
                        "ConstraintDescription": "small letters",
                        "MaxLength": "8",
                        "MinLength": "0",
                        "MaxValue": "9.5",
                        "MinValue": "-1",
                    },
                },
                {"ParameterKey": "WithoutDefault", "ParameterConstraints": {}},
                {"ParameterKey": "WithEmptyDefault", "DefaultValue": ""},
            ],
            "ConstraintSummaries": [{"Type": "TEMPLATE", "Description": "rules"}],
            "UsageInstructions": [{"Type": "version", "Value": "2010-09-09"}],
            "TagOptions": [{"Key": "stage", "Values": ["test", "prod"]}, {"Key": "conflict", "Values": []}],
            "ProvisioningArtifactPreferences": {
                "StackSetAccounts": ["123456789012"],
                "StackSetRegions": ["us-east-1", "eu-west-1"],
            },
            "ProvisioningArtifactOutputs": [{"Key": "Arn", "Description": "its ARN"}],
            "ProvisioningArtifactOutputKeys": [{"Key": "Arn", "Description": "its ARN"}],
        },
        catalog.DescribeProvisioningParametersResponse(
            provisioning_artifact_parameters=[
                {
                    "parameter_key": "Password",
                    "default_value": "****",
                    "parameter_type": "String",
                    "is_no_echo": True,
                    "description": "A secret",
                    "parameter_constraints": {
                        "allowed_values": ["a", ""],
                        "allowed_pattern": "[a-z]*",
                        "constraint_description": "small letters",
                        "max_length": "8",
                        "min_length": "0",
                        "max_value": "9.5",
                        "min_value": "-1",
                    },
                },
                {"parameter_key": "WithoutDefault", "parameter_constraints": {}},
                {"parameter_key": "WithEmptyDefault", "default_value": ""},
            ],
            constraint_summaries=[{"type": "TEMPLATE", "description": "rules"}],
            usage_instructions=[{"type": "version", "value": "2010-09-09"}],
            tag_options=[{"key": "stage", "values": ["test", "prod"]}, {"key": "conflict"}],
            provisioning_artifact_preferences={
                "stack_set_accounts": ["123456789012"],
                "stack_set_regions": ["us-east-1", "eu-west-1"],
            },
            provisioning_artifact_outputs=[{"key": "Arn", "description": "its ARN"}],
            provisioning_artifact_output_keys=[{"key": "Arn", "description": "its ARN"}],
        ),
    ),
    Case(
        products.DescribeProvisionedProductRequest(accept_language="en", name="mine"),
        {"AcceptLanguage": "en", "Name": "mine"},
        {
            "ProvisionedProductDetail": {**PROVISIONED, "LaunchRoleArn": "arn:aws:iam::123456789012:role/launch"},
            "CloudWatchDashboards": [{"Name": "traffic"}],
        },
        products.DescribeProvisionedProductResponse(
            provisioned_product_detail={
                **PROVISIONED_FIELDS,
                "launch_role_arn": "arn:aws:iam::123456789012:role/launch",
            },
            cloud_watch_dashboards=[{"name": "traffic"}],
        ),
    ),
    Case(
        products.SearchProvisionedProductsRequest(
            accept_language="en",
            access_level_filter={"key": "ACCESS_LEVEL_FILTER_KEY_ACCOUNT", "value": "self"},
            filters={
                "SearchQuery": products.ProvisionedProductViewFilterValues(values=["status:AVAILABLE", "name:mine"])
            },
            sort_by="lastRecordId",
            sort_order="SORT_ORDER_ASCENDING",
            page_size=1,
            page_token="t",
        ),
        {
            "AcceptLanguage": "en",
            "AccessLevelFilter": {"Key": "Account", "Value": "self"},
            "Filters": {"SearchQuery": ["status:AVAILABLE", "name:mine"]},
            "SortBy": "lastRecordId",
            "SortOrder": "ASCENDING",
            "PageSize": 1,
            "PageToken": "t",
        },
        {
            "ProvisionedProducts": [
                {
                    **PROVISIONED,
                    "Tags": [{"Key": "team", "Value": "blue"}],
                    "PhysicalId": "arn:aws:cloudformation:us-east-1:123456789012:stack/SC-1/1",
                    "ProductName": "s3-bucket",
                    "ProvisioningArtifactName": "v1",
                    "UserArn": "arn:aws:iam::123456789012:user/ann",
                    "UserArnSession": "arn:aws:sts::123456789012:assumed-role/blue/ann",
                }
            ],
            "TotalResultsCount": 2147483647,
            "NextPageToken": "more",
        },
        products.SearchProvisionedProductsResponse(
            provisioned_products=[
                {
                    **PROVISIONED_FIELDS,
                    "tags": [{"key": "team", "value": "blue"}],
                    "physical_id": "arn:aws:cloudformation:us-east-1:123456789012:stack/SC-1/1",
                    "product_name": "s3-bucket",
                    "provisioning_artifact_name": "v1",
                    "user_arn": "arn:aws:iam::123456789012:user/ann",
                    "user_arn_session": "arn:aws:sts::123456789012:assumed-role/blue/ann",
                }
            ],
            total_results_count=2147483647,
            next_page_token="more",
        ),
    ),
    Case(
        products.GetProvisionedProductOutputsRequest(
            accept_language="en",
            provisioned_product_id="pp-1",
            output_keys=["BucketName", "Empty"],
            page_size=2,
            page_token="t",
        ),
        {
            "AcceptLanguage": "en",
            "ProvisionedProductId": "pp-1",
            "OutputKeys": ["BucketName", "Empty"],
            "PageSize": 2,
            "PageToken": "t",
        },
        {"Outputs": OUTPUTS, "NextPageToken": "more"},
        products.GetProvisionedProductOutputsResponse(outputs=OUTPUT_FIELDS, next_page_token="more"),
    ),
    Case(
        products.TerminateProvisionedProductRequest(
            provisioned_product_name="mine",
            terminate_token="order-17",
            ignore_errors=True,
            accept_language="en",
            retain_physical_resources=True,
        ),
        {
            "ProvisionedProductName": "mine",
            "TerminateToken": "order-17",
            "IgnoreErrors": True,
            "AcceptLanguage": "en",
            "RetainPhysicalResources": True,
        },
        {"RecordDetail": RECORD},
        products.TerminateProvisionedProductResponse(record_detail=RECORD_FIELDS),
    ),
]
# The same with the other choice of each pair, and with as little as there can be.
OTHERS: list[tuple[Message, dict[str, Any]]] = [
    (records.DescribeRecordRequest(id="rec-1"), {"Id": "rec-1", "PageSize": 20}),
    (records.ListRecordHistoryRequest(), {}),
    (records.ListRecordHistoryRequest(access_level_filter={}, page_size=0), {"AccessLevelFilter": {}, "PageSize": 0}),
    (catalog.SearchProductsRequest(), {}),
    (catalog.SearchProductsRequest(sort_by="PRODUCT_VIEW_SORT_BY_TITLE"), {"SortBy": "Title"}),
    (catalog.SearchProductsRequest(sort_by="PRODUCT_VIEW_SORT_BY_CREATION_DATE"), {"SortBy": "CreationDate"}),
    (catalog.DescribeProductRequest(name="s3-bucket"), {"Name": "s3-bucket"}),
    (catalog.ListLaunchPathsRequest(product_id="prod-1"), {"ProductId": "prod-1"}),
    (
        catalog.DescribeProvisioningParametersRequest(
            product_id="prod-1", provisioning_artifact_name="v1", path_id="lpv2-1"
        ),
        {"ProductId": "prod-1", "ProvisioningArtifactName": "v1", "PathId": "lpv2-1"},
    ),
    (products.DescribeProvisionedProductRequest(id="pp-1"), {"Id": "pp-1"}),
    (products.SearchProvisionedProductsRequest(), {}),
    (
        products.SearchProvisionedProductsRequest(access_level_filter={"key": "ACCESS_LEVEL_FILTER_KEY_USER"}),
        {"AccessLevelFilter": {"Key": "User"}},
    ),
    (
        products.GetProvisionedProductOutputsRequest(provisioned_product_name="mine"),
        {"ProvisionedProductName": "mine"},
    ),
    (
        products.TerminateProvisionedProductRequest(provisioned_product_id="pp-1", terminate_token="t"),
        {"ProvisionedProductId": "pp-1", "TerminateToken": "t"},
    ),
]
EACH = pytest.mark.parametrize("case", [pytest.param(case, id=operation_of(case.request)) for case in CASES])
*_READS, _ = CASES
READS = pytest.mark.parametrize("case", [pytest.param(case, id=operation_of(case.request)) for case in _READS])


def call(stubs: Stubs, request: Message, **options: Any) -> Any:
    return getattr(stubs, operation_of(request))(request, **options)


def failed(stubs: Stubs, request: Message, **options: Any) -> Details:
    with pytest.raises(grpc.RpcError) as raised:
        call(stubs, request, **options)
    return Details(raised.value)


@pytest.mark.parametrize(
    ("request_", "kwargs"),
    [
        pytest.param(request, kwargs, id=f"{operation_of(request)} {kwargs}"[:90])
        for request, kwargs in [*((case.request, case.kwargs) for case in CASES), *OTHERS]
    ],
)
def test_the_wire_is_what_boto3_would_send(
    request_: Message, kwargs: dict[str, Any], stubs: Stubs, upstream: Upstream, plain_boto3: Any
) -> None:
    upstream.behave(ANSWER)
    call(stubs, request_)
    getattr(plain_boto3, xform_name(operation_of(request_)))(**kwargs)
    ours, theirs = upstream.requests
    assert ours.target == theirs.target
    assert ours.json == theirs.json == kwargs


@EACH
def test_every_field_of_the_answer_comes_back(case: Case, stubs: Stubs, upstream: Upstream) -> None:
    upstream.behave(reply(body=case.answer))
    response, made = getattr(stubs, operation_of(case.request)).with_call(case.request)
    assert response == case.response
    assert dict(made.trailing_metadata())["x-amzn-requestid"] == REQUEST_ID
    seen: dict[Any, set[str]] = {}
    _collect(response, seen)
    for kind, fields in seen.items():
        assert fields == set(kind.fields_by_name), kind.name


def _collect(message: Message, seen: dict[Any, set[str]]) -> None:
    """Note for each kind of message below this one which fields some message of it has."""
    fields = seen.setdefault(message.DESCRIPTOR, set())
    for field, value in message.ListFields():
        fields.add(field.name)
        if field.message_type is None or field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
            continue
        entries = value.values() if field.message_type.GetOptions().map_entry else value
        for below in entries if field.is_repeated else [value]:
            _collect(below, seen)


def test_absent_and_empty_defaults_are_told_apart(stubs: Stubs, upstream: Upstream) -> None:
    case = next(case for case in CASES if "ProvisioningArtifactParameters" in case.answer)
    upstream.behave(reply(body=case.answer))
    parameters = call(stubs, case.request).provisioning_artifact_parameters
    assert [parameter.HasField("default_value") for parameter in parameters] == [True, False, True]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (CASES[1].request, {"RecordDetails": {"RecordId": "rec-1"}}),
        (CASES[2].request, {"ProductViewAggregations": {"Owner": {"Value": "platform"}}}),
        (CASES[2].request, {"ProductViewAggregations": {"Owner": [{"ApproximateCount": "many"}]}}),
        (CASES[2].request, {"ProductViewAggregations": [["Owner", []]]}),
        (CASES[3].request, {"ProvisioningArtifacts": [{"Guidance": 1}]}),
        (CASES[7].request, {"TotalResultsCount": 2**31}),
        (CASES[7].request, {"TotalResultsCount": 0.5}),
        (CASES[7].request, {"NextPageToken": 7}),
    ],
    ids=str,
)
def test_an_answer_of_another_form_is_as_good_as_none(
    request_: Message, answer: Any, stubs: Stubs, upstream: Upstream
) -> None:
    upstream.behave(reply(body=answer))
    details = failed(stubs, request_)
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")


def test_values_that_aws_added_are_unspecified_and_logged(stubs: Stubs, upstream: Upstream, facade: Facade) -> None:
    upstream.behave(
        reply(
            body={
                "ProductViewSummary": {"Name": "Account Factory", "Type": "CONTROL_TOWER_ACCOUNT"},
                "ProvisioningArtifacts": [{"Guidance": "RETIRED"}],
            }
        )
    )
    response = call(stubs, catalog.DescribeProductRequest(id="prod-1"))
    assert response.product_view_summary.type == 0
    assert response.provisioning_artifacts[0].guidance == 0
    deadline = time.monotonic() + 5
    # The log takes a way of its own, through a pipe.
    while not (logged(facade, "'CONTROL_TOWER_ACCOUNT'") and logged(facade, "'RETIRED'")):
        assert time.monotonic() < deadline, facade.log
        time.sleep(0.01)


@READS
def test_a_lost_read_is_unavailable(case: Case, stubs: Stubs, upstream: Upstream) -> None:
    for lost in (hang_up, truncated(case.answer, 20), reply(503), reply(500, {"__type": "InternalFailure"})):
        upstream.behave(lost)
        details = failed(stubs, case.request, metadata=(("idempotency-key", ""),))
        assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
        assert "idempotency_token" not in details.info.metadata


@READS
def test_a_read_is_repeated_as_it_was_and_has_no_token(case: Case, patient_stubs: Stubs, upstream: Upstream) -> None:
    upstream.behave(hang_up, error("ThrottlingException"), reply(body=case.answer))
    response, made = getattr(patient_stubs, operation_of(case.request)).with_call(case.request)
    assert response == case.response
    assert "idempotency-token" not in dict(made.initial_metadata())
    assert [request.json for request in upstream.requests] == [case.kwargs] * 3


# DescribeRecord gathers its pages.

DESCRIBE = records.DescribeRecordRequest(id="rec-1")


def _page(number: int, *keys: str, following: Any = None, status: str = "SUCCEEDED") -> Behaviour:
    body = {
        "RecordDetail": {
            "RecordId": "rec-1",
            "Status": status,
            "PathId": f"lpv2-{number}",
            "RecordErrors": [{"Code": "c"}],
        },
        "RecordOutputs": [{"OutputKey": key} for key in keys],
        "NextPageToken": following,
    }
    return reply(200, body, x_amzn_RequestId=f"request-{number}")


def test_all_pages_of_outputs_are_one_answer(stubs: Stubs, upstream: Upstream) -> None:
    upstream.behave(
        _page(1, "a", "b", following="one", status="IN_PROGRESS"), _page(2, "c", following="two"), _page(3, "d")
    )
    response, made = stubs.DescribeRecord.with_call(DESCRIBE)
    assert [output.output_key for output in response.record_outputs] == ["a", "b", "c", "d"]
    assert [request.json for request in upstream.requests] == [
        {"Id": "rec-1", "PageSize": 20},
        {"Id": "rec-1", "PageSize": 20, "PageToken": "one"},
        {"Id": "rec-1", "PageSize": 20, "PageToken": "two"},
    ]
    # The record is the one of the first page: a later page must not make it final when outputs may be missing.
    assert response.record_detail.path_id == "lpv2-1"
    assert response.record_detail.status == RecordStatus.RECORD_STATUS_IN_PROGRESS
    assert len(response.record_detail.record_errors) == 1
    assert dict(made.trailing_metadata())["x-amzn-requestid"] == "request-3"


def test_empty_pages_are_no_end(stubs: Stubs, upstream: Upstream) -> None:
    upstream.behave(_page(1, following="one"), _page(2, following="two"), _page(3, "d", following=""))
    assert [output.output_key for output in stubs.DescribeRecord(DESCRIBE).record_outputs] == ["d"]


@pytest.mark.parametrize(
    ("middle", "code", "reason"),
    [
        (hang_up, grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE"),
        (reply(body={"RecordOutputs": "?"}), grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE"),
        (_page(2, following=["two"]), grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE"),
        (_page(2, following="one"), grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE"),
        (error("ThrottlingException"), grpc.StatusCode.RESOURCE_EXHAUSTED, "THROTTLED"),
        (error("ResourceNotFoundException"), grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND"),
        (error("AccessDeniedException"), grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED"),
        (after(3, _page(2, "c")), grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    ],
)
def test_a_page_that_fails_fails_the_call(
    middle: Behaviour, code: grpc.StatusCode, reason: str, stubs: Stubs, upstream: Upstream
) -> None:
    upstream.behave(_page(1, "a", following="one"), middle, _page(3, "d"))
    details = failed(stubs, DESCRIBE, timeout=1.5)
    assert (details.code, details.info.reason) == (code, reason)
    assert details.info.metadata["aws_operation"] == "DescribeRecord"
    assert len(upstream.requests) == 2


def test_a_page_is_repeated_alone(patient_stubs: Stubs, upstream: Upstream) -> None:
    upstream.behave(_page(1, "a", following="one"), hang_up, reply(503), _page(2, "b"))
    response = patient_stubs.DescribeRecord(DESCRIBE)
    assert [output.output_key for output in response.record_outputs] == ["a", "b"]
    assert [request.json.get("PageToken") for request in upstream.requests] == [None, "one", "one", "one"]


def test_pages_without_an_end_are_given_up(stubs: Stubs, upstream: Upstream) -> None:
    numbers = itertools.count()

    def endless(connection: socket.socket, request: Request) -> None:
        number = next(numbers)
        _page(number, "a", following=f"token-{number}")(connection, request)

    upstream.behave(endless)
    details = failed(stubs, DESCRIBE)
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    assert len(upstream.requests) == 100


# TerminateProvisionedProduct is a write.

TERMINATE = products.TerminateProvisionedProductRequest(provisioned_product_id="pp-1")


def test_a_termination_has_the_token_of_the_request_or_of_the_metadata_or_one_of_its_own(
    stubs: Stubs, upstream: Upstream
) -> None:
    def token(request: Message, *metadata: tuple[str, str]) -> str:
        sent = forwarded(stubs, upstream, request, metadata)  # type: ignore[arg-type]  # it has this RPC too
        assert sent.token == sent.body["TerminateToken"]
        return sent.token

    own = products.TerminateProvisionedProductRequest(provisioned_product_id="pp-1", terminate_token="own")
    key, request_id = ("idempotency-key", "key-1"), ("x-request-id", "id-1")
    assert token(own, key, request_id) == "own"
    assert token(TERMINATE, key) == token(TERMINATE, key, request_id) != token(TERMINATE, request_id)
    assert token(TERMINATE, request_id) == token(TERMINATE, request_id)
    assert token(TERMINATE) != token(TERMINATE)


@pytest.mark.parametrize("lost", [hang_up, reply(503), reply(body={}), reply(body={"RecordDetail": {}})])
def test_a_lost_termination_is_unknown_and_names_its_token(lost: Behaviour, stubs: Stubs, upstream: Upstream) -> None:
    upstream.behave(lost)
    details = failed(stubs, TERMINATE)
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")
    assert details.info.metadata["idempotency_token"] == upstream.requests[0].json["TerminateToken"]
    assert details.initial["idempotency-token"] == details.info.metadata["idempotency_token"]


def test_a_termination_is_repeated_with_its_token(patient_stubs: Stubs, upstream: Upstream) -> None:
    upstream.behave(hang_up, error("ThrottlingException"), ANSWER)
    assert patient_stubs.TerminateProvisionedProduct(TERMINATE).record_detail.record_id == "rec-1"
    assert len({request.json["TerminateToken"] for request in upstream.requests}) == 1
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(
    ("bad", "fields"),
    [
        (records.DescribeRecordRequest(), {"id"}),
        (records.DescribeRecordRequest(id="rec 1", accept_language="fr"), {"id", "accept_language"}),
        (
            records.ListRecordHistoryRequest(
                accept_language="fr",
                access_level_filter={"key": 9, "value": "ann"},
                search_filter={"key": "record", "value": "rec-1"},
                page_size=21,
                page_token="t" * 2025,
            ),
            {
                "accept_language",
                "access_level_filter.key",
                "access_level_filter.value",
                "search_filter.key",
                "page_size",
                "page_token",
            },
        ),
        (
            catalog.SearchProductsRequest(
                accept_language="fr",
                filters={"Name": catalog.ProductViewFilterValues(values=["x"])},
                page_size=-1,
                sort_by=9,
                sort_order=9,
                page_token="\0",
            ),
            {"accept_language", 'filters["Name"]', "page_size", "sort_by", "sort_order", "page_token"},
        ),
        (catalog.DescribeProductRequest(accept_language="fr"), {"accept_language", "product"}),
        (catalog.DescribeProductRequest(id=""), {"id"}),
        (
            catalog.ListLaunchPathsRequest(accept_language="fr", page_size=21),
            {"accept_language", "product_id", "page_size"},
        ),
        (
            catalog.DescribeProvisioningParametersRequest(accept_language="fr", path_name="p" * 101),
            {"accept_language", "product", "provisioning_artifact", "path_name"},
        ),
        (products.DescribeProvisionedProductRequest(accept_language="fr"), {"accept_language", "provisioned_product"}),
        (products.DescribeProvisionedProductRequest(name="-"), {"name"}),
        (
            products.SearchProvisionedProductsRequest(
                accept_language="fr",
                access_level_filter={"value": "ann"},
                filters={"status": products.ProvisionedProductViewFilterValues(values=["AVAILABLE"])},
                sort_by="status",
                page_size=101,
            ),
            {"accept_language", "access_level_filter.value", 'filters["status"]', "sort_by", "page_size"},
        ),
        (
            products.GetProvisionedProductOutputsRequest(accept_language="fr", output_keys=["k"] * 61),
            {"accept_language", "provisioned_product", "output_keys"},
        ),
        (
            products.TerminateProvisionedProductRequest(accept_language="fr", terminate_token="-"),
            {"accept_language", "provisioned_product", "terminate_token"},
        ),
    ],
    ids=lambda value: operation_of(value) if isinstance(value, Message) else "",
)
def test_a_bad_request_is_refused_with_all_that_is_wrong(
    bad: Message, fields: set[str], stubs: Stubs, upstream: Upstream
) -> None:
    assert refused(stubs, upstream, bad).fields == fields  # type: ignore[arg-type]  # it has this RPC too


def test_health_and_reflection_know_every_service(facade: Facade) -> None:
    names = {service.full_name for service in SERVICES}
    assert {name.rpartition(".")[2] for name in names} == {
        "ProvisioningService",
        "RecordService",
        "CatalogService",
        "ProvisionedProductService",
    }
    with grpc.insecure_channel(facade.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in names:
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert names <= set(ProtoReflectionDescriptorDatabase(channel).get_services())
