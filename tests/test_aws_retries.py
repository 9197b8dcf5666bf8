"""What the façade repeats by itself, how often, when, and what it says after attempts that differ."""

import socket
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import grpc
import pytest
from calls import ANSWER, operation_of, properties, provision, update
from facade import Facade, environment
from google.protobuf.message import Message
from grpc import StatusCode
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from status import Details
from upstream import REQUEST_ID, Behaviour, Request, Upstream, abort, after, error, hang_up, raw, reply, truncated

THROTTLED = error("ThrottlingException", "Rate exceeded")
FAULT = error("InternalFailure", "We are sorry", status=500)
NO_PROFILE = error("InvalidParametersException", "The profile does not exist")
DENIED = error("AccessDeniedException", "is not authorized", status=403)
IN_PROGRESS = error("ValidationException", "Another UPDATE operation is in progress")
TOKENS = {
    "ProvisionProduct": "ProvisionToken",
    "UpdateProvisionedProduct": "UpdateToken",
    "UpdateProvisionedProductProperties": "IdempotencyToken",
}


@contextmanager
def facade_before(upstream: Upstream, *flags: str) -> Iterator[ProvisioningServiceStub]:
    with (
        Facade("serve", "--listen", "127.0.0.1:0", *flags, env=environment(upstream.url)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield ProvisioningServiceStub(channel)


@pytest.fixture(scope="module")
def _upstream_and_stub() -> Iterator[tuple[Upstream, ProvisioningServiceStub]]:
    upstream = Upstream()
    with facade_before(upstream, "--max-writes", "64") as stub:
        yield upstream, stub
    upstream.close()


@pytest.fixture
def upstream(_upstream_and_stub: tuple[Upstream, ProvisioningServiceStub]) -> Upstream:
    """In the place of AWS, for this module alone."""
    return _upstream_and_stub[0]


@pytest.fixture
def stub(_upstream_and_stub: tuple[Upstream, ProvisioningServiceStub]) -> ProvisioningServiceStub:
    """A stub of a façade with as many attempts as it makes without being told."""
    return _upstream_and_stub[1]


def call(stub: ProvisioningServiceStub, request: Message, timeout: float = 20) -> grpc.Call:
    """Make the call and return what is known of it when it has ended, well or not."""
    try:
        _, ended = getattr(stub, operation_of(request)).with_call(request, timeout=timeout)
    except grpc.RpcError as failed:
        return failed  # type: ignore[return-value]  # it is one
    return ended  # type: ignore[no-any-return]


def failed(stub: ProvisioningServiceStub, request: Message | None = None, timeout: float = 20) -> Details:
    ended: Any = call(stub, request or provision(), timeout)
    assert isinstance(ended, grpc.RpcError), "the call should fail"
    return Details(ended)


def tokens(upstream: Upstream, request: Message) -> list[str]:
    """Return the token of each attempt that AWS saw."""
    return [each.json[TOKENS[operation_of(request)]] for each in upstream.requests]


REPEATED = {
    "throttled": THROTTLED,
    "throttled under another code": error("SomethingNewException", "Rate exceeded"),
    "throttled without a code": reply(429),
    "500": FAULT,
    "503": reply(503, b"<html>no</html>"),
    "reset": abort,
    "closed": hang_up,
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "profile": NO_PROFILE,
    "200 and nothing": reply(200),
    "200 and HTML": reply(200, b"<html>hello</html>"),
    "200 without a record": reply(200, {}),
    "200 cut off": truncated({"RecordDetail": {"RecordId": "rec-1"}}, at=20),
}


@pytest.mark.parametrize("problem", REPEATED.values(), ids=REPEATED)
def test_what_may_pass_is_repeated_with_the_same_token(
    stub: ProvisioningServiceStub, upstream: Upstream, problem: Behaviour
) -> None:
    upstream.behave(problem, ANSWER)
    ended = call(stub, provision())
    assert ended.code() == StatusCode.OK
    first, second = tokens(upstream, provision())
    assert first == second == dict(ended.initial_metadata())["idempotency-token"]
    assert upstream.requests[0].body == upstream.requests[1].body


@pytest.mark.parametrize("request_", [provision(), update(), properties()], ids=operation_of)
@pytest.mark.parametrize("own", ["", "order-17"], ids=["fresh", "own"])
def test_every_operation_keeps_its_token_over_its_attempts(
    stub: ProvisioningServiceStub, upstream: Upstream, request_: Message, own: str
) -> None:
    upstream.behave(abort, FAULT, hang_up, ANSWER)
    request = type(request_)()
    request.CopyFrom(request_)
    if own:
        names = {"ProvisionToken": "provision_token", "UpdateToken": "update_token"}
        setattr(request, names.get(TOKENS[operation_of(request)], "idempotency_token"), own)
    ended = call(stub, request)
    assert ended.code() == StatusCode.OK
    token = dict(ended.initial_metadata())["idempotency-token"]
    assert tokens(upstream, request) == [token] * 4
    assert not own or token == own
    assert {each.target for each in upstream.requests} == {f"AWS242ServiceCatalogService.{operation_of(request)}"}


@pytest.mark.parametrize(
    ("problem", "reason", "code"),
    [
        (THROTTLED, "THROTTLED", StatusCode.RESOURCE_EXHAUSTED),
        (FAULT, "OUTCOME_UNKNOWN", StatusCode.UNKNOWN),
        (abort, "OUTCOME_UNKNOWN", StatusCode.UNKNOWN),
    ],
    ids=["throttled", "500", "reset"],
)
def test_there_are_four_attempts(
    stub: ProvisioningServiceStub, upstream: Upstream, problem: Behaviour, reason: str, code: StatusCode
) -> None:
    upstream.behave(problem)
    details = failed(stub)
    assert (details.code, details.info.reason) == (code, reason)
    assert tokens(upstream, provision()) == [details.info.metadata["idempotency_token"]] * 4


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_number_of_attempts_is_a_setting(upstream: Upstream, attempts: int) -> None:
    upstream.behave(abort)
    with facade_before(upstream, "--max-attempts", str(attempts)) as stub:
        details = failed(stub)
    assert details.info.reason == "OUTCOME_UNKNOWN"
    assert tokens(upstream, provision()) == [details.info.metadata["idempotency_token"]] * attempts


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("LimitExceededException", "Too many provisioned products", "QUOTA_EXCEEDED"),
        ("InvalidParametersException", "No such parameter", "INVALID_PARAMETERS"),
        ("ValidationException", "1 validation error", "INVALID_PARAMETERS"),
        ("InvalidParametersException", "mine already exists", "ALREADY_EXISTS"),
        ("ValidationException", "Another UPDATE operation is in progress", "OPERATION_IN_PROGRESS"),
        ("DuplicateResourceException", "mine", "ALREADY_EXISTS"),
        ("ResourceNotFoundException", "prod-1", "RESOURCE_NOT_FOUND"),
        ("InvalidStateException", "TAINTED", "INVALID_STATE"),
        ("OperationNotSupportedException", "no", "OPERATION_NOT_SUPPORTED"),
        ("AccessDeniedException", "is not authorized", "ACCESS_DENIED"),
        ("SomethingNewException", "new", "UNMAPPED_AWS_ERROR"),
    ],
)
def test_a_refusal_is_not_repeated(
    stub: ProvisioningServiceStub, upstream: Upstream, code: str, message: str, reason: str
) -> None:
    upstream.behave(error(code, message), ANSWER)
    details = failed(stub)
    assert details.info.reason == reason
    assert details.retry_delay is None
    assert len(upstream.requests) == 1


AFTERWARDS = {
    "throttled": THROTTLED,
    "denied": DENIED,
    "another operation": IN_PROGRESS,
    "no profile": NO_PROFILE,
    "500": FAULT,
}


@pytest.mark.parametrize("first", [abort, FAULT], ids=["reset", "500"])
@pytest.mark.parametrize("then", AFTERWARDS.values(), ids=AFTERWARDS)
def test_what_may_have_happened_stays_unknown_whatever_comes_next(
    stub: ProvisioningServiceStub, upstream: Upstream, first: Behaviour, then: Behaviour
) -> None:
    upstream.behave(first, then)
    details = failed(stub)
    assert len(upstream.requests) > 1
    assert (details.code, details.info.reason) == (StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")
    assert details.info.metadata["idempotency_token"] == details.initial["idempotency-token"]
    assert details.info.metadata["aws_request_id"] == REQUEST_ID
    assert details.retry_delay is None
    assert "nothing happened" not in details.message


def test_what_may_have_happened_stays_unknown_though_aws_is_gone() -> None:
    upstream = Upstream()

    def last_words(connection: socket.socket, request: Request) -> None:
        upstream.close()
        abort(connection, request)

    upstream.behave(last_words)
    with facade_before(upstream) as stub:
        details = failed(stub)
    assert len(upstream.requests) == 1
    assert (details.code, details.info.reason) == (StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")
    assert details.info.metadata["idempotency_token"] == upstream.requests[0].json["ProvisionToken"]


def test_what_may_have_happened_stays_so_though_the_deadline_ends_an_attempt_that_sent_nothing() -> None:
    upstream = Upstream()
    with socket.socket() as full, socket.socket() as waiting, socket.socket() as more:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = ("127.0.0.1", upstream.port)

        def last_words(connection: socket.socket, request: Request) -> None:
            upstream.close()
            full.bind(address)
            full.listen(0)
            for each in (waiting, more):
                each.settimeout(0)
                each.connect_ex(address)
            abort(connection, request)

        upstream.behave(last_words)
        with facade_before(upstream) as stub:
            details = failed(stub, timeout=2)
    assert len(upstream.requests) == 1
    assert details.info.reason in ("OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED")
    assert details.info.metadata["idempotency_token"] == upstream.requests[0].json["ProvisionToken"]
    assert "may have acted" in details.message


def test_throttles_alone_say_that_nothing_happened(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(THROTTLED, NO_PROFILE, THROTTLED, DENIED)
    details = failed(stub)
    assert (details.code, details.info.reason) == (StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
    assert len(upstream.requests) == 4


def test_no_attempt_begins_that_the_deadline_has_no_time_for(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    begun = _times(upstream, NO_PROFILE)
    seconds = 0.4
    ends: list[tuple[float, float, Details]] = []

    def one(number: int) -> None:
        start = time.monotonic()
        details = failed(stub, provision(provision_token=f"late-{number}"), timeout=seconds)
        ends.append((start, time.monotonic(), details))

    with ThreadPoolExecutor(16) as callers:
        list(callers.map(one, range(32)))
    hopeless = 0
    for start, end, details in ends:
        attempts = begun[details.info.metadata["idempotency_token"]]
        assert all(moment < start + seconds for moment in attempts)
        assert details.info.reason in ("NOT_YET_CONSISTENT", "DEADLINE_EXCEEDED")
        # The wait before the second attempt is up to 2 s: most calls learn at once that it cannot come in time.
        hopeless += len(attempts) == 1 and details.info.reason == "NOT_YET_CONSISTENT" and end - start < seconds
    assert hopeless > 8


def test_the_waits_differ_and_grow(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    begun = _times(upstream, THROTTLED)
    with ThreadPoolExecutor(48) as callers:
        requests = [provision(provision_token=f"wait-{number}") for number in range(48)]
        assert {ended.code() for ended in callers.map(lambda request: call(stub, request), requests)} == {
            StatusCode.RESOURCE_EXHAUSTED
        }
    waits: Sequence[Sequence[float]] = list(
        zip(*[[late - early for early, late in pairwise(moments)] for moments in begun.values()], strict=True)
    )
    assert [len(each) for each in waits] == [48] * 3
    for each, longest in zip(waits, (0.5, 1.0, 2.0), strict=True):
        assert max(each) < longest + 0.5  # some slack for a busy machine
        assert statistics.stdev(each) > longest / 8
    means = [statistics.mean(each) for each in waits]
    assert means[0] < means[1] < means[2]
    assert means[2] > 1.5 * means[0]


def test_a_repeat_takes_a_place_like_any_call(upstream: Upstream) -> None:
    upstream.behave(FAULT, FAULT, after(0.2, ANSWER), ANSWER)
    with facade_before(upstream, "--max-writes", "1") as stub:
        first = stub.ProvisionProduct.future(provision(provision_token="first"), timeout=10)
        while not upstream.requests:
            time.sleep(0.01)
        second = stub.ProvisionProduct.future(provision(provision_token="second"), timeout=10)
        assert (first.code(), second.code()) == (StatusCode.OK, StatusCode.OK)
    assert tokens(upstream, provision()) == ["first", "first", "first", "second"]


def _times(upstream: Upstream, then: Behaviour) -> dict[str, list[float]]:
    """Make the upstream do that always and return when its requests come, by token."""
    begun: dict[str, list[float]] = defaultdict(list)

    def behaviour(connection: socket.socket, request: Request) -> None:
        begun[request.json["ProvisionToken"]].append(time.monotonic())
        then(connection, request)

    upstream.behave(behaviour)
    return begun
