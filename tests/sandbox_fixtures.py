"""A started sandbox and short ways to use it, for the tests of the sandbox."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError
from servicecatalog_grpc.sandbox import Sandbox
from servicecatalog_grpc.sandbox.aws import client

RECORD_SECONDS = 0.1


class Aws:
    """Clients of a running sandbox and the calls that most tests make."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.catalog = client("servicecatalog", url)
        self.s3 = client("s3", url)
        self.sqs = client("sqs", url)
        self.cloudformation = client("cloudformation", url)

    def close(self) -> None:
        """Close the connections of the clients."""
        for each in (self.catalog, self.s3, self.sqs, self.cloudformation):
            each.close()

    def provision(self, product: str = "s3-bucket", name: str = "mine", **more: Any) -> Any:
        """Ask for a product and return the record at once."""
        request = {
            "ProductName": product,
            "ProvisioningArtifactName": "v1",
            "ProvisionedProductName": name,
            "ProvisioningParameters": parameters(BucketName=f"{name}-bucket"),
            **more,
        }
        return self.catalog.provision_product(**request)["RecordDetail"]

    def provisioned(self, product: str = "s3-bucket", name: str = "mine", **more: Any) -> Any:
        """Provision a product and return the answer of DescribeRecord at its end."""
        return self.ended(self.provision(product, name, **more))

    def update(self, name: str = "mine", **more: Any) -> Any:
        """Update a product and return the answer of DescribeRecord at its end."""
        request = {"ProvisionedProductName": name, **more}
        return self.ended(self.catalog.update_provisioned_product(**request)["RecordDetail"])

    def ended(self, record: Any) -> Any:
        """Wait for the end of a record and return the answer of DescribeRecord."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            described = self.catalog.describe_record(Id=record["RecordId"])
            if described["RecordDetail"]["Status"] in {"SUCCEEDED", "FAILED"}:
                return described
            time.sleep(0.01)
        pytest.fail(f"the record has not ended: {described}")

    def described(self, name: str = "mine") -> Any:
        """Return a provisioned product as DescribeProvisionedProduct shows it."""
        return self.catalog.describe_provisioned_product(Name=name)["ProvisionedProductDetail"]

    def buckets(self) -> set[str]:
        """Return the names of all buckets."""
        return {bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]}

    def product(self, name: str, *templates: Any, associated: bool = True) -> str:
        """Add a product, with artifacts v1, v2, … of the given templates, and return its id."""
        artifacts = []
        for number, template in enumerate(templates, 1):
            key = f"{name}/v{number}"
            self.s3.put_object(Bucket="sandbox-templates", Key=key, Body=json.dumps(template))
            url = f"{self.url}/sandbox-templates/{key}"
            artifacts.append({"Name": f"v{number}", "Info": {"LoadTemplateFromURL": url}})
        created = self.catalog.create_product(
            Name=name,
            Owner="tests",
            ProductType="CLOUD_FORMATION_TEMPLATE",
            ProvisioningArtifactParameters=artifacts[0],
        )
        product_id: str = created["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
        for artifact in artifacts[1:]:
            self.catalog.create_provisioning_artifact(ProductId=product_id, Parameters=artifact)
        if associated:
            portfolio_id = self.catalog.list_portfolios()["PortfolioDetails"][0]["Id"]
            self.catalog.associate_product_with_portfolio(ProductId=product_id, PortfolioId=portfolio_id)
        return product_id


def parameters(**values: str) -> list[dict[str, str]]:
    """Return AWS's list of parameters."""
    return [{"Key": key, "Value": value} for key, value in values.items()]


def refused(code: str, message: str) -> Any:
    """Expect AWS's error `code` with a message that matches `message`."""
    return pytest.raises(ClientError, match=rf"\({code}\).*{message}")


@contextmanager
def _running() -> Iterator[Aws]:
    with (
        Sandbox(port=0, record_seconds=RECORD_SECONDS) as sandbox,
        closing(Aws(sandbox.url)) as clients,
    ):
        yield clients


@pytest.fixture
def aws() -> Iterator[Aws]:
    """A sandbox of its own for each test."""
    with _running() as clients:
        yield clients


@pytest.fixture(scope="module")
def shared() -> Iterator[Aws]:
    """One sandbox for all tests of a module, which then must not use `aws` too."""
    with _running() as clients:
        yield clients


@pytest.fixture
def name() -> str:
    """A name for a provisioned product that no other test has."""
    return f"mine-{next(_numbers)}"


_numbers = count()
