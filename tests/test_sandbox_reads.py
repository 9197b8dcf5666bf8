"""What the sandbox tells of its catalogue, its provisioned products and their records, as AWS does."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sandbox_fixtures import Aws, aws, parameters, refused

__all__ = ["aws"]

INVALID = "InvalidParametersException"
NOT_FOUND = "ResourceNotFoundException"
EMPTY = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}}
SEEDED = ["s3-bucket", "sqs-queue", "always-fails"]
OWNER = "arn:aws:iam::123456789012:role/team"


def pages(operation: Callable[..., Any], items: str, size: int, **request: Any) -> Iterator[list[Any]]:
    """Yield the items of each page, up to the one without a token for the next."""
    token: dict[str, str] = {}
    while True:
        answer = operation(PageSize=size, **request, **token)
        yield answer[items]
        if "NextPageToken" not in answer:
            return
        token = {"PageToken": answer["NextPageToken"]}


def found(aws: Aws, **request: Any) -> list[str]:
    return [summary["Name"] for summary in aws.catalog.search_products(**request)["ProductViewSummaries"]]


def provisioned_names(aws: Aws, **request: Any) -> list[str]:
    return [product["Name"] for product in aws.catalog.search_provisioned_products(**request)["ProvisionedProducts"]]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, SEEDED),
        ({"FullTextSearch": ["BUCKET"]}, ["s3-bucket", "always-fails"]),
        ({"FullTextSearch": ["sqs"]}, ["sqs-queue"]),
        ({"FullTextSearch": ["sqs", "s3"]}, ["s3-bucket", "sqs-queue"]),
        ({"FullTextSearch": ["nothing of this kind"]}, []),
        ({"Owner": ["servicecatalog-grpc"]}, SEEDED),
        ({"Owner": ["servicecatalog"]}, []),
        ({"ProductType": ["CLOUD_FORMATION_TEMPLATE"]}, SEEDED),
        ({"ProductType": ["MARKETPLACE"]}, []),
        ({"Owner": ["servicecatalog-grpc"], "FullTextSearch": ["queue"]}, ["sqs-queue"]),
        ({"SourceProductId": ["prod-x"]}, []),
    ],
)
def test_products_are_found_by_their_filters(aws: Aws, filters: dict[str, list[str]], names: list[str]) -> None:
    assert found(aws, Filters=filters) == names


def test_a_product_is_its_own_source(aws: Aws) -> None:
    product_id = aws.catalog.describe_product(Name="sqs-queue")["ProductViewSummary"]["ProductId"]
    assert found(aws, Filters={"SourceProductId": [product_id]}) == ["sqs-queue"]


@pytest.mark.parametrize(
    ("sort_by", "names"),
    [
        ("Title", ["always-fails", "s3-bucket", "sqs-queue"]),
        ("VersionCount", ["always-fails", "s3-bucket", "sqs-queue"]),
        ("CreationDate", SEEDED),
    ],
)
def test_products_are_sorted_in_either_order(aws: Aws, sort_by: str, names: list[str]) -> None:
    assert found(aws, SortBy=sort_by) == found(aws, SortBy=sort_by, SortOrder="ASCENDING") == names
    descending = found(aws, SortBy=sort_by, SortOrder="DESCENDING")
    # Those with equally many versions stay in their order.
    assert descending == (["s3-bucket", "sqs-queue", "always-fails"] if sort_by == "VersionCount" else names[::-1])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_products_come_in_pages(aws: Aws, size: int) -> None:
    split = list(pages(aws.catalog.search_products, "ProductViewSummaries", size))
    assert [len(page) for page in split[:-1]] == [size] * (len(split) - 1)
    assert [summary["Name"] for page in split for summary in page] == SEEDED
    assert len(split) == -(-3 // size)


def test_a_page_of_products_counts_all_that_were_found(aws: Aws) -> None:
    aws.product("added", EMPTY)
    aggregations = aws.catalog.search_products(PageSize=1)["ProductViewAggregations"]
    assert aggregations == {
        "ProductType": [{"Value": "CLOUD_FORMATION_TEMPLATE", "ApproximateCount": 4}],
        "Owner": [
            {"Value": "servicecatalog-grpc", "ApproximateCount": 3},
            {"Value": "tests", "ApproximateCount": 1},
        ],
    }


def test_a_product_without_a_path_is_not_found_and_one_with_two_has_no_default_path(aws: Aws) -> None:
    lonely = aws.product("lonely", EMPTY, associated=False)
    assert "lonely" not in found(aws)
    with refused(NOT_FOUND, f"No launch paths found for resource: {lonely}"):
        aws.catalog.list_launch_paths(ProductId=lonely)
    forked = aws.product("forked", EMPTY)
    assert aws.catalog.describe_product(Id=forked)["ProductViewSummary"]["HasDefaultPath"] is True
    portfolio = aws.catalog.create_portfolio(
        DisplayName="other", ProviderName="tests", Tags=[{"Key": "team", "Value": "blue"}]
    )
    aws.catalog.associate_product_with_portfolio(ProductId=forked, PortfolioId=portfolio["PortfolioDetail"]["Id"])
    assert aws.catalog.describe_product(Id=forked)["ProductViewSummary"]["HasDefaultPath"] is False
    paths = [
        path
        for page in pages(aws.catalog.list_launch_paths, "LaunchPathSummaries", 1, ProductId=forked)
        for path in page
    ]
    assert [(path["Name"], path["Tags"]) for path in paths] == [
        ("sandbox", []),
        ("other", [{"Key": "team", "Value": "blue"}]),
    ]
    assert aws.catalog.describe_product(Id=forked)["LaunchPaths"] == [
        {"Id": path["Id"], "Name": path["Name"]} for path in paths
    ]
    request = {"ProductId": forked, "ProvisioningArtifactName": "v1"}
    with refused(INVALID, "more than one launch path"):
        aws.catalog.describe_provisioning_parameters(**request)
    assert aws.catalog.describe_provisioning_parameters(**request, PathId=paths[1]["Id"])


DECLARED: dict[str, Any] = {
    "AWSTemplateFormatVersion": "2010-09-09",
    "Parameters": {
        "Plain": {"Type": "String"},
        "Secret": {"Type": "String", "NoEcho": True, "Default": "", "MinLength": 0, "MaxLength": 64},
        "Count": {"Type": "Number", "Default": 3, "MinValue": 1, "MaxValue": 10, "Description": "How many"},
        "Size": {
            "Type": "String",
            "AllowedValues": ["small", "large", 7],
            "AllowedPattern": "[a-z]+",
            "ConstraintDescription": "must be a size",
        },
    },
    **EMPTY,
    "Outputs": {
        "Name": {"Value": {"Ref": "Bucket"}, "Description": "The bucket's name"},
        "Arn": {"Value": {"Fn::GetAtt": ["Bucket", "Arn"]}},
    },
}
YAML = """
AWSTemplateFormatVersion: 2010-09-09
Parameters:
  Plain: {Type: String}
  Secret: {Type: String, NoEcho: true, Default: '', MinLength: 0, MaxLength: 64}
  Count: {Type: Number, Default: 3, MinValue: 1, MaxValue: 10, Description: How many}
  Size:
    Type: String
    AllowedValues: [small, large, 7]
    AllowedPattern: '[a-z]+'
    ConstraintDescription: must be a size
Resources:
  Bucket: {Type: AWS::S3::Bucket}
Outputs:
  Name: {Value: !Ref Bucket, Description: The bucket's name}
  Arn: {Value: !GetAtt Bucket.Arn}
"""


@pytest.mark.parametrize(
    "template", [json.dumps(DECLARED), json.dumps(DECLARED, indent="\t"), YAML], ids=["JSON", "tabs", "YAML"]
)
def test_parameters_and_outputs_are_those_of_the_template(aws: Aws, template: str) -> None:
    product_id = aws.product("declared", EMPTY)
    aws.s3.put_object(Bucket="sandbox-templates", Key="declared", Body=template)
    aws.catalog.create_provisioning_artifact(
        ProductId=product_id,
        Parameters={"Name": "full", "Info": {"LoadTemplateFromURL": f"{aws.url}/sandbox-templates/declared"}},
    )
    answer = aws.catalog.describe_provisioning_parameters(ProductName="declared", ProvisioningArtifactName="full")
    outputs = [{"Key": "Name", "Description": "The bucket's name"}, {"Key": "Arn", "Description": ""}]
    del answer["ResponseMetadata"]
    assert answer == {
        "ProvisioningArtifactParameters": [
            {
                "ParameterKey": "Plain",
                "ParameterType": "String",
                "IsNoEcho": False,
                "Description": "",
                "ParameterConstraints": {"AllowedValues": []},
            },
            {
                "ParameterKey": "Secret",
                "DefaultValue": "",
                "ParameterType": "String",
                "IsNoEcho": True,
                "Description": "",
                "ParameterConstraints": {"AllowedValues": [], "MinLength": "0", "MaxLength": "64"},
            },
            {
                "ParameterKey": "Count",
                "DefaultValue": "3",
                "ParameterType": "Number",
                "IsNoEcho": False,
                "Description": "How many",
                "ParameterConstraints": {"AllowedValues": [], "MinValue": "1", "MaxValue": "10"},
            },
            {
                "ParameterKey": "Size",
                "ParameterType": "String",
                "IsNoEcho": False,
                "Description": "",
                "ParameterConstraints": {
                    "AllowedValues": ["small", "large", "7"],
                    "AllowedPattern": "[a-z]+",
                    "ConstraintDescription": "must be a size",
                },
            },
        ],
        "ConstraintSummaries": [],
        "UsageInstructions": [{"Type": "version", "Value": "2010-09-09"}],
        "TagOptions": [],
        "ProvisioningArtifactOutputs": outputs,
        "ProvisioningArtifactOutputKeys": outputs,
    }


def test_provisioned_products_are_sorted_paged_and_counted(aws: Aws) -> None:
    records = {product: aws.provisioned(name=product)["RecordDetail"] for product in ("b", "c", "a")}
    for sort_by, key in (
        ("name", "ProvisionedProductName"),
        ("id", "ProvisionedProductId"),
        ("lastRecordId", "RecordId"),
    ):
        in_order = [record["ProvisionedProductName"] for record in sorted(records.values(), key=lambda each: each[key])]
        assert provisioned_names(aws, SortBy=sort_by) == in_order
        assert provisioned_names(aws, SortBy=sort_by, SortOrder="DESCENDING") == in_order[::-1]
    assert provisioned_names(aws, SortBy="arn") == ["a", "b", "c"]
    assert provisioned_names(aws) == ["b", "c", "a"]
    split = pages(aws.catalog.search_provisioned_products, "ProvisionedProducts", 2, SortBy="name")
    assert [[product["Name"] for product in page] for page in split] == [["a", "b"], ["c"]]
    assert aws.catalog.search_provisioned_products(PageSize=1)["TotalResultsCount"] == 3


def test_what_another_owns_is_seen_by_the_account_only(aws: Aws) -> None:
    mine = aws.provisioned(name="mine")["RecordDetail"]
    given = aws.provisioned(name="given")["RecordDetail"]
    change = aws.catalog.update_provisioned_product_properties(
        ProvisionedProductId=given["ProvisionedProductId"], ProvisionedProductProperties={"OWNER": OWNER}
    )
    later = aws.update("given")["RecordDetail"]

    def history(**request: Any) -> list[str]:
        return [record["RecordId"] for record in aws.catalog.list_record_history(**request)["RecordDetails"]]

    before = [change["RecordId"], given["RecordId"], mine["RecordId"]]
    assert provisioned_names(aws) == ["mine", "given"]
    assert history() == before
    for key in ("Role", "User"):
        level = {"Key": key, "Value": "self"}
        assert provisioned_names(aws, AccessLevelFilter=level) == ["mine"]
        assert history(AccessLevelFilter=level) == before
    account = {"Key": "Account", "Value": "self"}
    assert provisioned_names(aws, AccessLevelFilter=account) == ["mine", "given"]
    assert history(AccessLevelFilter=account) == [later["RecordId"], *before]


def test_the_history_is_filtered_paged_and_outlives_its_product(aws: Aws) -> None:
    first = aws.provisioned(name="first")["RecordDetail"]
    updated = aws.update("first")["RecordDetail"]
    other = aws.provisioned("sqs-queue", "other", ProvisioningParameters=parameters(QueueName="q"))["RecordDetail"]
    terminated = aws.ended(aws.catalog.terminate_provisioned_product(ProvisionedProductName="first")["RecordDetail"])
    latest_first = [terminated["RecordDetail"], other, updated, first]
    assert aws.catalog.list_record_history()["RecordDetails"] == latest_first
    split = list(pages(aws.catalog.list_record_history, "RecordDetails", 3))
    assert split == [latest_first[:3], latest_first[3:]]
    paginated = aws.catalog.get_paginator("list_record_history").paginate(PaginationConfig={"PageSize": 1})
    assert paginated.build_full_result()["RecordDetails"] == latest_first
    for key, value, wanted in (
        ("provisionedproduct", first["ProvisionedProductId"], [terminated["RecordDetail"], updated, first]),
        ("product", other["ProductId"], [other]),
        ("product", "prod-x", []),
    ):
        answer = aws.catalog.list_record_history(SearchFilter={"Key": key, "Value": value})
        assert answer["RecordDetails"] == wanted


def test_outputs_are_those_of_the_last_success(aws: Aws) -> None:
    def outputs(**request: Any) -> dict[str, str]:
        answer = aws.catalog.get_provisioned_product_outputs(ProvisionedProductName="mine", **request)["Outputs"]
        return {output["OutputKey"]: output["OutputValue"] for output in answer}

    missing = refused(INVALID, "Last Successful Provisioning Record doesn't exist")
    record = aws.provision()
    with missing:
        outputs()
    described = aws.ended(record)
    (stack,) = aws.cloudformation.describe_stacks()["Stacks"]
    assert outputs() == {
        "CloudformationStackARN": stack["StackId"],
        **{output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]},
    }
    by_id = {"ProvisionedProductId": record["ProvisionedProductId"]}
    assert aws.catalog.get_provisioned_product_outputs(**by_id)["Outputs"] == described["RecordOutputs"]
    assert outputs(OutputKeys=["BucketArn"]) == {"BucketArn": "arn:aws:s3:::mine-bucket"}
    assert outputs(OutputKeys=["BucketArn", "Nope", "BucketName"]).keys() == {"BucketArn", "BucketName"}
    split = pages(aws.catalog.get_provisioned_product_outputs, "Outputs", 2, **by_id)
    assert [len(page) for page in split] == [2, 1]
    failed = aws.update(ProvisioningParameters=parameters(BucketName="sandbox-templates"))
    assert failed["RecordDetail"]["Status"] == "FAILED"
    assert outputs()["BucketName"] == "mine-bucket"
    aws.update(ProvisioningParameters=parameters(BucketName="other-bucket"))
    assert outputs()["BucketName"] == "other-bucket"


def test_a_product_that_never_ran_has_no_outputs(aws: Aws) -> None:
    aws.provisioned("always-fails", ProvisioningParameters=[])
    with refused(INVALID, "Last Successful Provisioning Record doesn't exist"):
        aws.catalog.get_provisioned_product_outputs(ProvisionedProductName="mine")


def test_the_outputs_of_a_record_come_in_pages(aws: Aws) -> None:
    keys = [f"Output{number}" for number in range(44)]
    aws.product("many", {**EMPTY, "Outputs": {key: {"Value": {"Ref": "Bucket"}} for key in keys}})
    record = aws.provisioned("many", ProvisioningParameters=[])["RecordDetail"]
    described = list(pages(aws.catalog.describe_record, "RecordOutputs", 20, Id=record["RecordId"]))
    assert [len(page) for page in described] == [20, 20, 5]
    assert [output["OutputKey"] for page in described for output in page] == ["CloudformationStackARN", *keys]
    for default in ({}, {"PageSize": 0}):
        assert len(aws.catalog.describe_record(Id=record["RecordId"], **default)["RecordOutputs"]) == 20
    assert aws.catalog.describe_record(Id=record["RecordId"], PageToken="from-40")["RecordDetail"] == record


@pytest.mark.parametrize(
    ("operation", "request_", "code", "message"),
    [
        ("search_products", {"Filters": {"Nope": ["x"]}}, INVALID, "Filters has no Nope"),
        ("search_products", {"SortBy": "Nope"}, INVALID, "SortBy has no Nope"),
        ("search_products", {"PageToken": "nope"}, INVALID, "PageToken"),
        ("describe_product", {}, INVALID, "Id or Name; neither"),
        ("describe_product", {"Id": "prod-x", "Name": "x"}, INVALID, "Id or Name; both"),
        ("describe_product", {"Id": "prod-x"}, NOT_FOUND, "Product prod-x not found"),
        ("describe_product", {"Name": "nope"}, NOT_FOUND, "Product nope not found"),
        ("list_launch_paths", {"ProductId": "prod-x"}, NOT_FOUND, "Product prod-x not found"),
        ("describe_provisioning_parameters", {}, INVALID, "ProductId or ProductName; neither"),
        (
            "describe_provisioning_parameters",
            {"ProductName": "s3-bucket"},
            INVALID,
            "ProvisioningArtifactName; neither",
        ),
        (
            "describe_provisioning_parameters",
            {"ProductName": "s3-bucket", "ProvisioningArtifactName": "v9"},
            NOT_FOUND,
            "Provisioning artifact v9",
        ),
        (
            "describe_provisioning_parameters",
            {"ProductName": "s3-bucket", "ProvisioningArtifactName": "v1", "PathName": "nope"},
            NOT_FOUND,
            "Launch path nope",
        ),
        ("describe_provisioned_product", {}, INVALID, "Id or Name; neither"),
        ("describe_provisioned_product", {"Name": "nope"}, NOT_FOUND, "Provisioned product nope not found"),
        ("search_provisioned_products", {"SortBy": "status"}, INVALID, "SortBy has no status"),
        ("search_provisioned_products", {"AccessLevelFilter": {"Value": "ann"}}, INVALID, "self only"),
        ("search_provisioned_products", {"PageToken": "from-"}, INVALID, "PageToken"),
        ("get_provisioned_product_outputs", {}, INVALID, "ProvisionedProductName; neither"),
        ("get_provisioned_product_outputs", {"ProvisionedProductId": "pp-x"}, NOT_FOUND, "product pp-x not found"),
        ("list_record_history", {"SearchFilter": {"Key": "nope", "Value": "x"}}, INVALID, "SearchFilter has no nope"),
        ("list_record_history", {"AccessLevelFilter": {"Key": "Role", "Value": "ann"}}, INVALID, "self only"),
        ("describe_record", {"Id": "rec-x", "PageToken": "x"}, NOT_FOUND, "Record rec-x not found"),
    ],
)
def test_a_question_is_refused(aws: Aws, operation: str, request_: dict[str, Any], code: str, message: str) -> None:
    with refused(code, message):
        getattr(aws.catalog, operation)(**request_)
