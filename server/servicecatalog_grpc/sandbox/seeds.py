"""The products that a sandbox starts with, made through AWS's API as any user would make them."""

import json
from contextlib import closing
from typing import Any

from servicecatalog_grpc.sandbox.aws import client

BUCKET = "sandbox-templates"
PORTFOLIO = "sandbox"

Template = dict[str, Any]


def _bucket(**properties: Any) -> Template:
    return {
        "Description": "An S3 bucket",
        "Parameters": {"BucketName": {"Type": "String", "Description": "The bucket's name"}},
        "Resources": {
            "Bucket": {
                "Type": "AWS::S3::Bucket",
                "Properties": {"BucketName": {"Ref": "BucketName"}, **properties},
            }
        },
        "Outputs": {
            "BucketName": {"Value": {"Ref": "Bucket"}},
            "BucketArn": {"Value": {"Fn::GetAtt": ["Bucket", "Arn"]}},
        },
    }


def _queue(**properties: Any) -> Template:
    return {
        "Description": "An SQS queue",
        "Parameters": {
            "QueueName": {"Type": "String", "Description": "The queue's name"},
            "VisibilityTimeout": {
                "Type": "Number",
                "Default": 30,
                "Description": "How long a received message stays hidden, in seconds",
            },
        },
        "Resources": {
            "Queue": {
                "Type": "AWS::SQS::Queue",
                "Properties": {
                    "QueueName": {"Ref": "QueueName"},
                    "VisibilityTimeout": {"Ref": "VisibilityTimeout"},
                    **properties,
                },
            }
        },
        "Outputs": {
            "QueueUrl": {"Value": {"Ref": "Queue"}},
            "QueueArn": {"Value": {"Fn::GetAtt": ["Queue", "Arn"]}},
        },
    }


# moto's buckets ignore versioning in a template, but not encryption.
_ENCRYPTION = {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}

_FAILING: Template = {
    "Description": "A bucket whose name is always taken, so that its stack always fails",
    "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}}},
}

PRODUCTS: dict[str, dict[str, Template]] = {
    "s3-bucket": {"v1": _bucket(), "v2": _bucket(BucketEncryption=_ENCRYPTION)},
    "sqs-queue": {"v1": _queue(), "v2": _queue(ReceiveMessageWaitTimeSeconds=20)},
    "always-fails": {"v1": _FAILING},
}


def seed(url: str) -> None:
    """Make the products in the sandbox at `url`."""
    with closing(client("s3", url)) as s3, closing(client("servicecatalog", url)) as catalog:
        s3.create_bucket(Bucket=BUCKET)
        portfolio = catalog.create_portfolio(DisplayName=PORTFOLIO, ProviderName="servicecatalog-grpc")
        for product, versions in PRODUCTS.items():
            artifacts = []
            for version, template in versions.items():
                key = f"{product}/{version}.json"
                s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(template, indent=2))
                artifacts.append(
                    {
                        "Name": version,
                        "Description": template["Description"],
                        "Type": "CLOUD_FORMATION_TEMPLATE",
                        "Info": {"LoadTemplateFromURL": f"https://{BUCKET}.s3.amazonaws.com/{key}"},
                    }
                )
            created = catalog.create_product(
                Name=product,
                Owner="servicecatalog-grpc",
                Description=artifacts[0]["Description"],
                ProductType="CLOUD_FORMATION_TEMPLATE",
                ProvisioningArtifactParameters=artifacts[0],
            )
            product_id = created["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
            for artifact in artifacts[1:]:
                catalog.create_provisioning_artifact(ProductId=product_id, Parameters=artifact)
            catalog.associate_product_with_portfolio(
                ProductId=product_id, PortfolioId=portfolio["PortfolioDetail"]["Id"]
            )
