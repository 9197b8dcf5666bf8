"""Every limit of AWS's model holds before AWS is asked: the cases come from a walk through botocore's own model."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import botocore.session
import pytest
from botocore import xform_name
from botocore.model import ListShape, MapShape, Shape, StructureShape
from calls import OWNER, forwarded, properties, provision, refused, update
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream

MODEL = botocore.session.get_session().get_service_model("servicecatalog")

REQUESTS: Mapping[str, type[Message]] = {
    "ProvisionProduct": pb.ProvisionProductRequest,
    "UpdateProvisionedProduct": pb.UpdateProvisionedProductRequest,
    "UpdateProvisionedProductProperties": pb.UpdateProvisionedProductPropertiesRequest,
}
TOKENS = ("ProvisionToken", "UpdateToken", "IdempotencyToken")

# What AWS would take, by the names of AWS's shapes. What is not here has nothing but its tested member.
GOOD: Mapping[str, Any] = {
    "ProvisionProductInput": {
        "ProductId": "prod-1",
        "ProvisioningArtifactId": "pa-1",
        "ProvisionedProductName": "mine",
    },
    "UpdateProvisionedProductInput": {"ProvisionedProductId": "pp-1"},
    "UpdateProvisionedProductPropertiesInput": {
        "ProvisionedProductId": "pp-1",
        "ProvisionedProductProperties": {"OWNER": OWNER},
    },
    "Tag": {"Key": "team", "Value": "blue"},
    "ProvisioningParameter": {"Key": "BucketName", "Value": "logs"},
    "UpdateProvisioningParameter": {"Key": "BucketName", "Value": "logs"},
    "AccountId": "123456789012",
    "Region": "us-east-1",
    "NotificationArn": "arn:aws:sns:us-east-1:123456789012:events",
    "Id": "prod-1",
    "ProvisionedProductName": "mine",
    "ProvisionedProductNameOrArn": "mine",
    "TagKey": "team",
    "TagValue": "blue",
    "IdempotencyToken": "order-17",
}
# What a member cannot stand beside, and what it needs beside it.
EXCLUDES = {
    "ProductName": "ProductId",
    "ProvisioningArtifactName": "ProvisioningArtifactId",
    "ProvisionedProductName": "ProvisionedProductId",
}
NEEDS = {"StackSetMaxConcurrencyCount": {"StackSetFailureToleranceCount": 10}}

# Sizes within AWS's limits which another rule refuses all the same: a pattern, an enum, or AWS's prose.
NARROWER: Mapping[str, set[int]] = {
    "AcceptLanguage": {99, 100},
    "NotificationArn": {1, 2},
    "PropertyKey": {1, 2, 127, 128},
    "PropertyValue": {0, 1},
    "ProvisionedProductProperties": {99, 100},
}

ITEM, KEY, VALUE = "[2]", "{key}", "{value}"


class Spot(NamedTuple):
    """A place in a request, by the steps that lead there in AWS's names, and the shape of what stands there."""

    operation: str
    steps: tuple[str, ...]
    shape: Shape

    def __str__(self) -> str:
        return f"{self.operation}.{self.path('KEY')}"

    def path(self, key: str = "OWNER") -> str:
        """Return the protobuf path, which callers get."""
        path = ""
        for step in self.steps:
            if step == ITEM:
                path += step
            elif step in {KEY, VALUE}:
                path += f'["{key}"]'
            else:
                path += "." * bool(path) + xform_name(step)
        return path

    def members(self, value: Any) -> Any:
        """Return a request in AWS's names that is good but for the value in this place."""
        return _put(MODEL.operation_model(self.operation).input_shape, self.steps, value)

    def request(self, value: Any) -> Message:
        """Return the same as the request of the contract."""
        return ParseDict(_in_snake_case(self.members(value)), REQUESTS[self.operation]())


def _spots(operation: str, shape: Any, steps: tuple[str, ...] = ()) -> Iterator[Spot]:
    if steps:
        yield Spot(operation, steps, shape)
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            yield from _spots(operation, member, (*steps, name))
    elif isinstance(shape, ListShape):
        yield from _spots(operation, shape.member, (*steps, ITEM))
    elif isinstance(shape, MapShape):
        yield from _spots(operation, shape.key, (*steps, KEY))
        yield from _spots(operation, shape.value, (*steps, VALUE))


def _put(shape: Any, steps: Sequence[str], value: Any) -> Any:
    if not steps:
        return value
    step, *rest = steps
    if step == ITEM:
        return [GOOD[shape.member.name]] * 2 + [_put(shape.member, rest, value)]
    if step == KEY:
        return {value: OWNER}
    if step == VALUE:
        return {"OWNER": value}
    result = {**GOOD.get(shape.name, {}), **NEEDS.get(step, {}), step: _put(shape.members[step], rest, value)}
    result.pop(EXCLUDES.get(step), None)
    return result


def _in_snake_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            xform_name(name): member if name == "ProvisionedProductProperties" else _in_snake_case(member)
            for name, member in value.items()
        }
    return [_in_snake_case(item) for item in value] if isinstance(value, list) else value


SPOTS = [spot for operation in REQUESTS for spot in _spots(operation, MODEL.operation_model(operation).input_shape)]


def _bounds(shape: Shape) -> list[int]:
    return [shape.metadata[bound] for bound in ("min", "max") if bound in shape.metadata]


def _sizes(shape: Shape) -> list[int]:
    """Return one below, at and one above each bound, as far as there are such sizes."""
    smallest = -1 if shape.type_name == "integer" else 0
    return sorted({size for bound in _bounds(shape) for size in (bound - 1, bound, bound + 1) if size >= smallest})


def _of_size(shape: Any, size: int) -> Any:
    """Return a value of the size, good in every other respect as far as there is such a value."""
    if isinstance(shape, MapShape):
        keys = ["OWNER", "LAUNCH_ROLE", *(f"KEY_{number}" for number in range(2, size))]
        return dict.fromkeys(keys[:size], "arn:aws:iam::123456789012:role/blue")
    if isinstance(shape, ListShape):
        return [GOOD[shape.member.name]] * size
    if shape.type_name == "integer":
        return size
    if shape.name == "PropertyValue":
        return "arn:aws:iam::123456789012:role/".ljust(size, "r")[:size]
    if shape.name in {"NotificationArn", "ProvisionedProductNameOrArn"} and size > 128:
        # As long as an ARN can get in all parts but the account.
        return f"arn:{'p' * 63}:{'s' * 63}:{'r' * 63}:{'1' * (size - 1221)}:{'x' * 1024}"
    return "a" * size


def _path_at(spot: Spot, value: Any) -> str:
    if spot.steps[-1] != KEY:
        return spot.path()
    # A key that is too long to be of use is cut.
    return spot.path(value if len(value) <= 64 else value[:64] + "…")


def _at(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        value = value[2] if step == ITEM else value[{VALUE: "OWNER"}.get(step, step)]
    return value


def _cases() -> Iterator[tuple[Spot, int]]:
    for spot in SPOTS:
        for size in _sizes(spot.shape):
            # An empty token is none at all, which has a test of its own.
            if size or spot.steps[-1] not in TOKENS:
                yield spot, size


def _fits(spot: Spot, size: int) -> bool:
    limits = spot.shape.metadata
    return bool(limits.get("min", size) <= size <= limits.get("max", size))


def _rows(cases: Iterator[tuple[Spot, Any]]) -> list[Any]:
    return [pytest.param(spot, value, id=f"{spot}={ascii(value)[:40]}") for spot, value in cases]


def test_the_walk_finds_the_limits() -> None:
    limited = {str(spot) for spot in SPOTS if _bounds(spot.shape)}
    assert limited >= {
        "ProvisionProduct.tags",
        "ProvisionProduct.tags[2].key",
        "ProvisionProduct.notification_arns[2]",
        "ProvisionProduct.provision_token",
        "UpdateProvisionedProduct.provisioning_parameters[2].value",
        "UpdateProvisionedProduct.provisioning_preferences.stack_set_max_concurrency_percentage",
        'UpdateProvisionedProductProperties.provisioned_product_properties["KEY"]',
    }
    assert len(limited) >= 40


@pytest.mark.parametrize(
    ("spot", "size"),
    _rows(
        (spot, size) for spot, size in _cases() if _fits(spot, size) and size not in NARROWER.get(spot.shape.name, ())
    ),
)
def test_a_size_within_the_limits_reaches_aws(
    spot: Spot, size: int, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    value = _of_size(spot.shape, size)
    assert _at(forwarded(stub, upstream, spot.request(value)).body, spot.steps) == value


@pytest.mark.parametrize(("spot", "size"), _rows((spot, size) for spot, size in _cases() if not _fits(spot, size)))
def test_a_size_beyond_the_limits_is_refused(
    spot: Spot, size: int, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    value = _of_size(spot.shape, size)
    path = _path_at(spot, value)
    refusal = refused(stub, upstream, spot.request(value))
    if isinstance(spot.shape, MapShape) and size:
        assert path in refusal.fields  # beside each key that AWS does not know
    else:
        assert refusal.fields == {path}
    said = " ".join(refusal.descriptions(path))
    if size or said != "is required":  # which proto3 makes of most empty values
        assert {str(bound) for bound in _bounds(spot.shape)} <= set(re.findall(r"\d+", said))


@pytest.mark.parametrize(
    ("spot", "size"),
    _rows((spot, size) for spot, size in _cases() if _fits(spot, size) and size in NARROWER.get(spot.shape.name, ())),
)
def test_a_size_within_the_limits_is_not_what_another_rule_complains_of(
    spot: Spot, size: int, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    value = _of_size(spot.shape, size)
    refusal = refused(stub, upstream, spot.request(value))
    path = _path_at(spot, value)
    if isinstance(spot.shape, MapShape):
        assert path not in refusal.fields
    else:
        assert refusal.fields == {path}
        assert not any(re.search(r"\bcharacters\b", said) for said in refusal.descriptions(path))


@pytest.mark.parametrize("spot", [pytest.param(spot, id=str(spot)) for spot in SPOTS if spot.steps[-1] in TOKENS])
def test_an_empty_token_is_never_forwarded(spot: Spot, stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    call = forwarded(stub, upstream, spot.request(""))
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}", call.body[spot.steps[0]])
    assert call.token == call.body[spot.steps[0]]


@pytest.mark.parametrize(
    ("spot", "limit"),
    _rows(
        (spot, spot.shape.metadata["max"])
        for spot in SPOTS
        if spot.shape.type_name == "string"
        and {"max", "pattern", "enum"}.intersection(spot.shape.metadata) == {"max"}
        and spot.shape.name not in {"AcceptLanguage", "PropertyValue"}  # which take no such characters
    ),
)
def test_a_character_outside_the_bmp_counts_as_one(
    spot: Spot, limit: int, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    value = "\U0001f48e" * limit
    assert _at(forwarded(stub, upstream, spot.request(value)).body, spot.steps) == value
    refusal = refused(stub, upstream, spot.request(value + "\U0001f48e"))
    assert refusal.fields == {spot.path()}
    assert str(limit + 1) in refusal.descriptions(spot.path())[0]


def test_a_tag_counts_letters_outside_the_bmp_as_one_each(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    gothic = "\U00010330"
    tag = {"key": gothic * 128, "value": gothic * 256}
    assert forwarded(stub, upstream, provision(tags=[tag])).body["Tags"] == [{"Key": tag["key"], "Value": tag["value"]}]
    longer = {"key": gothic * 129, "value": gothic * 257}
    assert refused(stub, upstream, provision(tags=[longer])).fields == {"tags[0].key", "tags[0].value"}


PATTERNED = [spot for spot in SPOTS if "pattern" in spot.shape.metadata]


def test_the_walk_finds_the_patterns() -> None:
    assert {spot.shape.name for spot in PATTERNED} == {
        "Id",
        "ProvisionedProductName",
        "ProvisionedProductNameOrArn",
        "AccountId",
        "TagKey",
        "TagValue",
        "NotificationArn",
        "IdempotencyToken",
    }


@pytest.mark.parametrize("spot", [pytest.param(spot, id=str(spot)) for spot in PATTERNED])
@pytest.mark.parametrize("affix", ["{}\n", "\n{}", "{}\r\n", "{0}\n{0}", "{}\n\n"], ids=repr)
def test_a_pattern_matches_the_whole_value(
    affix: str, spot: Spot, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    good = GOOD[spot.shape.name]
    assert _at(forwarded(stub, upstream, spot.request(good)).body, spot.steps) == good
    assert refused(stub, upstream, spot.request(affix.format(good))).fields == {spot.path()}


_BAD_NAMES = [
    "bad name",
    " bad",
    "bad ",
    "-bad",
    ".bad",
    "_bad",
    "bad$",
    "$",
    "bad/",
    "b\u00e4d",
    "bad\u200b",
    "b\0d",
    "\U0001f600",
]
_BAD_ARNS = [
    "arn",
    "arn:aws:sns:us-east-1:123456789012",
    "arn:aws:sns:us-east-1:123456789012:",
    "arn:aws:sns:us-east-1:123456789012:/events",
    "arn::sns:us-east-1:123456789012:events",
    "arn:AWS:sns:us-east-1:123456789012:events",
    "arn:aws:s_n_s:us-east-1:123456789012:events",
    "arn:aws:sns:us east 1:123456789012:events",
    f"arn:{'a' * 64}:sns:us-east-1:123456789012:events",
    f"arn:aws:sns:us-east-1:123456789012:{'e' * 1025}",
    "ARN:aws:sns:us-east-1:123456789012:events",
    " arn:aws:sns:us-east-1:123456789012:events",
]
_BAD_TAGS = [
    "a,b",
    "a;b",
    "$",
    "a$",
    "<a>",
    "a&b",
    "a*",
    "\U0001f600",
    "a\u2764",
    "a\tb",
    "a\0",
    "a\x7f",
    "a\u200db",
    "e\u0301",
    "a\\",
]
BAD: Mapping[str, list[str]] = {
    "Id": ["a b", "a$", "$", "a.b", "a/b", "a:b", "\u00e4", "\uff11", "\u0430", "a\u200b", "a\0", "\U0001f600"],
    "ProvisionedProductName": _BAD_NAMES,
    "ProvisionedProductNameOrArn": [*_BAD_NAMES, "a" * 129, *_BAD_ARNS[1:]],
    "IdempotencyToken": ["-a", "_a", "a.b", "a b", "a$", "$", "a ", " a", "\u00e4", "a/b", "a+b=", "a\0", "\U0001f600"],
    "AccountId": [
        "",
        "12345678901",
        "1234567890123",
        "12345678901a",
        "1234-5678-9012",
        " 12345678901",
        "123456789012$",
        "12345678901\u0437",  # a Cyrillic letter that looks like a three
        "\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\uff10\uff11\uff12",  # fullwidth
        "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660\u0661\u0662",  # Arabic-Indic
    ],
    "NotificationArn": _BAD_ARNS,
    "TagKey": _BAD_TAGS,
    "TagValue": _BAD_TAGS,
}


@pytest.mark.parametrize(
    ("spot", "value"), _rows((spot, value) for spot in PATTERNED for value in BAD[spot.shape.name])
)
def test_a_value_that_breaks_the_pattern_is_refused(
    spot: Spot, value: str, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    assert refused(stub, upstream, spot.request(value)).fields == {spot.path()}


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "\u0433\u0440\u0443\u043f\u043f\u0430",  # Cyrillic
        "\u03bf\u03bc\u03ac\u03b4\u03b1",  # Greek
        "\u7d44\u7e54",  # Han
        "\u30c1\u30fc\u30e0",  # Katakana
        "\ud300",  # Hangul
        "\u0641\u0631\u064a\u0642",  # Arabic
        "\u05e6\u05d5\u05d5\u05ea",  # Hebrew
        "\U00010330\U00010331",  # Gothic, outside the BMP
        "\u0661\u0662\u0663",  # Arabic-Indic digits
        "\u216b\u00bd\u00b2",  # other numbers: Roman, fraction, superscript
        "a\u00a0b\u3000c d",  # separators: no-break, ideographic, plain
        "a_b.c:d/e=f+g-h@i",
        "-",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("member", ["key", "value"])
def test_a_tag_takes_letters_numbers_and_separators_of_any_script(
    member: str, text: str, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    tag = {"key": "team", "value": "blue", member: text}
    expected = [{"Key": tag["key"], "Value": tag["value"]}]
    for request in (provision(tags=[tag]), update(tags=[tag])):
        assert forwarded(stub, upstream, request).body["Tags"] == expected


@pytest.mark.parametrize("request_with", [provision, update])
def test_one_bad_account_among_good_ones_is_named_by_its_index(
    request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    accounts = [f"{number:012}" for number in range(1000)]
    accounts[417] = "41700000000"
    request = request_with(provisioning_preferences={"stack_set_accounts": accounts})
    assert refused(stub, upstream, request).fields == {"provisioning_preferences.stack_set_accounts[417]"}


@pytest.mark.parametrize("request_with", [provision, update])
def test_the_51st_tag_is_one_too_many_and_bad_tags_are_named_too(
    request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    tags = [{"key": f"key-{number}", "value": "v"} for number in range(51)]
    tags[50]["value"] = "bad$"
    assert refused(stub, upstream, request_with(tags=tags)).fields == {"tags", "tags[50].value"}


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        pytest.param(provision(product_id=None), {"product"}, id="no product"),
        pytest.param(provision(provisioning_artifact_id=None), {"provisioning_artifact"}, id="no artifact"),
        pytest.param(provision(provisioned_product_name=None), {"provisioned_product_name"}, id="no name"),
        pytest.param(
            pb.ProvisionProductRequest(),
            {"product", "provisioning_artifact", "provisioned_product_name"},
            id="an empty ProvisionProductRequest",
        ),
        pytest.param(
            pb.UpdateProvisionedProductRequest(), {"provisioned_product"}, id="an empty UpdateProvisionedProductRequest"
        ),
        pytest.param(properties(provisioned_product_id=None), {"provisioned_product_id"}, id="no id"),
        pytest.param(
            properties(provisioned_product_properties=None), {"provisioned_product_properties"}, id="no properties"
        ),
        pytest.param(
            pb.UpdateProvisionedProductPropertiesRequest(),
            {"provisioned_product_id", "provisioned_product_properties"},
            id="an empty UpdateProvisionedProductPropertiesRequest",
        ),
        pytest.param(provision(product_id=""), {"product_id"}, id="an empty product id"),
        pytest.param(provision(provisioning_artifact_id=""), {"provisioning_artifact_id"}, id="an empty artifact id"),
        pytest.param(provision(path_id=""), {"path_id"}, id="an empty path id"),
        pytest.param(provision(path_name=""), {"path_name"}, id="an empty path name"),
        pytest.param(update(product_id=""), {"product_id"}, id="an empty product id in an update"),
        pytest.param(
            update(provisioning_artifact_id=""), {"provisioning_artifact_id"}, id="an empty artifact id in an update"
        ),
        pytest.param(update(path_id=""), {"path_id"}, id="an empty path id in an update"),
        pytest.param(update(path_name=""), {"path_name"}, id="an empty path name in an update"),
        pytest.param(update(provisioned_product_id=""), {"provisioned_product_id"}, id="an empty provisioned id"),
        pytest.param(
            update(provisioned_product_id=None, provisioned_product_name=""),
            {"provisioned_product_name"},
            id="an empty provisioned name",
        ),
        pytest.param(
            provision(tags=[{"key": "a", "value": "b"}, {}]), {"tags[1].key", "tags[1].value"}, id="an empty tag"
        ),
        pytest.param(
            provision(provisioning_parameters=[{"key": "a"}, {"value": "b"}, {}]),
            {"provisioning_parameters[1].key", "provisioning_parameters[2].key"},
            id="parameters without a key",
        ),
        pytest.param(
            update(provisioning_parameters=[{"key": "a"}, {"use_previous_value": True}]),
            {"provisioning_parameters[1].key"},
            id="a previous value without a key",
        ),
    ],
)
def test_what_is_missing_or_empty_is_named(
    request_: Message, fields: set[str], stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    assert refused(stub, upstream, request_).fields == fields


@pytest.mark.parametrize("number", [4, -1, 2147483647, -2147483648])
def test_an_unknown_operation_type_is_refused(number: int, stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    request = update(provisioning_preferences={"stack_set_operation_type": number})
    refusal = refused(stub, upstream, request)
    ((field, description),) = refusal.violations
    assert field == "provisioning_preferences.stack_set_operation_type"
    assert all(name in description for name in ("CREATE", "UPDATE", "DELETE"))


@pytest.mark.parametrize("key", ["COLOR", "owner", "OWNER ", "", "\uff2fWNER", "\U0001f600"], ids=ascii)
def test_an_unknown_property_is_refused_by_its_key(key: str, stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    request = properties(provisioned_product_properties={"OWNER": OWNER, key: OWNER})
    assert refused(stub, upstream, request).fields == {f'provisioned_product_properties["{key}"]'}


@pytest.mark.parametrize("key", ["OWNER\n", "\nOWNER", 'OWNER"', "OWNER\0", "OWNER\\"], ids=ascii)
def test_an_unknown_property_of_odd_characters_is_refused(
    key: str, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    ((field, description),) = refused(
        stub, upstream, properties(provisioned_product_properties={key: OWNER})
    ).violations
    assert field.startswith("provisioned_product_properties[")
    assert "LAUNCH_ROLE" in description
