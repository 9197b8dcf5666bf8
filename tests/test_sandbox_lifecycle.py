"""A provisioned product from its first record to its last, and the real stack behind it."""

from typing import Any

import pytest
from sandbox_fixtures import Aws, aws, parameters, refused

__all__ = ["aws"]


def test_a_record_passes_through_created_and_in_progress(aws: Aws) -> None:
    created = aws.provision()
    assert created["Status"] == "CREATED"
    assert created["CreatedTime"] == created["UpdatedTime"]
    assert aws.described()["Status"] == "UNDER_CHANGE"
    seen = {created["UpdatedTime"]: "CREATED"}
    while (record := aws.catalog.describe_record(Id=created["RecordId"]))["RecordDetail"]["Status"] != "SUCCEEDED":
        assert record["RecordOutputs"] == []
        seen[record["RecordDetail"]["UpdatedTime"]] = record["RecordDetail"]["Status"]
    detail = record["RecordDetail"]
    seen[detail["UpdatedTime"]] = detail["Status"]
    assert list(seen.values()) == ["CREATED", "IN_PROGRESS", "SUCCEEDED"]
    assert list(seen) == sorted(seen)
    assert aws.described()["Status"] == "AVAILABLE"


def test_a_bucket_is_a_real_stack_with_a_real_bucket(aws: Aws) -> None:
    tags = [{"Key": "team", "Value": "blue"}]
    described = aws.provisioned(name="mine", Tags=tags)
    detail = described["RecordDetail"]
    product = aws.described()
    assert detail["RecordType"] == "PROVISION_PRODUCT"
    assert detail["ProvisionedProductType"] == "CFN_STACK"
    assert detail["RecordTags"] == tags
    assert detail["RecordErrors"] == []
    assert detail["ProvisionedProductId"] == product["Id"]
    assert detail["PathId"].startswith("lpv2-")
    assert product["LastSuccessfulProvisioningRecordId"] == detail["RecordId"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["RecordOutputs"]}
    assert outputs["BucketName"] == "mine-bucket"
    assert outputs["BucketArn"] == "arn:aws:s3:::mine-bucket"
    (stack,) = aws.cloudformation.describe_stacks(StackName=outputs["CloudformationStackARN"])["Stacks"]
    assert stack["StackName"] == f"SC-123456789012-{product['Id']}"
    assert stack["Tags"] == tags
    resources = aws.cloudformation.list_stack_resources(StackName=stack["StackName"])
    assert [
        (resource["ResourceType"], resource["PhysicalResourceId"]) for resource in resources["StackResourceSummaries"]
    ] == [("AWS::S3::Bucket", "mine-bucket")]
    assert "mine-bucket" in aws.buckets()


def test_a_queue_has_its_default_and_updates_keep_what_they_leave_out(aws: Aws) -> None:
    described = aws.provisioned("sqs-queue", ProvisioningParameters=parameters(QueueName="mine-queue"))
    assert described["RecordDetail"]["Status"] == "SUCCEEDED"
    url = aws.sqs.get_queue_url(QueueName="mine-queue")["QueueUrl"]

    def attributes() -> Any:
        return aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]

    assert attributes()["VisibilityTimeout"] == "30"
    aws.update(ProvisioningParameters=parameters(VisibilityTimeout="45"))
    assert attributes()["VisibilityTimeout"] == "45"
    assert attributes()["ReceiveMessageWaitTimeSeconds"] == "0"
    kept = [{"Key": "QueueName", "UsePreviousValue": True, "Value": "ignored"}]
    updated = aws.update(ProvisioningArtifactName="v2", ProvisioningParameters=kept)
    assert updated["RecordDetail"]["RecordType"] == "UPDATE_PROVISIONED_PRODUCT"
    assert attributes()["VisibilityTimeout"] == "45"
    assert attributes()["ReceiveMessageWaitTimeSeconds"] == "20"


def test_a_new_artifact_changes_the_bucket_in_place(aws: Aws) -> None:
    with refused("ServerSideEncryptionConfigurationNotFoundError", ""):
        first = aws.provisioned()["RecordDetail"]
        aws.s3.get_bucket_encryption(Bucket="mine-bucket")
    updated = aws.update(ProvisioningArtifactName="v2")["RecordDetail"]
    assert updated["Status"] == "SUCCEEDED"
    assert updated["ProvisioningArtifactId"] != first["ProvisioningArtifactId"]
    assert aws.described()["ProvisioningArtifactId"] == updated["ProvisioningArtifactId"]
    assert aws.s3.get_bucket_encryption(Bucket="mine-bucket")


def test_an_update_replaces_tags_only_if_it_has_some(aws: Aws) -> None:
    aws.provisioned(Tags=[{"Key": "team", "Value": "blue"}])
    assert aws.update()["RecordDetail"]["RecordTags"] == [{"Key": "team", "Value": "blue"}]
    tags = [{"Key": "stage", "Value": "test"}]
    updated = aws.update(Tags=tags)["RecordDetail"]
    assert (updated["Status"], updated["RecordTags"]) == ("SUCCEEDED", tags)
    (stack,) = aws.cloudformation.describe_stacks()["Stacks"]
    assert stack["Tags"] == tags


def test_an_update_can_change_the_product(aws: Aws) -> None:
    aws.provisioned()
    wanted = {"ProductName": "sqs-queue", "ProvisioningArtifactName": "v1"}
    updated = aws.update(**wanted, ProvisioningParameters=parameters(QueueName="q"))
    assert updated["RecordDetail"]["Status"] == "SUCCEEDED"
    assert "mine-bucket" not in aws.buckets()
    assert aws.sqs.get_queue_url(QueueName="q")


def test_a_failing_stack_ends_in_error_and_leaves_nothing(aws: Aws) -> None:
    failed = aws.provisioned("always-fails", ProvisioningParameters=[])
    detail = failed["RecordDetail"]
    assert detail["Status"] == "FAILED"
    assert failed["RecordOutputs"] == []
    (error,) = detail["RecordErrors"]
    assert error["Code"] == "BucketAlreadyExists"
    assert "not available" in error["Description"]
    product = aws.described()
    assert (product["Status"], product["StatusMessage"]) == ("ERROR", error["Description"])
    assert aws.cloudformation.describe_stacks()["Stacks"] == []
    assert aws.buckets() == {"sandbox-templates"}
    with refused("InvalidParametersException", "no running stack"):
        aws.update()


def test_a_failed_update_taints_and_the_stack_keeps_its_old_state(aws: Aws) -> None:
    first = aws.provisioned()["RecordDetail"]
    wanted = parameters(BucketName="sandbox-templates")
    failed = aws.update(ProvisioningArtifactName="v2", ProvisioningParameters=wanted)
    assert failed["RecordDetail"]["Status"] == "FAILED"
    assert failed["RecordDetail"]["RecordErrors"][0]["Code"] == "BucketAlreadyExists"
    product = aws.described()
    assert product["Status"] == "TAINTED"
    assert product["ProvisioningArtifactId"] == first["ProvisioningArtifactId"]
    (stack,) = aws.cloudformation.describe_stacks()["Stacks"]
    assert stack["Parameters"] == [{"ParameterKey": "BucketName", "ParameterValue": "mine-bucket"}]
    template = aws.cloudformation.get_template(StackName=stack["StackName"])["TemplateBody"]
    assert "BucketEncryption" not in str(template)
    assert aws.buckets() == {"sandbox-templates", "mine-bucket"}
    assert aws.update(ProvisioningArtifactName="v2")["RecordDetail"]["Status"] == "SUCCEEDED"
    assert aws.described()["Status"] == "AVAILABLE"


def test_a_failed_update_to_another_product_keeps_the_old_one_alive(aws: Aws) -> None:
    aws.provisioned()
    failed = aws.update(ProductName="always-fails", ProvisioningArtifactName="v1")
    assert failed["RecordDetail"]["Status"] == "FAILED"
    assert aws.described()["Status"] == "TAINTED"
    assert aws.buckets() == {"sandbox-templates", "mine-bucket"}
    assert aws.update(ProvisioningArtifactName="v2")["RecordDetail"]["Status"] == "SUCCEEDED"


@pytest.mark.parametrize("product", ["s3-bucket", "always-fails"])
def test_termination_removes_stack_and_product_and_frees_the_name(aws: Aws, product: str) -> None:
    wanted: dict[str, Any] = {} if product == "s3-bucket" else {"ProvisioningParameters": []}
    aws.provisioned(product, **wanted)
    terminated = aws.catalog.terminate_provisioned_product(ProvisionedProductName="mine")
    ended = aws.ended(terminated["RecordDetail"])["RecordDetail"]
    assert ended["Status"] == "SUCCEEDED"
    assert ended["RecordType"] == "TERMINATE_PROVISIONED_PRODUCT"
    with refused("ResourceNotFoundException", "Provisioned product mine not found"):
        aws.described()
    assert aws.cloudformation.describe_stacks()["Stacks"] == []
    assert aws.buckets() == {"sandbox-templates"}
    assert aws.provisioned()["RecordDetail"]["Status"] == "SUCCEEDED"


def test_termination_can_retain_the_stack(aws: Aws) -> None:
    aws.provisioned()
    terminated = aws.catalog.terminate_provisioned_product(ProvisionedProductName="mine", RetainPhysicalResources=True)
    assert aws.ended(terminated["RecordDetail"])["RecordDetail"]["Status"] == "SUCCEEDED"
    assert "mine-bucket" in aws.buckets()


def test_owner_and_launch_role_change_at_once(aws: Aws) -> None:
    provisioned = aws.provisioned()["RecordDetail"]
    wanted = {
        "OWNER": "arn:aws:iam::123456789012:user/alice",
        "LAUNCH_ROLE": "arn:aws:iam::123456789012:role/launch",
    }
    answer = aws.catalog.update_provisioned_product_properties(
        ProvisionedProductId=provisioned["ProvisionedProductId"],
        ProvisionedProductProperties=wanted,
    )
    assert answer["ProvisionedProductId"] == provisioned["ProvisionedProductId"]
    assert answer["ProvisionedProductProperties"] == wanted
    assert answer["Status"] == "SUCCEEDED"
    record = aws.catalog.describe_record(Id=answer["RecordId"])["RecordDetail"]
    assert record["LaunchRoleArn"] == wanted["LAUNCH_ROLE"]
    assert record["CreatedTime"] < record["UpdatedTime"]
    (found,) = aws.catalog.search_provisioned_products()["ProvisionedProducts"]
    assert found["UserArn"] == wanted["OWNER"]
    assert aws.described()["LaunchRoleArn"] == wanted["LAUNCH_ROLE"]


def test_a_search_finds_by_member_and_by_text(aws: Aws) -> None:
    aws.provisioned(name="first")
    aws.provisioned(name="second")

    def names(*queries: str) -> list[str]:
        filters = {"SearchQuery": list(queries)}
        answer = aws.catalog.search_provisioned_products(Filters=filters)
        assert answer["TotalResultsCount"] == len(answer["ProvisionedProducts"])
        return [product["Name"] for product in answer["ProvisionedProducts"]]

    assert names("status:AVAILABLE") == ["first", "second"]
    assert names("name:second") == ["second"]
    assert names("ProductName:s3-bucket", "first") == ["first"]
    assert names("name:third") == []


def test_an_added_product_is_described_and_provisioned_by_id(aws: Aws) -> None:
    template = {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}}}
    product_id = aws.product("added", template, template)
    described = aws.catalog.describe_product(Id=product_id)
    artifacts = described["ProvisioningArtifacts"]
    (path,) = described["LaunchPaths"]
    assert [artifact["Name"] for artifact in artifacts] == ["v1", "v2"]
    assert path["Name"] == "sandbox"
    record = aws.catalog.provision_product(
        ProductId=product_id,
        ProvisioningArtifactId=artifacts[1]["Id"],
        PathId=path["Id"],
        ProvisionedProductName="by-id",
    )["RecordDetail"]
    ended = aws.ended(record)["RecordDetail"]
    assert ended["Status"] == "SUCCEEDED"
    assert ended["ProductId"] == product_id
    assert ended["ProvisioningArtifactId"] == artifacts[1]["Id"]
    assert ended["PathId"] == path["Id"]


def test_a_product_created_again_with_its_token_keeps_its_one_artifact(aws: Aws) -> None:
    url = "https://s3.amazonaws.com/sandbox-templates/always-fails/v1.json"
    request = {
        "Name": "again",
        "Owner": "tests",
        "ProductType": "CLOUD_FORMATION_TEMPLATE",
        "ProvisioningArtifactParameters": {"Name": "v1", "Info": {"LoadTemplateFromURL": url}},
        "IdempotencyToken": "same",
    }
    first, second = (aws.catalog.create_product(**request) for _ in range(2))
    assert first["ProvisioningArtifactDetail"]["Id"] == second["ProvisioningArtifactDetail"]["Id"]
    described = aws.catalog.describe_product(Name="again")
    assert len(described["ProvisioningArtifacts"]) == 1
