"""Credentials of the server: missing, refused, expiring. No call waits for them, and liveness never depends on them."""

import json
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from calls import ANSWER, provision
from facade import Facade, environment, logged
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from status import Details
from upstream import Request, Upstream, error
from waiting import wait_for

SERVICE = "servicecatalog.v1.ProvisioningService"
STATUS = health_pb2.HealthCheckResponse

# What AWS says to the server's question whether it takes the credentials: it does, and there is no such record.
NO_RECORD = error("ResourceNotFoundException", "no such record")

# Python reads this at its start: the server's clockwork, faster, or these tests would last minutes.
FASTER = """
import servicecatalog_grpc.aws.credentials as credentials
assert credentials._REFRESH_SECONDS and credentials._RETRY_SECONDS
credentials._REFRESH_SECONDS = credentials._RETRY_SECONDS = 0.3
"""

# A credential_process (https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html): each run
# leaves a line in `runs`, takes its time, and gives credentials for some seconds, unless there is a file `broken`.
PROCESS = """
import datetime, json, pathlib, sys, time
here, lasts = pathlib.Path(sys.argv[1]), float(sys.argv[2])
with (here / "runs").open("a") as runs:
    print(time.time(), file=runs)
time.sleep(float((here / "takes").read_text()))
if (here / "broken").exists():
    sys.exit("no credentials today")
number = len((here / "runs").read_text().splitlines())
expiration = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=lasts)
print(json.dumps({
    "Version": 1, "AccessKeyId": f"KEY{number}", "SecretAccessKey": "secret", "SessionToken": "session",
    "Expiration": expiration.isoformat(),
}))
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """In the place of AWS."""
    with closing(Upstream()) as server:
        yield server


class Caller(NamedTuple):
    """What a caller has of the server."""

    facade: Facade
    channel: grpc.Channel

    def call(self) -> grpc.Call:
        _, call = ProvisioningServiceStub(self.channel).ProvisionProduct.with_call(provision(), timeout=10)
        return call

    def failure(self) -> Details:
        with pytest.raises(grpc.RpcError) as raised:
            self.call()
        return Details(raised.value)

    def health(self, service: str) -> int:
        check = health_pb2_grpc.HealthStub(self.channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        return int(check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)

    @property
    def alive(self) -> bool:
        return self.health("") == STATUS.SERVING

    @property
    def ready(self) -> bool:
        return self.health(SERVICE) == STATUS.SERVING


@contextmanager
def serving(upstream: Upstream, *flags: str, **variables: str) -> Iterator[Caller]:
    """Serve with these variables; credentials are there only if these bring them."""
    env = environment(upstream.url)
    del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    with (
        Facade("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1", *flags, env=env | variables) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield Caller(facade, channel)


def check_no_credentials(details: Details) -> None:
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CREDENTIALS")


def access_key(request: Request) -> str:
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


class Process:
    """A credential_process, and the settings that make the server use it."""

    def __init__(self, directory: Path, *, lasts: float, takes: float = 0) -> None:
        """`lasts` is how long its credentials are good for, and `takes` how long it runs, both in seconds."""
        self._directory = directory
        self.take(takes)
        (directory / "process.py").write_text(PROCESS)
        (directory / "sitecustomize.py").write_text(textwrap.dedent(FASTER))
        config = directory / "config"
        command = f"{sys.executable} {directory / 'process.py'} {directory} {lasts}"
        config.write_text(f"[default]\ncredential_process = {command}\n")
        self.variables = {"AWS_CONFIG_FILE": str(config), "PYTHONPATH": str(directory)}

    @property
    def runs(self) -> int:
        runs = self._directory / "runs"
        return len(runs.read_text().splitlines()) if runs.exists() else 0

    def take(self, seconds: float) -> None:
        (self._directory / "takes").write_text(str(seconds))

    def fail(self) -> None:
        (self._directory / "broken").touch()

    def work(self) -> None:
        (self._directory / "broken").unlink()


def test_without_credentials_it_lives_and_is_ready_as_soon_as_they_appear(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave(ANSWER)
    shared = tmp_path / "credentials"
    with serving(upstream, AWS_SHARED_CREDENTIALS_FILE=str(shared)) as caller:
        assert caller.alive
        assert not caller.ready
        began = time.monotonic()
        details = caller.failure()
        assert time.monotonic() - began < 1
        check_no_credentials(details)
        assert "idempotency-token" not in details.initial
        assert "idempotency_token" not in details.info.metadata
        assert upstream.requests == []

        shared.write_text("[default]\naws_access_key_id = APPEARED\naws_secret_access_key = secret\n")
        took = wait_for(lambda: caller.ready, 12)
        print(f"ready {took:.1f} s after the credentials appeared")  # noqa: T201 - for -rP
        caller.call()
        assert [access_key(request) for request in upstream.requests] == ["APPEARED"]


@pytest.mark.parametrize("code", ["UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"])
def test_refused_credentials_are_no_readiness_until_aws_takes_them(
    upstream: Upstream, tmp_path: Path, code: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FASTER)
    variables = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "PYTHONPATH": str(tmp_path)}
    upstream.behave(ANSWER)
    with serving(upstream, **variables) as caller:
        caller.call()
        assert caller.ready

        upstream.behave(error(code, "the security token included in the request is no good"))
        check_no_credentials(caller.failure())
        wait_for(lambda: not caller.ready, 5)
        assert caller.alive
        asked = len(upstream.requests)
        wait_for(lambda: len(upstream.requests) > asked + 1, 5)
        assert not caller.ready

        upstream.behave(NO_RECORD)
        wait_for(lambda: caller.ready, 5)
        assert {request.target.rpartition(".")[2] for request in upstream.requests} == {"DescribeRecord"}
        upstream.behave(ANSWER)
        caller.call()


def test_refused_credentials_are_read_anew(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FASTER)
    shared = tmp_path / "credentials"
    shared.write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = secret\n")

    def takes_new_ones(connection: socket.socket, request: Request) -> None:
        taken = access_key(request) == "NEW"
        (ANSWER if taken else error("UnrecognizedClientException"))(connection, request)

    upstream.behave(takes_new_ones)
    with serving(upstream, AWS_SHARED_CREDENTIALS_FILE=str(shared), PYTHONPATH=str(tmp_path)) as caller:
        check_no_credentials(caller.failure())
        wait_for(lambda: not caller.ready, 5)
        shared.write_text("[default]\naws_access_key_id = NEW\naws_secret_access_key = secret\n")
        wait_for(lambda: caller.ready, 5)
        caller.call()


def test_an_unreachable_aws_is_no_matter_of_credentials(upstream: Upstream) -> None:
    upstream.close()
    with serving(upstream, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s") as caller:
        assert caller.failure().info.reason == "UPSTREAM_UNREACHABLE"
        time.sleep(0.2)
        assert caller.ready
        assert caller.alive


def test_credentials_that_take_long_to_come_do_not_hold_the_start(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave(ANSWER)
    process = Process(tmp_path, takes=3, lasts=3600)
    with serving(upstream, **process.variables) as caller:
        assert caller.alive
        check_no_credentials(caller.failure())
        assert upstream.requests == []
        wait_for(lambda: any("AWS credentials work" in line for line in caller.facade.log), 10)
        assert caller.ready
        caller.call()
    assert process.runs == 1


def test_expiring_credentials_are_refreshed_and_no_call_waits(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave(ANSWER)
    # Within botocore's windows of 15 and 10 minutes: each look at them is a run of the process.
    process = Process(tmp_path, lasts=300)
    with serving(upstream, **process.variables) as caller:
        wait_for(lambda: caller.ready, 10)
        process.take(1.5)
        runs = process.runs
        latencies = []
        until = time.monotonic() + 4.5
        while time.monotonic() < until:
            began = time.monotonic()
            caller.call()
            latencies.append(time.monotonic() - began)
            time.sleep(0.01)
        assert caller.ready
        print(  # noqa: T201 - for -rP
            f"{process.runs - runs} runs beside {len(latencies)} calls of at most {max(latencies):.3f} s"
        )
        assert process.runs >= runs + 2
        assert max(latencies) < 1
    assert len({access_key(request) for request in upstream.requests}) >= 2


def test_a_refresh_that_fails_is_no_harm_while_the_old_credentials_last(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave(ANSWER)
    process = Process(tmp_path, lasts=300)
    # At the level info, botocore logs the failure with a traceback.
    with serving(upstream, "--log-level", "error", **process.variables) as caller:
        wait_for(lambda: caller.ready, 10)
        process.fail()
        time.sleep(0.5)
        runs = process.runs
        wait_for(lambda: process.runs >= runs + 3, 10)
        assert caller.ready
        caller.call()


def test_expired_credentials_are_no_readiness_until_there_are_new_ones(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave(ANSWER)
    process = Process(tmp_path, lasts=4)
    with serving(upstream, "--log-level", "error", **process.variables) as caller:
        wait_for(lambda: caller.ready, 10)
        process.fail()
        wait_for(lambda: not caller.ready, 10)
        assert caller.alive
        upstream.behave(ANSWER)
        check_no_credentials(caller.failure())
        assert upstream.requests == []
        process.work()
        wait_for(lambda: caller.ready, 10)
        caller.call()
    assert json.loads(upstream.requests[0].body)["ProductId"] == "prod-1"


def test_services_are_not_ready_while_the_first_credentials_are_on_their_way(
    upstream: Upstream, tmp_path: Path
) -> None:
    process = Process(tmp_path, takes=3, lasts=3600)
    with serving(upstream, **process.variables) as caller:
        assert caller.health(SERVICE) == health_pb2.HealthCheckResponse.NOT_SERVING  # is: NOT_FOUND


def test_a_refresh_that_fails_is_logged_without_a_traceback_and_without_what_the_process_says(
    upstream: Upstream, tmp_path: Path
) -> None:
    process = Process(tmp_path, lasts=300)
    with serving(upstream, **process.variables) as caller:
        process.fail()
        time.sleep(1.5)
    assert not logged(caller.facade, "no credentials today")
