"""What the sandbox refuses, with AWS's codes, and that a refusal changes nothing."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from sandbox_fixtures import Aws, name, parameters, refused, shared

__all__ = ["name", "shared"]

INVALID = "InvalidParametersException"
NOT_FOUND = "ResourceNotFoundException"
PROPERTIES = {"OWNER": "arn:aws:iam::123456789012:role/someone"}


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"ProductName": "nope"}, NOT_FOUND, "Product nope not found"),
        ({"ProductName": None, "ProductId": "prod-x"}, NOT_FOUND, "Product prod-x not found"),
        ({"ProductId": "prod-x"}, INVALID, "ProductId or ProductName; both"),
        ({"ProductName": None}, INVALID, "ProductId or ProductName; neither"),
        ({"ProvisioningArtifactName": "v9"}, NOT_FOUND, "Provisioning artifact v9 of"),
        (
            {"ProvisioningArtifactName": None, "ProvisioningArtifactId": "pa-x"},
            NOT_FOUND,
            "Provisioning artifact pa-x of",
        ),
        ({"ProvisioningArtifactName": None}, INVALID, "ProvisioningArtifactName; neither"),
        ({"ProvisioningArtifactId": "pa-x"}, INVALID, "ProvisioningArtifactName; both"),
        ({"PathId": "lpv2-x"}, NOT_FOUND, "Launch path lpv2-x of"),
        ({"PathName": "nope"}, NOT_FOUND, "Launch path nope of"),
        ({"PathId": "lpv2-x", "PathName": "sandbox"}, INVALID, "PathId or PathName; both"),
        ({"ProvisioningParameters": []}, INVALID, r"Parameters: \[BucketName\] must have values"),
        ({"ProvisioningParameters": parameters(Nope="1")}, INVALID, "Parameter Nope does not"),
        ({"ProvisioningParameters": [{"Key": "BucketName"}]}, INVALID, "Parameter BucketName must"),
    ],
)
def test_a_product_is_not_provisioned(shared: Aws, name: str, change: dict[str, Any], code: str, message: str) -> None:
    request = {
        "ProductName": "s3-bucket",
        "ProvisioningArtifactName": "v1",
        "ProvisionedProductName": name,
        "ProvisioningParameters": parameters(BucketName=f"{name}-bucket"),
        "ProvisionToken": name,
    }
    changed = {key: value for key, value in (request | change).items() if value is not None}
    with refused(code, message):
        shared.catalog.provision_product(**changed)
    with refused(NOT_FOUND, name):
        shared.described(name)
    # The refused request has not used up its token.
    assert shared.catalog.provision_product(**request)["RecordDetail"]["Status"] == "CREATED"


def test_a_product_without_portfolio_has_no_launch_path(shared: Aws) -> None:
    template = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}}
    product_id = shared.product("lonely", template, associated=False)
    with refused(NOT_FOUND, f"No launch paths found for resource: {product_id}"):
        shared.provision("lonely", ProvisioningParameters=[])


def test_two_launch_paths_have_to_be_told_apart(shared: Aws, name: str) -> None:
    template = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}}
    product_id = shared.product("forked", template)
    portfolio = shared.catalog.create_portfolio(DisplayName="other", ProviderName="tests")
    shared.catalog.associate_product_with_portfolio(
        ProductId=product_id, PortfolioId=portfolio["PortfolioDetail"]["Id"]
    )
    with refused(INVALID, "more than one launch path"):
        shared.provision("forked", name, ProvisioningParameters=[])
    chosen = shared.provision("forked", name, ProvisioningParameters=[], PathName="other")
    assert chosen["Status"] == "CREATED"


def test_a_name_in_use_is_refused(shared: Aws, name: str) -> None:
    shared.provision(name=name)
    with refused("DuplicateResourceException", f"named {name} already exists"):
        shared.provision(name=name)


def test_a_product_under_change_refuses_other_changes(shared: Aws, name: str) -> None:
    id_ = shared.provision(name=name)["ProvisionedProductId"]
    running = "Another PROVISION_PRODUCT operation is in progress"
    with refused(INVALID, running):
        shared.catalog.update_provisioned_product(ProvisionedProductId=id_)
    with refused(INVALID, running):
        shared.catalog.terminate_provisioned_product(ProvisionedProductId=id_)
    with refused("InvalidStateException", "UNDER_CHANGE"):
        shared.catalog.update_provisioned_product_properties(
            ProvisionedProductId=id_, ProvisionedProductProperties=PROPERTIES
        )


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({"ProvisioningArtifactName": "v9"}, NOT_FOUND, "artifact v9"),
        ({"ProductName": "nope"}, NOT_FOUND, "Product nope"),
        ({"ProductName": "sqs-queue"}, INVALID, "ProvisioningArtifactName; neither"),
        ({"PathName": "nope"}, NOT_FOUND, "Launch path nope"),
        ({"ProvisioningParameters": parameters(Nope="1")}, INVALID, "Parameter Nope"),
        ({"ProvisionedProductId": "pp-x"}, INVALID, "ProvisionedProductName; both"),
        (
            {
                "ProductName": "sqs-queue",
                "ProvisioningArtifactName": "v1",
                "ProvisioningParameters": [{"Key": "QueueName", "UsePreviousValue": True}],
            },
            INVALID,
            "QueueName has no previous value",
        ),
    ],
)
def test_an_update_is_refused_and_changes_nothing(
    shared: Aws, name: str, request_: dict[str, Any], code: str, message: str
) -> None:
    shared.provisioned(name=name)
    before = shared.described(name)
    with refused(code, message):
        shared.catalog.update_provisioned_product(ProvisionedProductName=name, **request_)
    assert shared.described(name) == before


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"OWNER": "alice"}, "property OWNER: alice"),
        ({"LAUNCH_ROLE": "arn:aws:iam::123456789012:user/alice"}, "property LAUNCH_ROLE"),
        (PROPERTIES | {"NOPE": "x"}, "property NOPE"),
    ],
)
def test_a_bad_property_is_refused_and_no_other_changes(
    shared: Aws, name: str, properties: dict[str, str], message: str
) -> None:
    id_ = shared.provisioned(name=name)["RecordDetail"]["ProvisionedProductId"]
    before = shared.catalog.search_provisioned_products()["ProvisionedProducts"]
    with refused(INVALID, message):
        shared.catalog.update_provisioned_product_properties(
            ProvisionedProductId=id_, ProvisionedProductProperties=properties
        )
    assert shared.catalog.search_provisioned_products()["ProvisionedProducts"] == before


def test_what_does_not_exist_is_named(shared: Aws) -> None:
    with refused(NOT_FOUND, "Record rec-x not found"):
        shared.catalog.describe_record(Id="rec-x")
    gone = "Provisioned product pp-x not found"
    with refused(NOT_FOUND, gone):
        shared.catalog.describe_provisioned_product(Id="pp-x")
    with refused(NOT_FOUND, gone):
        shared.catalog.update_provisioned_product(ProvisionedProductId="pp-x")
    with refused(NOT_FOUND, gone):
        shared.catalog.terminate_provisioned_product(ProvisionedProductId="pp-x")
    with refused(NOT_FOUND, gone):
        shared.catalog.update_provisioned_product_properties(
            ProvisionedProductId="pp-x", ProvisionedProductProperties=PROPERTIES
        )
    with refused(NOT_FOUND, "Portfolio port-x"):
        product = shared.catalog.describe_product(Name="s3-bucket")["ProductViewSummary"]
        shared.catalog.associate_product_with_portfolio(ProductId=product["ProductId"], PortfolioId="port-x")


@pytest.mark.parametrize(
    ("template", "url"),
    [(None, "https://nope.s3.amazonshared.com/x"), ("no template", None)],
)
def test_an_artifact_needs_a_template(shared: Aws, template: Any, url: str | None) -> None:
    if template:
        shared.s3.put_object(Bucket="sandbox-templates", Key="bad", Body=template)
    info = {"LoadTemplateFromURL": url or f"{shared.url}/sandbox-templates/bad"}
    product = shared.catalog.describe_product(Name="s3-bucket")["ProductViewSummary"]
    with refused(INVALID, "Invalid template"):
        shared.catalog.create_provisioning_artifact(
            ProductId=product["ProductId"], Parameters={"Name": "bad", "Info": info}
        )
    assert len(shared.catalog.describe_product(Name="s3-bucket")["ProvisioningArtifacts"]) == 2


@pytest.mark.parametrize(
    ("operation", "body", "code"),
    [
        ("ProvisionProduct", b"{", "SerializationException"),
        ("ProvisionProduct", b"\xff", "SerializationException"),
        ("ProvisionProduct", b"[]", "ValidationException"),
        ("ProvisionProduct", b"{}", "ValidationException"),
        ("DescribeRecord", b'{"Id": 5}', "ValidationException"),
        ("DescribeRecord", b'{"Id": ""}', "ValidationException"),
        ("Nonsense", b"{}", "UnknownOperationException"),
        ("CallAction", b"{}", "UnknownOperationException"),
        ("ListBudgetsForResource", b"{}", "OperationNotSupportedException"),
    ],
)
def test_a_malformed_request_gets_an_error_of_aws(shared: Aws, operation: str, body: bytes, code: str) -> None:
    signed = AWSRequest(
        "POST",
        shared.url + "/",
        {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"AWS242ServiceCatalogService.{operation}",
        },
        body,
    )
    SigV4Auth(Credentials("x", "x"), "servicecatalog", "us-east-1").add_auth(signed)
    plain = urllib.request.Request(shared.url + "/", body, dict(signed.headers))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(plain)
    with caught.value as answer:
        assert answer.code == 400
        assert answer.headers["x-amzn-RequestId"]
        assert json.load(answer)["__type"] == code
