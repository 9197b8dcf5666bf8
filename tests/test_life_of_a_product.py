"""The whole life of a provisioned product by stubs alone, and AWS's own answers beside the façade's."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import grpc
import pytest
from botocore import xform_name
from calls import operation_of, provision
from facade import Facade, environment
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sandbox_fixtures import Aws
from servicecatalog.v1 import catalog_service_pb2 as catalog
from servicecatalog.v1 import provisioned_product_service_pb2 as products
from servicecatalog.v1 import provisioning_service_pb2 as provisioning
from servicecatalog.v1 import record_service_pb2 as records
from servicecatalog.v1.provisioned_product_pb2 import ProvisionedProductStatus
from servicecatalog.v1.record_pb2 import RecordStatus
from status import Details
from stubs import Stubs

FINAL = {RecordStatus.RECORD_STATUS_SUCCEEDED, RecordStatus.RECORD_STATUS_FAILED}


class Life:
    """Stubs and boto3 on the same sandbox."""

    def __init__(self, stubs: Stubs, aws: Aws) -> None:
        self.stubs = stubs
        self.aws = aws

    def ask(self, request: Message) -> Any:
        """Return the answer to a question, after seeing that boto3 gets the same one from AWS."""
        response = getattr(self.stubs, operation_of(request))(request)
        asked: dict[str, Any] = {}
        for field, value in request.ListFields():
            asked["".join(part.capitalize() for part in field.name.split("_"))] = (
                {key: list(each.values) for key, each in value.items()} if field.name == "filters" else value
            )
        answer = getattr(self.aws.catalog, xform_name(operation_of(request)))(**asked)
        del answer["ResponseMetadata"]
        assert _plain(response) == _in_snake_case(answer)
        return response

    def ended(self, record_id: str) -> records.DescribeRecordResponse:
        """Describe the record until it has ended."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            described: records.DescribeRecordResponse = self.stubs.DescribeRecord(
                records.DescribeRecordRequest(id=record_id)
            )
            if described.record_detail.status in FINAL:
                return self.ask(records.DescribeRecordRequest(id=record_id))  # type: ignore[no-any-return]
            time.sleep(0.02)
        pytest.fail(f"the record has not ended: {described}")

    def provisioned(self, product: str, name: str, **values: str) -> records.DescribeRecordResponse:
        """Provision version v1 and return its record at the end."""
        request = provision(
            product_id=None,
            product_name=product,
            provisioning_artifact_id=None,
            provisioning_artifact_name="v1",
            provisioned_product_name=name,
            provisioning_parameters=[{"key": key, "value": value} for key, value in values.items()],
        )
        return self.ended(self.stubs.ProvisionProduct(request).record_detail.record_id)

    def updated(self, name: str, **values: str) -> records.DescribeRecordResponse:
        """Update to version v2 and return the record at the end."""
        request = provisioning.UpdateProvisionedProductRequest(
            provisioned_product_name=name, provisioning_artifact_name="v2"
        )
        for key, value in values.items():
            request.provisioning_parameters.add(key=key, value=value)
        return self.ended(self.stubs.UpdateProvisionedProduct(request).record_detail.record_id)

    def terminated(self, name: str) -> records.DescribeRecordResponse:
        """Terminate the provisioned product and return the record at the end."""
        request = products.TerminateProvisionedProductRequest(provisioned_product_name=name)
        return self.ended(self.stubs.TerminateProvisionedProduct(request).record_detail.record_id)

    def described(self, name: str) -> Any:
        return self.ask(products.DescribeProvisionedProductRequest(name=name)).provisioned_product_detail

    def outputs(self, name: str) -> dict[str, str]:
        answer = self.ask(products.GetProvisionedProductOutputsRequest(provisioned_product_name=name))
        return {output.output_key: output.output_value for output in answer.outputs}


def _plain(value: Any) -> Any:
    """Return a message as dicts and lists, with AWS's strings for enums, and without what is absent or empty."""
    if isinstance(value, Timestamp):
        return value.ToMicroseconds()
    if not isinstance(value, Message):
        return value
    result: dict[str, Any] = {}
    for field, content in value.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            result[field.name] = {key: [_plain(each) for each in entry.values] for key, entry in content.items()}
        elif field.is_repeated:
            result[field.name] = [_plain(each) for each in content]
        elif field.enum_type is not None:
            prefix = xform_name(field.enum_type.name).upper() + "_"
            result[field.name] = field.enum_type.values_by_number[content].name.removeprefix(prefix)
        else:
            result[field.name] = _plain(content)
    return {name: each for name, each in result.items() if each not in ("", {}, [])}


def _in_snake_case(value: Any) -> Any:
    """Return boto3's answer in the same form."""
    if isinstance(value, datetime):
        return round(value.timestamp() * 1_000_000)
    if isinstance(value, list):
        return [_in_snake_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    result = {
        xform_name(name): dict(_in_snake_entries(each)) if name == "ProductViewAggregations" else _in_snake_case(each)
        for name, each in value.items()
    }
    return {name: each for name, each in result.items() if each not in ("", {}, [], False, None)}


def _in_snake_entries(entries: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, each in entries.items():
        yield key, _in_snake_case(each)


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    arguments = ["--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--record-seconds", "0.2"]
    with (
        Facade("sandbox", *arguments, env=environment()) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        aws = Aws(facade.endpoint_url)
        yield Life(Stubs(channel), aws)
        aws.close()


def test_a_product_is_found_provisioned_updated_and_terminated(life: Life) -> None:
    search = catalog.SearchProductsRequest()
    search.filters["FullTextSearch"].values.append("bucket")
    found = life.ask(search)
    (product,) = (each for each in found.product_view_summaries if each.name == "s3-bucket")
    assert product.has_default_path

    described = life.ask(catalog.DescribeProductRequest(id=product.product_id))
    assert described == life.ask(catalog.DescribeProductRequest(name="s3-bucket"))
    artifacts = {artifact.name: artifact.id for artifact in described.provisioning_artifacts}
    (path,) = life.ask(catalog.ListLaunchPathsRequest(product_id=product.product_id)).launch_path_summaries
    assert described.launch_paths[0].id == path.id
    needed = life.ask(
        catalog.DescribeProvisioningParametersRequest(
            product_id=product.product_id, provisioning_artifact_id=artifacts["v1"], path_id=path.id
        )
    )
    (parameter,) = needed.provisioning_artifact_parameters
    assert not parameter.HasField("default_value")
    assert [output.key for output in needed.provisioning_artifact_outputs] == ["BucketName", "BucketArn"]

    begun = life.stubs.ProvisionProduct(
        provision(
            product_id=product.product_id,
            provisioning_artifact_id=artifacts["v1"],
            path_id=path.id,
            provisioned_product_name="whole",
            provisioning_parameters=[{"key": parameter.parameter_key, "value": "whole-bucket"}],
        )
    ).record_detail
    assert begun.status == RecordStatus.RECORD_STATUS_CREATED
    provisioned = life.ended(begun.record_id)
    assert provisioned.record_detail.status == RecordStatus.RECORD_STATUS_SUCCEEDED
    outputs = {output.output_key: output.output_value for output in provisioned.record_outputs}
    assert outputs["BucketArn"] == "arn:aws:s3:::whole-bucket"
    assert life.outputs("whole") == outputs
    assert "whole-bucket" in life.aws.buckets()

    query = products.SearchProvisionedProductsRequest(sort_by="name")
    query.filters["SearchQuery"].values.append("name:whole")
    (listed,) = life.ask(query).provisioned_products
    assert (listed.id, listed.product_name) == (begun.provisioned_product_id, "s3-bucket")
    assert listed.status == ProvisionedProductStatus.PROVISIONED_PRODUCT_STATUS_AVAILABLE
    assert life.described("whole").last_record_id == begun.record_id

    updated = life.updated("whole")
    assert updated.record_detail.status == RecordStatus.RECORD_STATUS_SUCCEEDED
    assert life.described("whole").provisioning_artifact_id == artifacts["v2"]

    terminated = life.terminated("whole")
    assert terminated.record_detail.status == RecordStatus.RECORD_STATUS_SUCCEEDED
    assert "whole-bucket" not in life.aws.buckets()
    for gone in (
        products.DescribeProvisionedProductRequest(name="whole"),
        products.GetProvisionedProductOutputsRequest(provisioned_product_name="whole"),
        products.TerminateProvisionedProductRequest(provisioned_product_id=begun.provisioned_product_id),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            life.ask(gone)
        details = Details(raised.value)
        assert (details.code, details.info.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")

    history = life.ask(records.ListRecordHistoryRequest())
    ours = [record for record in history.record_details if record.provisioned_product_name == "whole"]
    assert ours == [terminated.record_detail, updated.record_detail, provisioned.record_detail]


def test_a_product_that_fails_is_in_error_and_says_why(life: Life) -> None:
    failed = life.provisioned("always-fails", "broken")
    assert failed.record_detail.status == RecordStatus.RECORD_STATUS_FAILED
    (error,) = failed.record_detail.record_errors
    assert error.code == "BucketAlreadyExists"
    assert list(failed.record_outputs) == []
    product = life.described("broken")
    assert product.status == ProvisionedProductStatus.PROVISIONED_PRODUCT_STATUS_ERROR
    assert product.status_message == error.description
    assert product.last_successful_provisioning_record_id == ""
    with pytest.raises(grpc.RpcError) as raised:
        life.outputs("broken")
    details = Details(raised.value)
    assert (details.code, details.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PARAMETERS")
    assert life.terminated("broken").record_detail.status == RecordStatus.RECORD_STATUS_SUCCEEDED


def test_a_failed_update_taints_and_a_good_one_heals(life: Life) -> None:
    first = life.provisioned("s3-bucket", "tainted", BucketName="tainted-bucket")
    failed = life.updated("tainted", BucketName="sandbox-templates")
    assert failed.record_detail.status == RecordStatus.RECORD_STATUS_FAILED
    product = life.described("tainted")
    assert product.status == ProvisionedProductStatus.PROVISIONED_PRODUCT_STATUS_TAINTED
    assert product.last_record_id == failed.record_detail.record_id
    assert product.last_successful_provisioning_record_id == first.record_detail.record_id
    assert life.outputs("tainted")["BucketName"] == "tainted-bucket"
    query = products.SearchProvisionedProductsRequest()
    query.filters["SearchQuery"].values.append("status:TAINTED")
    assert [each.name for each in life.ask(query).provisioned_products] == ["tainted"]
    assert life.updated("tainted").record_detail.status == RecordStatus.RECORD_STATUS_SUCCEEDED
    assert life.described("tainted").status == ProvisionedProductStatus.PROVISIONED_PRODUCT_STATUS_AVAILABLE
    life.terminated("tainted")


def test_pages_lead_through_all_that_there_is(life: Life) -> None:
    first = life.ask(catalog.SearchProductsRequest(page_size=2))
    rest = life.ask(catalog.SearchProductsRequest(page_token=first.next_page_token))
    names = [product.name for page in (first, rest) for product in page.product_view_summaries]
    assert names[:3] == ["s3-bucket", "sqs-queue", "always-fails"]
    assert len(first.product_view_summaries) == 2
    assert rest.next_page_token == ""


def test_a_record_of_many_pages_is_one_answer(life: Life) -> None:
    outputs = {f"Output{number}": {"Value": {"Ref": "Bucket"}} for number in range(44)}
    template = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}, "Outputs": outputs}
    life.aws.product("many", template)
    record_id = life.stubs.ProvisionProduct(
        provision(
            product_id=None,
            product_name="many",
            provisioning_artifact_id=None,
            provisioning_artifact_name="v1",
            provisioned_product_name="many",
        )
    ).record_detail.record_id
    life.aws.ended({"RecordId": record_id})
    described = life.stubs.DescribeRecord(records.DescribeRecordRequest(id=record_id))
    assert [output.output_key for output in described.record_outputs] == ["CloudformationStackARN", *outputs]
