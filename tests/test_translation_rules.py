"""The rules that stand only in AWS's prose, and how a request that breaks many rules is answered."""

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from calls import ANSWER, OWNER, forwarded, operation_of, properties, provision, refusal_of, refused, update
from facade import Facade
from google.protobuf.message import Message
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream

PREFERENCES = "provisioning_preferences"
TOLERANCE = "stack_set_failure_tolerance_count"
TOLERANCE_PERCENTAGE = "stack_set_failure_tolerance_percentage"
CONCURRENCY = "stack_set_max_concurrency_count"
CONCURRENCY_PERCENTAGE = "stack_set_max_concurrency_percentage"

ALL = pytest.mark.parametrize("request_with", [provision, update, properties])
BOTH = pytest.mark.parametrize("request_with", [provision, update])


@ALL
@pytest.mark.parametrize("language", ["en", "jp", "zh"])
def test_the_languages_of_aws_are_taken(
    language: str, request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    body = forwarded(stub, upstream, request_with(accept_language=language)).body
    assert body["AcceptLanguage"] == language


@ALL
@pytest.mark.parametrize(
    "language", ["fr", "ja", "EN", "en-US", " en", "en ", "en\n", "e", "en,jp", "\uff45\uff4e"], ids=ascii
)
def test_another_language_is_refused(
    language: str, request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    refusal = refused(stub, upstream, request_with(accept_language=language))
    ((field, description),) = refusal.violations
    assert field == "accept_language"
    assert all(choice in description for choice in ("en", "jp", "zh"))


@pytest.mark.parametrize(
    ("incomplete", "field", "choices"),
    [
        (provision(product_id=None), "product", ("product_id", "product_name")),
        (
            provision(provisioning_artifact_id=None),
            "provisioning_artifact",
            ("provisioning_artifact_id", "provisioning_artifact_name"),
        ),
        (
            update(provisioned_product_id=None),
            "provisioned_product",
            ("provisioned_product_id", "provisioned_product_name"),
        ),
        (
            update(provisioned_product_id=None, product_id="prod-1", provisioning_artifact_id="pa-1"),
            "provisioned_product",
            ("provisioned_product_id", "provisioned_product_name"),
        ),
    ],
)
def test_an_id_or_a_name_is_needed_and_both_are_offered(
    incomplete: Message, field: str, choices: tuple[str, str], stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    refusal = refused(stub, upstream, incomplete)
    assert refusal.fields == {field}
    assert all(choice in refusal.descriptions(field)[0] for choice in choices)


@pytest.mark.parametrize(
    "complete",
    [
        provision(product_id=None, product_name="s3-bucket"),
        provision(provisioning_artifact_id=None, provisioning_artifact_name="v1"),
        update(provisioned_product_id=None, provisioned_product_name="mine"),
        update(),
    ],
)
def test_either_of_an_id_and_a_name_is_enough(
    complete: Message, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    forwarded(stub, upstream, complete)


@BOTH
@pytest.mark.parametrize(
    "preferences",
    [
        {},
        {TOLERANCE: 0},
        {CONCURRENCY: 1},
        {TOLERANCE: 0, CONCURRENCY: 1},
        {TOLERANCE: 7, CONCURRENCY: 8},
        {TOLERANCE: 7, CONCURRENCY: 1},
        {TOLERANCE: 2147483647, CONCURRENCY: 2147483647},
        {TOLERANCE: 2147483646, CONCURRENCY: 2147483647},
        {TOLERANCE_PERCENTAGE: 0, CONCURRENCY: 2},
        {TOLERANCE_PERCENTAGE: 0, CONCURRENCY: 2147483647},
        {TOLERANCE: 0, CONCURRENCY_PERCENTAGE: 100},
        {TOLERANCE_PERCENTAGE: 0, CONCURRENCY_PERCENTAGE: 100},
    ],
    ids=str,
)
def test_preferences_that_agree_are_taken(
    preferences: dict[str, int], request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    body = forwarded(stub, upstream, request_with(provisioning_preferences=preferences)).body
    assert sorted(body["ProvisioningPreferences"].values()) == sorted(preferences.values())


@BOTH
@pytest.mark.parametrize(
    ("preferences", "names"),
    [
        ({TOLERANCE: 1, TOLERANCE_PERCENTAGE: 1}, (TOLERANCE_PERCENTAGE, TOLERANCE)),
        ({TOLERANCE: 0, TOLERANCE_PERCENTAGE: 0}, (TOLERANCE_PERCENTAGE, TOLERANCE)),
        ({TOLERANCE: 9, CONCURRENCY: 1, CONCURRENCY_PERCENTAGE: 1}, (CONCURRENCY_PERCENTAGE, CONCURRENCY)),
        ({CONCURRENCY: 2}, (CONCURRENCY, TOLERANCE)),
        ({TOLERANCE: 0, CONCURRENCY: 2}, (CONCURRENCY, TOLERANCE)),
        ({TOLERANCE: 7, CONCURRENCY: 9}, (CONCURRENCY, TOLERANCE)),
        ({TOLERANCE: 2147483645, CONCURRENCY: 2147483647}, (CONCURRENCY, TOLERANCE)),
    ],
    ids=str,
)
def test_preferences_that_contradict_each_other_are_refused(
    preferences: dict[str, int],
    names: tuple[str, str],
    request_with: Any,
    stub: ProvisioningServiceStub,
    upstream: Upstream,
) -> None:
    refusal = refused(stub, upstream, request_with(provisioning_preferences=preferences))
    ((field, description),) = refusal.violations
    assert field == f"{PREFERENCES}.{names[0]}"
    assert names[1] in description


@BOTH
def test_contradictions_of_both_kinds_are_named_at_once(
    request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    preferences = {TOLERANCE: 0, TOLERANCE_PERCENTAGE: 0, CONCURRENCY: 1, CONCURRENCY_PERCENTAGE: 1}
    assert refused(stub, upstream, request_with(provisioning_preferences=preferences)).fields == {
        f"{PREFERENCES}.{TOLERANCE_PERCENTAGE}",
        f"{PREFERENCES}.{CONCURRENCY_PERCENTAGE}",
    }


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
@pytest.mark.parametrize(
    ("key", "principal"),
    [
        ("OWNER", "iam::123456789012:user/ann"),
        ("OWNER", "iam::123456789012:user/division/team/ann"),
        ("OWNER", "iam::123456789012:user/ann+x=1,2.3@example.org_-"),
        ("OWNER", "iam::123456789012:role/blue"),
        ("OWNER", "iam::123456789012:role/division/team/blue"),
        (
            "OWNER",
            "iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_0123456789abcdef",
        ),
        ("OWNER", "sts::123456789012:assumed-role/blue/ann"),
        ("OWNER", "sts::123456789012:assumed-role/blue/ann@example.org"),
        ("LAUNCH_ROLE", "iam::123456789012:role/launch"),
        ("LAUNCH_ROLE", "iam::123456789012:role/service-role/launch"),
    ],
)
def test_a_property_takes_the_principals_of_its_key_in_every_partition(
    key: str, principal: str, partition: str, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    values = {key: f"arn:{partition}:{principal}"}
    body = forwarded(stub, upstream, properties(provisioned_product_properties=values)).body
    assert body["ProvisionedProductProperties"] == values


_NO_PRINCIPALS = [
    "",
    "ann",
    "arn:aws:iam::123456789012:root",
    "arn:aws:iam::123456789012:group/blue",
    "arn:aws:iam::123456789012:policy/blue",
    "arn:aws:iam::123456789012:instance-profile/blue",
    "arn:aws:iam::123456789012:saml-provider/blue",
    "arn:aws:iam::123456789012:role/",
    "arn:aws:iam::123456789012:role",
    "arn:aws:iam::123456789012:roles/blue",
    "arn:aws:iam::12345678901:role/blue",
    "arn:aws:iam::1234567890123:role/blue",
    "arn:aws:iam::12345678901a:role/blue",
    "arn:aws:iam:::role/blue",
    "arn:aws:iam::aws:role/blue",
    "arn:aws:iam:us-east-1:123456789012:role/blue",
    "arn:aws:iam::123456789012:role/blue\n",
    "arn:aws:iam::123456789012:role/blue ",
    " arn:aws:iam::123456789012:role/blue",
    "arn:aws:iam::123456789012:role/bl ue",
    "arn:aws:iam::123456789012:role/blue\narn:aws:iam::123456789012:role/blue",
    "arn:aws:sts::123456789012:role/blue",
    "arn:aws:sts::123456789012:federated-user/ann",
    "arn:gcp:iam::123456789012:role/blue",
    "arn:awsome:iam::123456789012:role/blue",
    "arn:aws:iam::123456789012:role//",
    "arn:aws:iam::123456789012:role/bl\0ue",
    "arn:aws:iam::123456789012:role/bl\u200bue",
    "ARN:aws:iam::123456789012:role/blue",
    "arn:aws:iam::12345678901\uff12:role/blue",
    "arn:aws:s3:::bucket",
]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("OWNER", value) for value in _NO_PRINCIPALS),
        *(("LAUNCH_ROLE", value) for value in _NO_PRINCIPALS),
        ("OWNER", "arn:aws:iam::123456789012:user/ann\n"),
        ("OWNER", "arn:aws:iam::123456789012:user/ann "),
        ("OWNER", "arn:aws:iam::123456789012:user/"),
        ("OWNER", "arn:aws:iam::12345678901:user/ann"),
        ("OWNER", "arn:aws:iam::123456789012:assumed-role/blue/ann"),
        ("OWNER", "arn:aws:sts::123456789012:user/ann"),
        ("OWNER", "arn:aws:sts::123456789012:assumed-role/blue"),
        ("OWNER", "arn:aws:sts::123456789012:assumed-role/blue/"),
        ("OWNER", "arn:aws:sts::123456789012:assumed-role/blue/ann\n"),
        ("OWNER", "arn:aws:sts::1234567890123:assumed-role/blue/ann"),
        ("OWNER", "arn:aws:sts::123456789012:assumed-role/blue/ann/more"),
        ("LAUNCH_ROLE", "arn:aws:iam::123456789012:user/ann"),
        ("LAUNCH_ROLE", "arn:aws:sts::123456789012:assumed-role/blue/ann"),
    ],
    ids=ascii,
)
def test_a_property_that_is_no_principal_of_its_key_is_refused(
    key: str, value: str, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    refusal = refused(stub, upstream, properties(provisioned_product_properties={key: value}))
    assert refusal.fields == {f'provisioned_product_properties["{key}"]'}


@BOTH
@pytest.mark.parametrize("field", ["product_name", "provisioning_artifact_name"])
def test_an_empty_name_names_nothing(
    field: str, request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    assert refused(stub, upstream, request_with(**{field: ""})).fields == {field}


def test_a_hostile_key_stays_within_its_quotes(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    refusal = refused(stub, upstream, properties(provisioned_product_properties={'a"]\n.tags': OWNER}))
    assert refusal.fields == {'provisioned_product_properties["a\\"]\\n.tags"]'}


def test_only_the_bad_one_of_two_properties_is_named(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    values = {"OWNER": OWNER, "LAUNCH_ROLE": OWNER}
    refusal = refused(stub, upstream, properties(provisioned_product_properties=values))
    assert refusal.fields == {'provisioned_product_properties["LAUNCH_ROLE"]'}


@pytest.mark.parametrize(
    ("bad", "fields"),
    [
        pytest.param(
            provision(
                accept_language="fr",
                product_id="no product",
                provisioning_artifact_id=None,
                path_name="",
                provisioned_product_name="-mine",
                provisioning_parameters=[{"key": "k" * 1001, "value": "v" * 4097}, {"value": "v"}],
                provisioning_preferences={
                    "stack_set_accounts": ["1"],
                    TOLERANCE: -1,
                    TOLERANCE_PERCENTAGE: 101,
                    CONCURRENCY: 0,
                    CONCURRENCY_PERCENTAGE: 0,
                },
                tags=[{"key": "a$", "value": "b$"}],
                notification_arns=["arn", *["arn:aws:sns:us-east-1:123456789012:t"] * 5],
                provision_token="-",
            ),
            {
                "accept_language",
                "product_id",
                "provisioning_artifact",
                "path_name",
                "provisioned_product_name",
                "provisioning_parameters[0].key",
                "provisioning_parameters[0].value",
                "provisioning_parameters[1].key",
                "provisioning_preferences.stack_set_accounts[0]",
                f"{PREFERENCES}.{TOLERANCE}",
                f"{PREFERENCES}.{TOLERANCE_PERCENTAGE}",
                f"{PREFERENCES}.{CONCURRENCY}",
                f"{PREFERENCES}.{CONCURRENCY_PERCENTAGE}",
                "tags[0].key",
                "tags[0].value",
                "notification_arns",
                "notification_arns[0]",
                "provision_token",
            },
            id="ProvisionProduct",
        ),
        pytest.param(
            update(
                accept_language="fr",
                provisioned_product_id=None,
                product_id="",
                provisioning_artifact_name="v" * 8193,
                path_id="a/b",
                provisioning_parameters=[{"use_previous_value": True}],
                provisioning_preferences={"stack_set_operation_type": 17, CONCURRENCY: 3},
                tags=[{"key": "a"}],
                update_token="t" * 129,
            ),
            {
                "accept_language",
                "provisioned_product",
                "product_id",
                "provisioning_artifact_name",
                "path_id",
                "provisioning_parameters[0].key",
                f"{PREFERENCES}.stack_set_operation_type",
                f"{PREFERENCES}.{CONCURRENCY}",
                "tags[0].value",
                "update_token",
            },
            id="UpdateProvisionedProduct",
        ),
        pytest.param(
            properties(
                accept_language="fr",
                provisioned_product_id=None,
                provisioned_product_properties={"OWNER": "ann", "LAUNCH_ROLE": OWNER, "COLOR": "blue"},
                idempotency_token="a b",
            ),
            {
                "accept_language",
                "provisioned_product_id",
                'provisioned_product_properties["OWNER"]',
                'provisioned_product_properties["LAUNCH_ROLE"]',
                'provisioned_product_properties["COLOR"]',
                "idempotency_token",
                "idempotency-key",
            },
            id="UpdateProvisionedProductProperties",
        ),
    ],
)
def test_all_violations_of_a_request_are_named_at_once(
    bad: Message, fields: set[str], stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    metadata = [("idempotency-key", "")] if "idempotency-key" in fields else []
    refusal = refused(stub, upstream, bad, metadata)
    assert refusal.fields == fields
    assert refusal.details.message.startswith("{}: {}".format(*refusal.violations[0]))
    assert f"(and {len(refusal.violations) - 1} more)" in refusal.details.message


@pytest.fixture(scope="module")
def strict_stub(facade: Facade) -> Iterator[ProvisioningServiceStub]:
    """A stub that takes trailers up to the 8 KiB of most gRPC clients, and not a byte more."""
    options = [("grpc.max_metadata_size", 8192), ("grpc.absolute_max_metadata_size", 8192)]
    with grpc.insecure_channel(facade.address, options=options) as channel:
        yield ProvisioningServiceStub(channel)


@pytest.mark.parametrize(
    ("bad", "count"),
    [
        pytest.param(provision(tags=[{}] * 3000), 1 + 2 * 3000, id="6001 short ones"),
        pytest.param(
            update(provisioning_preferences={"stack_set_accounts": ["1"] * 5000}), 5000, id="5000 bad accounts"
        ),
        pytest.param(
            # Each character of such a key takes four bytes, twelve where the status message is percent-encoded.
            properties(provisioned_product_properties={"\U0001f600" * 64 + str(n): OWNER for n in range(2000)}),
            1 + 2000,
            id="2001 with long names",
        ),
        pytest.param(
            properties(provisioned_product_properties={"\x00\n%" * 40 + str(n): OWNER for n in range(2000)}),
            1 + 2000,
            id="2001 with control characters in their names",
        ),
    ],
)
def test_thousands_of_violations_still_reach_the_client(
    bad: Message, count: int, strict_stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    upstream.behave(ANSWER)
    with pytest.raises(grpc.RpcError) as raised:
        getattr(strict_stub, operation_of(bad))(bad)
    refusal = refusal_of(raised.value)
    assert upstream.requests == []

    *listed, (field, note) = refusal.violations
    assert field == ""
    assert note.split()[0] == str(count - len(listed))
    assert len(listed) >= 9
    assert f"(and {count - 1} more)" in refusal.details.message
    assert refusal.details.size <= 4096
    assert _trailers_size(refusal.details.message, refusal.details.trailing) < 8192


def _trailers_size(message: str, trailing: dict[str, str | bytes]) -> int:
    """Return the size by which HTTP/2 counts, as a client in Java does (RFC 9113, 10.5.1)."""
    fields = {"grpc-status": "3", "grpc-message": quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")}
    for name, value in trailing.items():
        fields[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return sum(len(name) + len(value) + 32 for name, value in fields.items())


CANARY = "canary-7d1f9c"


@pytest.mark.parametrize(
    "bad",
    [
        provision(accept_language=CANARY),
        provision(product_id=f"{CANARY}/"),
        provision(product_id=CANARY * 10),
        provision(product_id=None, product_name=CANARY * 1000),
        provision(provisioning_artifact_id=f"{CANARY} "),
        provision(provisioning_artifact_id=None, provisioning_artifact_name=CANARY * 1000),
        provision(path_id=f"{CANARY}\n"),
        provision(path_name=CANARY * 10),
        provision(provisioned_product_name=f"-{CANARY}"),
        provision(provisioning_parameters=[{"key": CANARY * 100, "value": CANARY * 400}]),
        provision(provisioning_parameters=[{"value": CANARY}]),
        provision(provisioning_preferences={"stack_set_accounts": [CANARY]}),
        provision(tags=[{"key": f"{CANARY}$", "value": f"{CANARY}$"}]),
        provision(tags=[{"key": CANARY * 10, "value": CANARY * 20}]),
        provision(notification_arns=[CANARY, CANARY * 100]),
        provision(provision_token=f"-{CANARY}"),
        update(provisioned_product_id=None, provisioned_product_name=f"-{CANARY}"),
        update(update_token=CANARY * 10),
        properties(provisioned_product_id=f"{CANARY}."),
        properties(provisioned_product_properties={"OWNER": CANARY}),
        properties(provisioned_product_properties={"LAUNCH_ROLE": CANARY}),
        properties(provisioned_product_properties={"COLOR": CANARY * 100}),
        properties(idempotency_token=f"{CANARY}!"),
    ],
    ids=lambda bad: f"{operation_of(bad)}: {', '.join(field.name for field, _ in bad.ListFields())}",
)
def test_what_is_said_of_a_bad_value_never_quotes_it(
    bad: Message, stub: ProvisioningServiceStub, upstream: Upstream, facade: Facade
) -> None:
    refusal = refused(stub, upstream, bad)
    assert CANARY not in str(refusal.violations)
    assert CANARY not in refusal.details.message
    assert not any(CANARY in line for line in facade.log)
