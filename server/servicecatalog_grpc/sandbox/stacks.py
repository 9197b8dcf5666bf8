"""The CloudFormation stacks behind provisioned products."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from servicecatalog_grpc.sandbox.catalog import Artifact

Tags = tuple[tuple[str, str], ...]


class StackError(Exception):
    """CloudFormation refused or failed; `code` is what it called the failure."""

    def __init__(self, error: BotoCoreError | ClientError) -> None:
        """Take code and message over from what boto3 raised."""
        answer = getattr(error, "response", {}).get("Error", {})
        super().__init__(answer.get("Message") or str(error))
        self.code: str = answer.get("Code") or type(error).__name__


@dataclass(frozen=True)
class Configuration:
    """What a provisioned product is, or is asked to become."""

    product_id: str
    product_name: str
    artifact: Artifact
    path_id: str
    parameters: Mapping[str, str]
    tags: Tags
    notification_arns: tuple[str, ...]


class Stacks:
    """Creates, changes and deletes stacks through CloudFormation's API; every method may block.

    Each raises StackError, and has then undone what it had begun as far as CloudFormation lets it.
    """

    def __init__(self, cloudformation: Any) -> None:
        """Drive `cloudformation`."""
        self._client = cloudformation

    def create(self, name: str, wanted: Configuration) -> None:
        """Create a stack."""
        try:
            self._client.create_stack(
                StackName=name,
                TemplateBody=wanted.artifact.template,
                Parameters=_parameters(wanted),
                Tags=_tags(wanted),
                NotificationARNs=list(wanted.notification_arns),
            )
        except (BotoCoreError, ClientError) as error:
            # moto keeps a failed stack, and what it had made so far, under CREATE_IN_PROGRESS.
            with suppress(StackError):
                self.delete(name)
            raise StackError(error) from error

    def update(self, name: str, current: Configuration, wanted: Configuration) -> None:
        """Change a stack from one configuration to another."""
        try:
            self._update(name, current, wanted)
        except (BotoCoreError, ClientError) as error:
            # moto does not roll back, and has already taken the new template for its own.
            self._restore(name, current, wanted)
            raise StackError(error) from error

    def _restore(self, name: str, current: Configuration, wanted: Configuration) -> None:
        if wanted.product_id == current.product_id:
            with suppress(BotoCoreError, ClientError):
                self._update(name, wanted, current)
                return
        # Another product's template has other resources: moto has dropped the old ones and does not bring them back.
        with suppress(StackError):
            self.delete(name)
        with suppress(StackError):
            self.create(name, current)

    def _update(self, name: str, current: Configuration, wanted: Configuration) -> None:
        parameters = _parameters(wanted)
        if (current.artifact, current.parameters) == (wanted.artifact, wanted.parameters):
            # CloudFormation refuses "no updates", moto even if tags differ, unless none are sent.
            parameters = []
        self._client.update_stack(
            StackName=name,
            TemplateBody=wanted.artifact.template,
            Parameters=parameters,
            Tags=_tags(wanted),
        )

    def delete(self, name: str) -> None:
        """Delete a stack with its resources; one that does not exist is no error."""
        try:
            self._client.delete_stack(StackName=name)
        except (BotoCoreError, ClientError) as error:
            raise StackError(error) from error

    def outputs(self, name: str) -> list[dict[str, str]]:
        """Return the outputs of a stack as AWS's `RecordOutputs`."""
        try:
            stack = self._client.describe_stacks(StackName=name)["Stacks"][0]
        except (BotoCoreError, ClientError) as error:
            raise StackError(error) from error
        return [
            {
                "OutputKey": "CloudformationStackARN",
                "OutputValue": stack["StackId"],
                "Description": "The ARN of the launched Cloudformation Stack",
            },
            *(
                {
                    "OutputKey": output["OutputKey"],
                    "OutputValue": output["OutputValue"],
                    "Description": output.get("Description", ""),
                }
                for output in stack.get("Outputs", ())
            ),
        ]


def _parameters(wanted: Configuration) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in wanted.parameters.items()]


def _tags(wanted: Configuration) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in wanted.tags]
