"""Provisioned products and their records, as data and in AWS's shapes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from servicecatalog_grpc.sandbox.aws import ACCOUNT, REGION
from servicecatalog_grpc.sandbox.catalog import new_id
from servicecatalog_grpc.sandbox.stacks import Configuration

CALLER = f"arn:aws:sts::{ACCOUNT}:assumed-role/sandbox/sandbox"
"""The owner of whatever is provisioned: the sandbox does not tell its callers apart."""

PROVISION = "PROVISION_PRODUCT"
UPDATE = "UPDATE_PROVISIONED_PRODUCT"
TERMINATE = "TERMINATE_PROVISIONED_PRODUCT"

_TYPE = "CFN_STACK"
_TICK = timedelta(milliseconds=1)  # the finest difference of times that AWS's JSON shows


@dataclass
class ProvisionedProduct:
    """A provisioned product; `configuration` is what its stack has, or will have at first."""

    name: str
    token: str
    configuration: Configuration
    id: str = field(default_factory=lambda: new_id("pp"))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: str = "UNDER_CHANGE"
    status_message: str | None = None
    owner: str = CALLER
    launch_role: str | None = None
    last_record: str | None = None
    last_provisioning_record: str | None = None
    last_successful_provisioning_record: str | None = None

    @property
    def arn(self) -> str:
        """The ARN that AWS would give it."""
        return f"arn:aws:servicecatalog:{REGION}:{ACCOUNT}:stack/{self.name}/{self.id}"

    @property
    def stack_name(self) -> str:
        """The name of its CloudFormation stack."""
        return f"SC-{ACCOUNT}-{self.id}"

    def detail(self) -> dict[str, Any]:
        """Return AWS's `ProvisionedProductDetail`."""
        return {
            "Name": self.name,
            "Arn": self.arn,
            "Type": _TYPE,
            "Id": self.id,
            "Status": self.status,
            "StatusMessage": self.status_message,
            "CreatedTime": self.created,
            "IdempotencyToken": self.token,
            "LastRecordId": self.last_record,
            "LastProvisioningRecordId": self.last_provisioning_record,
            "LastSuccessfulProvisioningRecordId": self.last_successful_provisioning_record,
            "ProductId": self.configuration.product_id,
            "ProvisioningArtifactId": self.configuration.artifact.id,
            "LaunchRoleArn": self.launch_role,
        }

    def attribute(self) -> dict[str, Any]:
        """Return AWS's `ProvisionedProductAttribute`, the richer form that a search shows."""
        return self.detail() | {
            "Tags": _tags(self.configuration),
            "PhysicalId": self.stack_name,
            "ProductName": self.configuration.product_name,
            "ProvisioningArtifactName": self.configuration.artifact.name,
            "UserArn": self.owner,
            "UserArnSession": self.owner,
        }


@dataclass
class Record:
    """One request on a provisioned product and how far it has come."""

    type: str
    product: ProvisionedProduct
    configuration: Configuration
    id: str = field(default_factory=lambda: new_id("rec"))
    status: str = "CREATED"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = field(init=False)
    owner: str = field(init=False)
    errors: list[dict[str, str]] = field(default_factory=list)
    outputs: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start out with both times equal, as a record of whoever owns the product now."""
        self.updated = self.created
        self.owner = self.product.owner

    def advance(self, status: str) -> None:
        """Pass into `status`, at a time that can be told from the one before."""
        self.status = status
        self.updated = max(datetime.now(UTC), self.updated + _TICK)

    def detail(self) -> dict[str, Any]:
        """Return AWS's `RecordDetail`."""
        return {
            "RecordId": self.id,
            "ProvisionedProductName": self.product.name,
            "Status": self.status,
            "CreatedTime": self.created,
            "UpdatedTime": self.updated,
            "ProvisionedProductType": _TYPE,
            "RecordType": self.type,
            "ProvisionedProductId": self.product.id,
            "ProductId": self.configuration.product_id,
            "ProvisioningArtifactId": self.configuration.artifact.id,
            "PathId": self.configuration.path_id,
            "RecordErrors": self.errors,
            "RecordTags": _tags(self.configuration),
            "LaunchRoleArn": self.product.launch_role,
        }


def _tags(configuration: Configuration) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in configuration.tags]
