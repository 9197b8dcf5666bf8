"""An AWS role per caller: each request is signed with the session that STS gave for its caller, and with no other."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from aws_recorder import Recorder
from certificates import Authority
from facade import Facade, environment, logged
from role_world import ACCOUNT, TEAMS, World, called_by, clockwork, policy, role, serving
from servicecatalog.v1 import provisioning_pb2, record_service_pb2
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog_grpc.aws.session_names import session_name
from servicecatalog_grpc.sandbox import Sandbox
from status import Details
from stubs import Stubs

RED, BLUE, PLAIN = (f"spiffe://example.org/{team}/orders" for team in ("red", "blue", "plain"))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """An AWS of this module's own."""
    with Sandbox(port=0, record_seconds=0.1) as running:
        yield running


@pytest.fixture(scope="module")
def world(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    flags = ("--poll-first", "0.1", "--poll-longest", "0.2")
    with serving(sandbox.url, tmp_path_factory.mktemp("policy"), *flags) as served:
        yield served


def bucket(name: str, **fields: Any) -> pb.ProvisionProductRequest:
    parameter = provisioning_pb2.ProvisioningParameter(key="BucketName", value=f"{name}-bucket")
    return pb.ProvisionProductRequest(
        product_name="s3-bucket",
        provisioning_artifact_name="v1",
        provisioned_product_name=name,
        provisioning_parameters=[parameter],
        **fields,
    )


def test_two_callers_with_certificates_are_two_sessions_of_two_roles_in_aws(sandbox: Sandbox, tmp_path: Path) -> None:
    authority = Authority()
    ca = authority.write(tmp_path / "ca.pem")
    certificate, key = authority.issue("localhost", "127.0.0.1").write(tmp_path, "server")
    (tmp_path / "policy.yaml").write_text(TEAMS)
    flags = ("--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", ca)
    with closing(Recorder(sandbox.url)) as recorder:
        env = environment(recorder.url, AWS_ENDPOINT_URL_STS=recorder.url)
        arguments = (*map(str, flags), "--policy", str(tmp_path / "policy.yaml"), "--listen", "127.0.0.1:0")
        with Facade("serve", *arguments, env=env) as facade:
            for identity in (RED, BLUE, PLAIN, RED):
                mine = authority.issue(identity)
                credentials = grpc.ssl_channel_credentials(authority.pem, mine.key, mine.chain)
                with grpc.secure_channel(facade.address, credentials) as channel:
                    team = identity.split("/")[-2]
                    Stubs(channel).ProvisionProduct(bucket(team, provision_token=team), timeout=20)
        sessions = {session.role: session for session in recorder.sessions}
        assert set(sessions) == {role("red"), role("blue")}
        for identity, arn in ((RED, role("red")), (BLUE, role("blue"))):
            assert sessions[arn].name == sessions[arn].source_identity == session_name(identity)
        # The recorder has held each signature against the keys of these sessions.
        assert [signed.session for signed in recorder.signed] == [
            sessions[role("red")],
            sessions[role("blue")],
            None,
            sessions[role("red")],
        ]
        assert len(recorder.asked) == 2


def test_a_role_is_asked_for_as_aws_wants_it(world: World) -> None:
    identity = "spiffe://example.org/red/as-aws-wants-it"
    world.search(identity)
    (asked,) = (asked for asked in world.recorder.asked if "as-aws-wants-it" in asked["RoleSessionName"])
    assert asked == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": role("red"),
        "RoleSessionName": session_name(identity),
        "SourceIdentity": session_name(identity),
    }
    assert any(role("red") in line and session_name(identity) in line for line in world.facade.log)


@pytest.mark.parametrize("name", ["idempotency-key", "x-request-id"])
def test_a_key_of_one_caller_never_meets_the_record_of_another(world: World, name: str) -> None:
    def token(identity: str) -> str:
        _, call = world.stubs.ProvisionProduct.with_call(
            bucket(f"key-{name}"), metadata=(*called_by(identity), (name, "the-same"))
        )
        return str(dict(call.initial_metadata())["idempotency-token"])

    first = token(RED)
    assert token(RED) == first
    # AWS has a product of this name already: that it says so, and tells of no record, shows that the token is another.
    for identity in (BLUE, PLAIN, "spiffe://example.org/red/others"):
        with pytest.raises(grpc.RpcError) as raised:
            token(identity)
        details = Details(raised.value)
        assert details.code == grpc.StatusCode.ALREADY_EXISTS
        assert details.initial["idempotency-token"] != first


def test_a_caller_in_another_role_has_other_tokens(world: World, sandbox: Sandbox, tmp_path: Path) -> None:
    def token(stubs: Stubs, name: str) -> str:
        metadata = (*called_by(RED), ("idempotency-key", "moving"))
        _, call = stubs.ProvisionProduct.with_call(bucket(name), metadata=metadata)
        return str(dict(call.initial_metadata())["idempotency-token"])

    before = token(world.stubs, "before-the-move")
    with serving(sandbox.url, tmp_path, text=policy({RED: role("purple")})) as moved:
        assert token(moved.stubs, "after-the-move") != before
    with serving(sandbox.url, tmp_path, text=policy({RED: role("red")})) as same:
        assert token(same.stubs, "before-the-move") == before


def test_watches_of_callers_with_roles_are_not_shared(world: World) -> None:
    record = world.stubs.ProvisionProduct(bucket("watched"), metadata=called_by(PLAIN)).record_detail.record_id
    # Another one of the same role is another one to IAM too, which may decide by the source identity.
    identities = [RED, "spiffe://example.org/red/others", BLUE, PLAIN, "spiffe://example.org/plain/others"]
    request = record_service_pb2.WatchRecordRequest(id=record)
    watches = [world.stubs.WatchRecord(request, metadata=called_by(identity), timeout=20) for identity in identities]
    assert {list(watch)[-1].record_detail.record_id for watch in watches} == {record}
    polls = [signed for signed in world.recorder.signed if signed.request.json.get("Id") == record]
    assert {poll.session.source_identity if poll.session else None for poll in polls} == {
        *(session_name(identity) for identity in identities[:3]),
        None,
    }


def test_a_watch_of_one_caller_goes_on_as_that_caller_when_another_one_leaves(world: World) -> None:
    record = world.stubs.ProvisionProduct(bucket("left"), metadata=called_by(RED)).record_detail.record_id
    request = record_service_pb2.WatchRecordRequest(id=record)
    red, blue = (world.stubs.WatchRecord(request, metadata=called_by(identity), timeout=20) for identity in (RED, BLUE))
    next(red)
    next(blue)
    red.cancel()
    assert list(blue)
    last = [signed for signed in world.recorder.signed if signed.request.json.get("Id") == record][-1]
    assert last.session is not None
    assert last.session.role == role("blue")


def test_every_request_is_signed_for_its_caller_while_sessions_come_and_go(sandbox: Sandbox, tmp_path: Path) -> None:
    """8 callers, 4 roles, 400 calls at a time, sessions of three seconds, of which AWS ends many early."""
    identities = [f"spiffe://example.org/{name}" for name in "abcdefgh"]
    roles = {identity: role(f"role-{number % 4}") for number, identity in enumerate(identities)}
    path = clockwork(tmp_path, _RENEWAL=(0.3, 0.9), _RETRY_SECONDS=(0.1, 0.2), _REFUSAL_SECONDS=0.0, _MAX_SESSIONS=7)
    with serving(sandbox.url, tmp_path, "--max-attempts", "8", text=policy(roles), PYTHONPATH=path) as world:
        world.recorder.lasts = 3
        world.recorder.ends_early = 1.8
        calls = [*identities * 50]
        random.Random(8).shuffle(calls)

        def call(identity: str) -> None:
            time.sleep(random.uniform(0, 8))
            world.search(identity)

        with ThreadPoolExecutor(len(calls)) as callers:
            list(callers.map(call, calls))
        wrong = [
            (identity, signed.session)
            for identity in identities
            for signed in world.searches(identity)
            if signed.session is None
            or (signed.session.role, signed.session.source_identity) != (roles[identity], session_name(identity))
        ]
        assert wrong == []
        requests, sessions = len(world.recorder.signed), len(world.recorder.sessions)
        print(f"{requests} requests for {len(calls)} calls, {sessions} sessions")  # noqa: T201 - for -rP
        assert requests > len(calls)
        assert sessions > 3 * len(identities)


def test_no_key_of_a_session_is_ever_logged(sandbox: Sandbox, tmp_path: Path) -> None:
    with serving(sandbox.url, tmp_path, "--log-level", "debug") as world:
        world.search(RED)
        world.recorder.catalog = lambda _: None
        (session,) = world.recorder.sessions
        assert logged(world.facade, session.role)
    text = "".join(world.facade.log)
    assert session.access_key not in text
    assert session.secret not in text
    assert session.token not in text


def test_the_sandbox_takes_a_policy_with_roles(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(policy({"anonymous": role("anybody")}))
    flags = ("--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--policy", str(tmp_path / "policy.yaml"))
    env = environment(AWS_ENDPOINT_URL_STS="http://127.0.0.1:9")
    with Facade("sandbox", *flags, env=env) as facade, grpc.insecure_channel(facade.address) as channel:
        answer = Stubs(channel).ProvisionProduct(bucket("tried"), timeout=20)
        assert answer.record_detail.record_id
        assert logged(facade, f"AWS role {role('anybody')} taken")


def test_a_role_of_another_account_is_one_too(sandbox: Sandbox, tmp_path: Path) -> None:
    other = role("guest").replace(ACCOUNT, "999999999999")
    with serving(sandbox.url, tmp_path, text=policy({RED: other})) as world:
        world.search(RED)
        (signed,) = world.recorder.signed
        assert signed.session is not None
        assert signed.session.role == other
