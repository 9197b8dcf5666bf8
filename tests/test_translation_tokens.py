"""Nothing is provisioned twice: which token goes to AWS, and that the caller gets to know it."""

import re
import string
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from calls import OWNER, forwarded, properties, provision, refused, update
from facade import Facade, environment
from google.protobuf.message import Message
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream

KEY, REQUEST_ID = "idempotency-key", "x-request-id"
TOKEN_FIELDS = {
    pb.ProvisionProductRequest: ("provision_token", "ProvisionToken"),
    pb.UpdateProvisionedProductRequest: ("update_token", "UpdateToken"),
    pb.UpdateProvisionedProductPropertiesRequest: ("idempotency_token", "IdempotencyToken"),
}

EACH = pytest.mark.parametrize("request_with", [provision, update, properties])


class Calls:
    """Makes calls and says which token AWS got, after seeing that it is a legal one and that the caller got it too."""

    def __init__(self, stub: ProvisioningServiceStub, upstream: Upstream) -> None:
        self._stub = stub
        self._upstream = upstream

    def token(self, request: Message, *metadata: tuple[str, str]) -> str:
        call = forwarded(self._stub, self._upstream, request, metadata)
        token: str = call.body[TOKEN_FIELDS[type(request)][1]]
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}", token)
        assert call.token == token
        return token


@pytest.fixture
def calls(stub: ProvisioningServiceStub, upstream: Upstream) -> Calls:
    return Calls(stub, upstream)


@pytest.fixture(scope="module")
def another_stub(_upstream: Upstream) -> Iterator[ProvisioningServiceStub]:
    """A stub of another façade in front of the same `upstream`."""
    with (
        Facade("serve", "--listen", "127.0.0.1:0", env=environment(_upstream.url)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield ProvisioningServiceStub(channel)


def _with_token(request_with: Any, token: str) -> Message:
    field, _ = TOKEN_FIELDS[type(request_with())]
    request: Message = request_with(**{field: token})
    return request


@EACH
@pytest.mark.parametrize("token", ["t", "0", "Order_17-b", "t" * 128])
def test_the_token_of_the_request_is_taken_as_it_is(token: str, request_with: Any, calls: Calls) -> None:
    assert calls.token(_with_token(request_with, token)) == token


@EACH
def test_the_token_of_the_request_beats_the_key_which_beats_the_request_id(request_with: Any, calls: Calls) -> None:
    key, request_id = (KEY, "key-1"), (REQUEST_ID, "id-1")
    assert calls.token(_with_token(request_with, "own"), key, request_id) == "own"
    by_key = calls.token(request_with(), key)
    by_request_id = calls.token(request_with(), request_id)
    assert by_key != by_request_id
    assert calls.token(request_with(), key, request_id) == by_key
    assert calls.token(request_with(), request_id, key) == by_key
    assert calls.token(request_with(), key, (REQUEST_ID, "id-2")) == by_key


@EACH
def test_a_key_gives_the_same_token_each_time(request_with: Any, calls: Calls) -> None:
    assert calls.token(request_with(), (KEY, "key-1")) == calls.token(request_with(), (KEY, "key-1"))


@EACH
def test_a_key_gives_the_same_token_for_another_request_so_that_aws_refuses_the_mix_up(
    request_with: Any, calls: Calls
) -> None:
    other = request_with(accept_language="jp")
    assert calls.token(request_with(), (KEY, "key-1")) == calls.token(other, (KEY, "key-1"))


def test_each_key_has_a_token_of_its_own(calls: Calls) -> None:
    keys = ["a", "A", "aa", "b", "1", "01", "a,b", "a b", "ab", "key", "idempotency-key"]
    assert len({calls.token(provision(), (KEY, key)) for key in keys}) == len(keys)


def test_each_method_has_a_token_of_its_own_for_one_key_or_request_id(calls: Calls) -> None:
    for name in (KEY, REQUEST_ID):
        tokens = {calls.token(request_with(), (name, "the same")) for request_with in (provision, update, properties)}
        assert len(tokens) == 3


def test_a_key_that_goes_on_with_the_name_of_a_method_does_not_meet_the_key_of_that_method(calls: Calls) -> None:
    # UpdateProvisionedProduct + Properties-1, and UpdateProvisionedProductProperties + -1.
    assert calls.token(update(), (KEY, "Properties-1")) != calls.token(properties(), (KEY, "-1"))


def test_a_key_and_a_request_id_of_the_same_text_have_different_tokens(calls: Calls) -> None:
    assert calls.token(provision(), (KEY, "x")) != calls.token(provision(), (REQUEST_ID, "x"))


@EACH
def test_a_request_id_gives_the_same_token_for_the_same_request(request_with: Any, calls: Calls) -> None:
    request_id = (REQUEST_ID, "6f1c1f0e-3f7c-4d5c-9b1a-0f6d3a1f2b7e")
    first = calls.token(request_with(), request_id)
    assert calls.token(request_with(), request_id) == first
    assert calls.token(request_with(), (REQUEST_ID, "another")) != first


def test_a_request_id_gives_the_same_token_whatever_the_order_of_a_map(calls: Calls) -> None:
    pairs = [("OWNER", OWNER), ("LAUNCH_ROLE", "arn:aws:iam::123456789012:role/launch")]
    one, other = (properties(provisioned_product_properties=dict(each)) for each in (pairs, pairs[::-1]))
    assert calls.token(one, (REQUEST_ID, "id-1")) == calls.token(other, (REQUEST_ID, "id-1"))


@pytest.mark.parametrize("name", [KEY, REQUEST_ID])
def test_a_repeat_that_lands_on_another_server_has_the_same_token(
    name: str, calls: Calls, another_stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    elsewhere = Calls(another_stub, upstream)
    launch_role = "arn:aws:iam::123456789012:role/launch"
    requests = [
        provision(provisioning_preferences={"stack_set_regions": ["us-east-1"]}),
        properties(provisioned_product_properties={"OWNER": OWNER, "LAUNCH_ROLE": launch_role}),
        properties(provisioned_product_properties={"LAUNCH_ROLE": launch_role, "OWNER": OWNER}),
    ]
    for request in requests:
        assert calls.token(request, (name, "x")) == elsewhere.token(request, (name, "x"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (provision(), provision(provisioned_product_name="another")),
        (provision(), provision(accept_language="en")),
        (provision(), provision(provisioning_preferences={})),
        (provision(product_id=None, product_name="x"), provision(product_id="x")),
        (
            provision(provisioning_parameters=[{"key": "a"}]),
            provision(provisioning_parameters=[{"key": "a", "value": ""}]),
        ),
        (
            provision(provisioning_parameters=[{"key": "a", "value": "bc"}]),
            provision(provisioning_parameters=[{"key": "ab", "value": "c"}]),
        ),
        (
            update(provisioning_parameters=[{"key": "a"}]),
            update(provisioning_parameters=[{"key": "a", "use_previous_value": False}]),
        ),
        (
            update(tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]),
            update(tags=[{"key": "b", "value": "2"}, {"key": "a", "value": "1"}]),
        ),
        (properties(), properties(provisioned_product_properties={"OWNER": OWNER + "e"})),
    ],
)
def test_a_request_id_that_spans_several_calls_gives_each_request_a_token(
    one: Message, other: Message, calls: Calls
) -> None:
    assert calls.token(one, (REQUEST_ID, "id-1")) != calls.token(other, (REQUEST_ID, "id-1"))


@EACH
def test_without_token_key_and_request_id_each_call_has_a_token_of_its_own(request_with: Any, calls: Calls) -> None:
    assert len({calls.token(request_with()) for _ in range(5)}) == 5


@EACH
def test_an_empty_token_in_the_request_is_none(request_with: Any, calls: Calls) -> None:
    empty = _with_token(request_with, "")
    assert calls.token(empty) != calls.token(empty)
    assert calls.token(empty, (KEY, "key-1")) == calls.token(request_with(), (KEY, "key-1"))


def test_an_empty_request_id_is_none(calls: Calls) -> None:
    assert calls.token(provision(), (REQUEST_ID, "")) != calls.token(provision(), (REQUEST_ID, ""))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 4096,
        "%",
        "%s%n%00%0a",
        "a b  c",
        "a,b",
        "-leading",
        "_",
        "$(reboot)",
        "'; --",
        "../../etc",
        '{"a": 1}',
        string.punctuation,
        string.ascii_letters + string.digits,
        "=?utf-8?b?w6Q=?=",
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize("name", [KEY, REQUEST_ID])
def test_whatever_a_key_holds_the_token_is_one_that_aws_takes(name: str, text: str, calls: Calls) -> None:
    assert calls.token(provision(), (name, text)) == calls.token(provision(), (name, text))


@EACH
@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param([(KEY, "")], id="empty"),
        pytest.param([(KEY, "  ")], id="only spaces"),
        pytest.param([(KEY, "a"), (KEY, "b")], id="two"),
        pytest.param([(KEY, "a"), (KEY, "a")], id="twice the same"),
        pytest.param([(KEY, ""), (KEY, "a")], id="an empty one and another"),
        pytest.param([(KEY, ""), (REQUEST_ID, "id-1")], id="empty beside a request id"),
    ],
)
def test_an_empty_or_ambiguous_key_is_refused(
    metadata: list[tuple[str, str]], request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    assert refused(stub, upstream, request_with(), metadata).fields == {"idempotency-key"}


@EACH
@pytest.mark.parametrize(
    "token",
    ["t" * 129, "-t", "_t", "a b", "a.b", "a$", "a\n", " a", "\u00e4", "\uff11", "\U0001f600", "a\0"],
    ids=lambda token: ascii(token)[:20],
)
def test_a_token_that_aws_would_refuse_is_refused_by_its_field(
    token: str, request_with: Any, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    request = _with_token(request_with, token)
    field, _ = TOKEN_FIELDS[type(request)]
    assert refused(stub, upstream, request, [(KEY, "key-1")]).fields == {field}
