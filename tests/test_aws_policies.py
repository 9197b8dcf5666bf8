"""deploy/aws: policies that AWS would take, with the rights that the façade needs and no others."""

import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.policy_validation import IAMPolicyDocumentValidator, IAMTrustPolicyDocumentValidator
from servicecatalog_grpc.app import SERVICES
from servicecatalog_grpc.aws.session_names import session_name
from servicecatalog_grpc.policy.loading import load_policy
from servicecatalog_grpc.translation.pairing import pair_services

ROOT = Path(__file__).parent.parent
AWS = ROOT / "deploy" / "aws"
ASSUMING = {"sts:AssumeRole", "sts:SetSourceIdentity"}

# https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsservicecatalog.html: an action with a condition
# on one of these holds for what the caller has provisioned, or the callers of its role, or of its account.
LEVELS = {"servicecatalog:userLevel", "servicecatalog:roleLevel", "servicecatalog:accountLevel"}


def statements(document: Any) -> list[dict[str, Any]]:
    """Return the statements, each with a list of actions."""
    return [
        {**each, "Action": [each["Action"]] if isinstance(each["Action"], str) else each["Action"]} for each in document
    ]


def policy(name: str) -> list[dict[str, Any]]:
    return statements(json.loads((AWS / f"{name}.json").read_text())["Statement"])


def actions(of: list[dict[str, Any]]) -> list[str]:
    return [action for each in of for action in each["Action"]]


def by_level(of: list[dict[str, Any]]) -> set[str]:
    """Return the actions with a condition on whose provisioned products they are for."""
    return {
        action
        for each in of
        if LEVELS & each.get("Condition", {}).get("StringEquals", {}).keys()
        for action in each["Action"]
    }


@pytest.mark.parametrize("path", sorted(AWS.glob("*.json")), ids=lambda path: path.stem)
def test_aws_takes_the_document(path: Path) -> None:
    kind = IAMTrustPolicyDocumentValidator if "trust" in path.stem else IAMPolicyDocumentValidator
    kind(path.read_text()).validate()


def test_service_catalog_may_be_asked_for_what_the_contract_has_and_nothing_else() -> None:
    operations, _ = pair_services(SERVICES, botocore.session.get_session().get_service_model("servicecatalog"))
    needed = {f"servicecatalog:{operation.name}" for operation in operations.values()}
    granted = actions(policy("servicecatalog-policy"))
    assert sorted(granted) == sorted(needed)


def test_what_can_be_limited_to_what_the_role_has_provisioned_is() -> None:
    (managed,) = (
        json.loads(each["Document"]) if isinstance(each["Document"], str) else each["Document"]
        for name, each in json.loads(aws_managed_policies_data).items()
        if name == "AWSServiceCatalogEndUserFullAccess"
    )
    granted = policy("servicecatalog-policy")
    assert by_level(granted) == by_level(statements(managed["Statement"])) & set(actions(granted))


def test_a_caller_of_the_example_has_a_role_that_the_server_may_take_for_it_alone() -> None:
    (assuming,) = policy("assume-callers-policy")
    (trust,) = policy("caller-trust")
    entries = load_policy(ROOT / "deploy" / "kubernetes" / "example" / "policy.yaml").entries
    (entry,) = (each for each in entries if each.role)
    assert set(assuming["Action"]) == set(trust["Action"]) == ASSUMING
    assert entry.role.startswith(assuming["Resource"].removesuffix("*"))
    assert trust["Condition"] == {"StringEquals": {"sts:SourceIdentity": session_name(entry.identity.text)}}
