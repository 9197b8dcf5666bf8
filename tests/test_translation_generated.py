"""Requests that nobody thought of: each is forwarded in AWS's form or refused as invalid, and nothing else happens."""

import string
from collections import Counter
from typing import Any

import botocore.session
import grpc
import pytest
import regex
from botocore.model import ListShape, MapShape, StructureShape
from botocore.validate import ParamValidator
from calls import ANSWER, operation_of, refusal_of
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream

MODEL = botocore.session.get_session().get_service_model("servicecatalog")
SETTINGS = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault of the server
)
INT32 = st.integers(-(2**31), 2**31 - 1)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def any_text(min_size: int = 0) -> st.SearchStrategy[str]:
    """Return any text that protobuf can hold, now and then a long one."""
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=min_size, max_size=30)
    return text | st.builds(lambda piece, times: piece * times, text, st.integers(1, 300))


def any_value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Return any value of the field, whole if it is repeated."""
    if _is_map(field):
        return st.dictionaries(any_text() | st.sampled_from(["OWNER", "LAUNCH_ROLE"]), any_text())
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
        one: st.SearchStrategy[Any] = any_message(field.message_type)
    else:
        one = {
            FieldDescriptor.TYPE_STRING: any_text(),
            FieldDescriptor.TYPE_INT32: INT32 | st.integers(-1, 101),
            FieldDescriptor.TYPE_BOOL: st.booleans(),
            FieldDescriptor.TYPE_ENUM: INT32 | st.integers(0, 4),
        }[field.type]
    return st.lists(one) if field.is_repeated else one


def any_message(descriptor: Any) -> st.SearchStrategy[Message]:
    """Return any message of the kind, with any of its fields."""
    message = GetMessageClass(descriptor)
    values = {field.name: any_value(field) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=values).map(lambda fields: message(**fields))


_WORD = string.ascii_letters + string.digits
_TAG = st.characters(categories=["L", "N", "Z"]) | st.sampled_from("_.:/=+-@")
_NAMES = st.builds(str.__add__, st.sampled_from(_WORD), st.text(_WORD + "._-", max_size=127))
_TOKENS = st.builds(str.__add__, st.sampled_from(_WORD), st.text(_WORD + "_-", max_size=127))
_IDS = st.text(_WORD + "_-", min_size=1, max_size=100)
_ACCOUNTS = st.text(string.digits, min_size=12, max_size=12)
_ROLES = st.builds("arn:{}:iam::{}:role/{}".format, st.sampled_from(["aws", "aws-cn", "aws-us-gov"]), _ACCOUNTS, _NAMES)
_USERS = st.builds("arn:aws:iam::{}:user/{}".format, _ACCOUNTS, _NAMES)
_TOPICS = st.builds("arn:aws:sns:us-east-1:{}:{}".format, _ACCOUNTS, _NAMES)
_KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
_VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
_TAGS = st.lists(
    st.fixed_dictionaries(
        {"key": st.text(_TAG, min_size=1, max_size=128), "value": st.text(_TAG, min_size=1, max_size=256)}
    ),
    max_size=50,
)


def _either(**choices: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.one_of(*(st.fixed_dictionaries({name: values}) for name, values in choices.items()))


def _merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda dicts: {name: value for each in dicts for name, value in each.items()})


_NOTHING: st.SearchStrategy[dict[str, Any]] = st.just({})
_TITLES = any_text(min_size=1).map(lambda text: text[:8191])
_PRODUCT = _either(product_id=_IDS, product_name=_TITLES)
_ARTIFACT = _either(provisioning_artifact_id=_IDS, provisioning_artifact_name=_TITLES)
_PATH = _NOTHING | _either(path_id=_IDS, path_name=_KEYS)
_LANGUAGES = st.sampled_from(["en", "jp", "zh", ""])


def _bounds_that_agree(tolerance: int, above: int) -> dict[str, int]:
    concurrency = max(1, tolerance + 1 - above)
    return {"stack_set_failure_tolerance_count": tolerance, "stack_set_max_concurrency_count": concurrency}


_PREFERENCES = _merged(
    st.fixed_dictionaries(
        {},
        optional={
            "stack_set_accounts": st.lists(_ACCOUNTS),
            "stack_set_regions": st.lists(any_text()),
        },
    ),
    _NOTHING
    | st.builds(_bounds_that_agree, st.integers(0, 2**31 - 2), st.integers(0, 2**31))
    | st.fixed_dictionaries(
        {},
        optional={
            "stack_set_failure_tolerance_percentage": st.integers(0, 100),
            "stack_set_max_concurrency_percentage": st.integers(1, 100),
        },
    ),
)

GOOD: dict[type[Message], st.SearchStrategy[dict[str, Any]]] = {
    pb.ProvisionProductRequest: _merged(
        _PRODUCT,
        _ARTIFACT,
        _PATH,
        st.fixed_dictionaries(
            {"provisioned_product_name": _NAMES},
            optional={
                "accept_language": _LANGUAGES,
                "provisioning_parameters": st.lists(st.fixed_dictionaries({"key": _KEYS}, optional={"value": _VALUES})),
                "provisioning_preferences": _PREFERENCES,
                "tags": _TAGS,
                "notification_arns": st.lists(_TOPICS, max_size=5),
                "provision_token": _TOKENS,
            },
        ),
    ),
    pb.UpdateProvisionedProductRequest: _merged(
        _either(provisioned_product_id=_IDS, provisioned_product_name=_NAMES),
        _NOTHING | _PRODUCT,
        _NOTHING | _ARTIFACT,
        _PATH,
        st.fixed_dictionaries(
            {},
            optional={
                "accept_language": _LANGUAGES,
                "provisioning_parameters": st.lists(
                    st.fixed_dictionaries(
                        {"key": _KEYS}, optional={"value": _VALUES, "use_previous_value": st.booleans()}
                    )
                ),
                "provisioning_preferences": _merged(
                    _PREFERENCES,
                    st.fixed_dictionaries({}, optional={"stack_set_operation_type": st.integers(0, 3)}),
                ),
                "tags": _TAGS,
                "update_token": _TOKENS,
            },
        ),
    ),
    pb.UpdateProvisionedProductPropertiesRequest: st.fixed_dictionaries(
        {
            "provisioned_product_id": _IDS,
            "provisioned_product_properties": st.fixed_dictionaries({"OWNER": _USERS | _ROLES})
            | st.fixed_dictionaries({"LAUNCH_ROLE": _ROLES}, optional={"OWNER": _USERS}),
        },
        optional={"accept_language": _LANGUAGES, "idempotency_token": _TOKENS},
    ),
}


@st.composite
def mostly_good(draw: st.DrawFn, message: type[Message]) -> tuple[Message, bool]:
    """Return a request and whether it is as AWS wants it; one in four has a field of any value."""
    request = message(**draw(GOOD[message]))
    if draw(st.integers(0, 3)):
        return request, True
    descriptor: Any = message.DESCRIPTOR
    field = draw(st.sampled_from(list(descriptor.fields)))
    request.ClearField(field.name)
    request.MergeFrom(message(**{field.name: draw(any_value(field))}))
    return request, False


def _outcome(stub: ProvisioningServiceStub, upstream: Upstream, request: Message) -> grpc.StatusCode:
    """Make the call, and see that its outcome is a legal one."""
    upstream.behave(ANSWER)
    shape: Any = MODEL.operation_model(operation_of(request)).input_shape
    try:
        getattr(stub, operation_of(request))(request)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert upstream.requests == []
        known = {*request.DESCRIPTOR.fields_by_name, *request.DESCRIPTOR.oneofs_by_name}
        named = {field for field in refusal.fields if field}
        assert {regex.split(r"[.\[]", field)[0] for field in named} <= known
        return grpc.StatusCode.INVALID_ARGUMENT
    (http,) = upstream.requests
    report = ParamValidator().validate(http.json, shape)
    assert not report.has_errors(), report.generate_report()
    assert list(_beyond_limits(http.json, shape, shape.name)) == []
    return grpc.StatusCode.OK


def _beyond_limits(value: Any, shape: Any, place: str) -> list[str]:
    """Name the places that break the limits of the model, most of which ParamValidator does not look at."""
    limits = shape.metadata
    size = value if isinstance(value, int) else len(value)
    broken = not limits.get("min", size) <= size <= limits.get("max", size)
    if isinstance(value, str):
        broken |= "pattern" in limits and not regex.fullmatch(limits["pattern"], value)
        broken |= "enum" in limits and value not in limits["enum"]
    below: list[tuple[Any, Any, str]] = []
    if isinstance(shape, StructureShape):
        below = [(value[name], shape.members[name], name) for name in value]
    elif isinstance(shape, ListShape):
        below = [(item, shape.member, str(index)) for index, item in enumerate(value)]
    elif isinstance(shape, MapShape):
        below = [(part, side, key) for key in value for part, side in ((key, shape.key), (value[key], shape.value))]
    return [place] * broken + [
        found for item, member, name in below for found in _beyond_limits(item, member, f"{place}.{name}")
    ]


EACH = pytest.mark.parametrize("message", [pytest.param(message, id=message.DESCRIPTOR.name) for message in GOOD])


@EACH
def test_any_request_is_forwarded_or_refused_as_invalid(
    message: type[Message], stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    outcomes: Counter[grpc.StatusCode] = Counter()

    @SETTINGS
    @given(request=any_message(message.DESCRIPTOR))
    def run(request: Message) -> None:
        outcomes[_outcome(stub, upstream, request)] += 1

    run()
    assert outcomes[grpc.StatusCode.INVALID_ARGUMENT] >= 100


@EACH
def test_good_requests_are_forwarded_and_spoilt_ones_are_not_forwarded_unseen(
    message: type[Message], stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    outcomes: Counter[grpc.StatusCode] = Counter()

    @SETTINGS
    @given(drawn=mostly_good(message))
    def run(drawn: tuple[Message, bool]) -> None:
        request, good = drawn
        outcome = _outcome(stub, upstream, request)
        outcomes[outcome] += 1
        assert outcome == grpc.StatusCode.OK or not good

    run()
    assert outcomes[grpc.StatusCode.OK] >= 50
    assert outcomes[grpc.StatusCode.INVALID_ARGUMENT] >= 10
