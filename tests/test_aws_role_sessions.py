"""Sessions of roles: begun once, renewed in time, kept while they are good, dropped when idle, never asked for in vain."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path

import grpc
import pytest
from aws_recorder import Signed
from calls import provision
from facade import logged
from grpc_health.v1 import health_pb2, health_pb2_grpc
from role_world import ACCOUNT, World, called_by, clockwork, policy, role, serving
from servicecatalog.v1.catalog_service_pb2 import SearchProductsRequest
from servicecatalog_grpc.sandbox import Sandbox
from status import Details
from upstream import Behaviour, error, hang_up, raw, reply, silence
from waiting import wait_for

TEAM = "spiffe://example.org/red/"
RED = TEAM + "orders"

SERVER = "arn:aws:sts::111122223333:assumed-role/facade/pod"


def refusal(code: str, message: str, status: int = 403) -> Behaviour:
    """Answer as STS's query protocol does when it refuses."""
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return reply(status, body.encode())


DENIED = refusal(
    "AccessDenied", f"User: {SERVER} is not authorized to perform: sts:AssumeRole on resource: {role('red')}"
)
EXPIRED = error("ExpiredTokenException", "The security token included in the request is expired")


def first(*behaviours: Behaviour | None) -> Callable[..., Behaviour | None]:
    """Return what answers so at first, and then by forwarding."""
    answers = chain(behaviours, repeat(None))
    return lambda *_: next(answers)


def always(behaviour: Behaviour) -> Callable[..., Behaviour | None]:
    return lambda *_: behaviour


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """An AWS of this module's own."""
    with Sandbox(port=0, record_seconds=0.1) as running:
        yield running


@pytest.fixture(scope="module")
def _world(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(sandbox.url, tmp_path_factory.mktemp("policy")) as served:
        yield served


@pytest.fixture
def world(_world: World) -> World:
    """A façade in front of AWS as it should be. Each test is another caller."""
    _world.recorder.sts = _world.recorder.catalog = first()
    _world.recorder.sts_seconds = 0
    return _world


def asked(world: World, identity: str) -> int:
    """Return how often STS was asked for a session of the caller."""
    name = identity.removeprefix("spiffe://").replace("/", "-") + "+"
    return sum(each["RoleSessionName"].startswith(name) for each in world.recorder.asked)


def test_a_hundred_first_calls_at_a_time_begin_one_session(world: World) -> None:
    identity = TEAM + "hundred"
    world.recorder.sts_seconds = 0.5
    with ThreadPoolExecutor(100) as callers:
        list(callers.map(world.search, [identity] * 100))
    assert asked(world, identity) == 1
    assert {signed.session for signed in world.searches(identity)} == set(world.sessions(identity))


def test_sessions_of_many_callers_begin_side_by_side(world: World) -> None:
    identities = [f"{TEAM}many-{number}" for number in range(24)]
    world.recorder.sts_seconds = 0.5
    began = time.monotonic()
    with ThreadPoolExecutor(len(identities)) as callers:
        list(callers.map(world.search, identities))
    assert time.monotonic() - began < len(identities) * 0.5 / 2
    assert [asked(world, identity) for identity in identities] == [1] * 24


def test_a_denied_role_is_nothing_that_happened_and_names_no_account(world: World) -> None:
    identity = TEAM + "denied"
    world.recorder.sts = always(DENIED)
    with pytest.raises(grpc.RpcError) as raised:
        world.stubs.ProvisionProduct(provision(), metadata=called_by(identity), timeout=20)
    details = Details(raised.value)
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CREDENTIALS")
    assert details.message.endswith("nothing happened")
    assert details.info.metadata["aws_error_code"] == "AccessDenied"
    assert details.info.metadata["aws_operation"] == "AssumeRole"
    # Not a word about who the server is in AWS, and where.
    assert "arn:" not in str(details.info) + details.message
    assert ACCOUNT not in str(details.info) + details.message
    # The response has not begun: another server may do better.
    assert "idempotency-token" not in details.initial
    assert all(signed.operation != "ProvisionProduct" for signed in world.recorder.signed)
    (line,) = (line for line in world.facade.log if "could not be taken" in line and "red-denied" in line)
    entry = json.loads(line)
    assert (entry["level"], entry["role"]) == ("WARNING", role("red"))
    assert SERVER in entry["message"]


def test_a_denied_role_is_not_asked_for_again_at_once(world: World) -> None:
    identity = TEAM + "denied-often"
    world.recorder.sts = always(DENIED)
    for _ in range(5):
        assert world.failure(identity).info.reason == "UPSTREAM_CREDENTIALS"
    assert asked(world, identity) == 1


def test_a_role_that_is_granted_later_is_taken_then(sandbox: Sandbox, tmp_path: Path) -> None:
    with serving(sandbox.url, tmp_path, PYTHONPATH=clockwork(tmp_path, _REFUSAL_SECONDS=0.3)) as world:
        world.recorder.sts = first(DENIED)
        world.failure(RED)
        time.sleep(0.4)
        world.search(RED)


@pytest.mark.parametrize(
    "answer",
    [
        refusal("ValidationError", "1 validation error detected: Value at 'roleArn' failed to satisfy constraint", 400),
        refusal("RegionDisabledException", "STS is not activated in this region"),
        refusal("NobodyKnowsThisOne", "says somebody", 400),
    ],
)
def test_whatever_else_sts_refuses_is_a_matter_of_credentials(world: World, answer: Behaviour) -> None:
    identity = f"{TEAM}refused-{id(answer)}"
    world.recorder.sts = always(answer)
    details = world.failure(identity)
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CREDENTIALS")
    assert "says somebody" not in details.message


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("closed", hang_up),
        ("broken", refusal("InternalFailure", "", 500)),
        ("no-xml", reply(200, b"<html>a captive portal</html>")),
        ("empty", reply(200, b"")),
        ("half", reply(200, b"<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>")),
        ("no-http", raw(b"SSH-2.0-OpenSSH_9.6\r\n")),
    ],
)
def test_an_sts_that_gives_no_answer_is_asked_again_and_then_could_not_be_reached(
    world: World, name: str, answer: Behaviour
) -> None:
    identity = f"{TEAM}lost-{name}"
    world.recorder.sts = first(answer, answer)
    world.search(identity)
    assert asked(world, identity) == 3

    identity += "-for-good"
    world.recorder.sts = always(answer)
    details = world.failure(identity)
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    assert details.message == "AWS STS could not be reached; nothing happened"
    assert asked(world, identity) == 4
    assert world.searches(identity) == []


def test_a_throttle_of_sts_is_waited_for_and_told(world: World) -> None:
    identity = TEAM + "throttled"
    throttle = refusal("Throttling", "Rate exceeded", 400)
    world.recorder.sts = first(throttle)
    world.search(identity)
    assert asked(world, identity) == 2

    identity += "-for-good"
    world.recorder.sts = always(throttle)
    details = world.failure(identity)
    assert (details.code, details.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "THROTTLED")
    assert details.retry_delay


def test_a_deadline_that_passes_while_sts_thinks_is_met_and_the_next_call_has_the_session(world: World) -> None:
    identity = TEAM + "hurried"
    world.recorder.sts_seconds = 4
    details = world.failure(identity, timeout=1.5)
    assert world.sessions(identity) == []
    assert details.info.reason == "DEADLINE_EXCEEDED"
    assert "nothing was sent" in details.message
    world.search(identity)
    assert asked(world, identity) == 1


def test_a_caller_that_goes_takes_the_session_from_nobody(world: World) -> None:
    identity = TEAM + "gone"
    world.recorder.sts_seconds = 0.8
    call = world.stubs.ProvisionProduct.future(provision(), metadata=called_by(identity), timeout=20)
    wait_for(lambda: asked(world, identity))
    call.cancel()
    world.search(identity)
    assert asked(world, identity) == 1


def test_a_silent_sts_costs_its_caller_its_deadline_and_others_nothing(world: World) -> None:
    world.recorder.sts = always(silence)
    stuck = [
        world.stubs.SearchProducts.future(
            SearchProductsRequest(), metadata=called_by(f"{TEAM}stuck-{number}"), timeout=4
        )
        for number in range(4)
    ]
    wait_for(lambda: all(asked(world, f"{TEAM}stuck-{number}") for number in range(4)))
    world.recorder.sts = first()
    world.search(TEAM + "not-stuck")
    world.search("spiffe://example.org/plain/not-stuck")
    assert {call.code() for call in stuck} == {grpc.StatusCode.DEADLINE_EXCEEDED}


def test_a_session_that_aws_refuses_is_begun_anew_within_the_call_and_with_its_token(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with serving(sandbox.url, tmp_path, PYTHONPATH=clockwork(tmp_path, _REFUSAL_SECONDS=0.1)) as world:
        world.search(RED)
        time.sleep(0.2)
        (old,) = world.sessions(RED)
        world.recorder.catalog = _answers_to_provision(lambda signed: EXPIRED if signed.session == old else None)
        answer = world.stubs.ProvisionProduct(provision(), metadata=called_by(RED), timeout=20)
        assert answer.record_detail.record_id == "rec-1"
        _, refused, taken = world.recorder.signed
        assert [refused.session, taken.session] == world.sessions(RED)
        assert refused.request.json == taken.request.json


def test_sessions_that_aws_refuses_at_once_are_not_begun_over_and_over(world: World) -> None:
    identity = TEAM + "never-good"
    world.recorder.catalog = lambda signed: EXPIRED if signed.session in world.sessions(identity) else None
    for _ in range(5):
        details = world.failure(identity)
        assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CREDENTIALS")
    assert asked(world, identity) == 1


def test_a_session_in_use_is_renewed_before_it_ends_and_no_call_waits(sandbox: Sandbox, tmp_path: Path) -> None:
    with serving(sandbox.url, tmp_path, PYTHONPATH=clockwork(tmp_path, _RENEWAL=(0.3, 0.4))) as world:
        world.recorder.lasts = 6
        world.search(RED)
        world.recorder.sts_seconds = 2.0
        took: list[float] = []
        until = time.monotonic() + 9
        while time.monotonic() < until:
            began = time.monotonic()
            world.search(RED)
            took.append(time.monotonic() - began)
            time.sleep(0.02)
        sessions = len(world.sessions(RED))
        print(f"{sessions} sessions, {len(took)} calls, {max(took):.3f} s at most")  # noqa: T201 - for -rP
        assert sessions >= 3
        assert max(took) < 2
        # AWS had nothing to refuse, so nothing was repeated.
        assert len(world.searches(RED)) == 1 + len(took)


def test_a_renewal_that_fails_harms_nobody_while_the_session_is_good(sandbox: Sandbox, tmp_path: Path) -> None:
    path = clockwork(tmp_path, _RENEWAL=(0.2, 0.2), _RETRY_SECONDS=(0.3, 0.4))
    with serving(sandbox.url, tmp_path, PYTHONPATH=path) as world:
        world.recorder.lasts = 6
        world.search(RED)
        world.recorder.sts = always(DENIED)
        call_until(world, lambda: asked(world, RED) >= 3)
        assert len(world.sessions(RED)) == 1
        # And as soon as STS gives one again, it is taken.
        world.recorder.sts = first()
        call_until(world, lambda: len(world.sessions(RED)) == 2)


def test_a_session_that_nobody_uses_is_dropped(sandbox: Sandbox, tmp_path: Path) -> None:
    with serving(sandbox.url, tmp_path, PYTHONPATH=clockwork(tmp_path, _RENEWAL=(0.4, 0.4), _IDLE=0.2)) as world:
        world.recorder.lasts = 5
        world.search(RED)
        time.sleep(2.5)
        assert asked(world, RED) == 1
        world.search(RED)
        assert asked(world, RED) == 2


def test_more_callers_than_there_is_room_for_are_served_all_the_same(sandbox: Sandbox, tmp_path: Path) -> None:
    identities = [f"{TEAM}{number}" for number in range(4)]
    with serving(sandbox.url, tmp_path, PYTHONPATH=clockwork(tmp_path, _MAX_SESSIONS=2)) as world:
        for identity in identities * 2:
            world.search(identity)
        # The least recently used ones have gone; whoever is still there need not begin again.
        world.search(identities[-1])
        assert [asked(world, identity) for identity in identities] == [2] * 4


def test_pools_of_roles_that_nobody_uses_any_more_make_room(sandbox: Sandbox, tmp_path: Path) -> None:
    identities = [f"spiffe://example.org/{name}" for name in "abcdef"]
    text = policy({identity: role(identity[-1]) for identity in identities})
    (tmp_path / "sitecustomize.py").write_text("from servicecatalog_grpc.aws import roles; roles._MAX_POOLS = 2")
    with serving(sandbox.url, tmp_path, text=text, PYTHONPATH=str(tmp_path)) as world:
        for identity in identities * 2:
            world.search(identity)
        with ThreadPoolExecutor(len(identities)) as callers:
            list(callers.map(world.search, identities * 5))
        assert all(signed.session for signed in world.recorder.signed)
        assert [asked(world, identity) for identity in identities] == [1] * 6


def test_credentials_of_the_server_that_sts_refuses_are_no_readiness(sandbox: Sandbox, tmp_path: Path) -> None:
    faster = "import servicecatalog_grpc.aws.credentials as c; c._REFRESH_SECONDS = c._RETRY_SECONDS = 0.3"
    (tmp_path / "sitecustomize.py").write_text(faster)
    with serving(sandbox.url, tmp_path, PYTHONPATH=str(tmp_path)) as world:
        message = "The security token included in the request is invalid for us-secret-key"
        world.recorder.sts = always(refusal("InvalidClientTokenId", message))
        world.recorder.catalog = lambda signed: error("UnrecognizedClientException") if not signed.session else None
        details = world.failure(RED)
        assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CREDENTIALS")
        assert "secret" not in details.message
        wait_for(lambda: not _ready(world))
        world.recorder.sts = world.recorder.catalog = first()
        wait_for(lambda: _ready(world))
        wait_for(lambda: _works(world))


def test_without_credentials_of_its_own_the_server_asks_for_no_role(sandbox: Sandbox, tmp_path: Path) -> None:
    variables = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    with serving(sandbox.url, tmp_path, **variables) as world:
        details = world.failure(RED)
        assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CREDENTIALS")
        assert world.recorder.asked == []


def test_calls_in_a_role_are_waited_for_when_the_server_stops(sandbox: Sandbox, tmp_path: Path) -> None:
    with serving(sandbox.url, tmp_path, "--grace", "20") as world:
        world.recorder.sts_seconds = 1.0
        calls = [
            world.stubs.SearchProducts.future(SearchProductsRequest(), metadata=called_by(identity), timeout=20)
            for identity in (RED, TEAM + "others", "spiffe://example.org/blue/orders")
        ]
        wait_for(lambda: len(world.recorder.asked) == 3)
        assert world.facade.stop() == 0
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}
        assert len(world.recorder.signed) == 3


def test_a_write_in_a_role_that_outlasts_the_grace_has_an_unknown_outcome(sandbox: Sandbox, tmp_path: Path) -> None:
    with serving(sandbox.url, tmp_path, "--grace", "1") as world:
        world.search(RED)
        world.recorder.catalog = always(silence)
        call = world.stubs.ProvisionProduct.future(provision(), metadata=called_by(RED), timeout=20)
        wait_for(lambda: len(world.recorder.signed) == 2)
        began = time.monotonic()
        assert world.facade.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 4
        assert call.code() == grpc.StatusCode.UNKNOWN
    assert logged(world.facade, "OUTCOME_UNKNOWN")


def test_a_silent_sts_does_not_hold_the_stop(sandbox: Sandbox, tmp_path: Path) -> None:
    with serving(sandbox.url, tmp_path, "--grace", "1") as world:
        world.recorder.sts = always(silence)
        call = world.stubs.ProvisionProduct.future(provision(), metadata=called_by(RED), timeout=20)
        wait_for(lambda: world.recorder.asked)
        began = time.monotonic()
        assert world.facade.stop() == 0
        assert time.monotonic() - began < 4
        assert call.code() == grpc.StatusCode.UNAVAILABLE
        assert world.recorder.signed == []


def call_until(world: World, condition: Callable[[], bool]) -> None:
    """Call again and again, each time with success."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        world.search(RED)
        time.sleep(0.02)


def _answers_to_provision(otherwise: Callable[[Signed], Behaviour | None]) -> Callable[[Signed], Behaviour | None]:
    answer = reply(body={"RecordDetail": {"RecordId": "rec-1"}})
    return lambda signed: otherwise(signed) or (answer if signed.operation == "ProvisionProduct" else None)


def _ready(world: World) -> bool:
    with grpc.insecure_channel(world.facade.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        request = health_pb2.HealthCheckRequest(service="servicecatalog.v1.ProvisioningService")
        return int(check(request, timeout=5).status) == health_pb2.HealthCheckResponse.SERVING


def _works(world: World) -> bool:
    try:
        world.search(RED)
    except grpc.RpcError:
        return False
    return True
