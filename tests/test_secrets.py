"""Values that may be secrets, at the debug level: in no line of the log, and in no status but where AWS itself says them.

Each value that could be one holds a canary; whatever a call comes to, nobody but AWS and its caller may see it fly.
"""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import ANSWER, OWNER, properties, provision, update
from facade import Facade, environment
from google.protobuf.message import Message
from grpc_status import rpc_status
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Behaviour, Upstream, abort, after, error, hang_up, raw, reply, silence, trickled, truncated
from waiting import wait_for

CANARY = "canary8f3a91"
PARAMETER, TAG, PROPERTY, REPLY = (f"{CANARY}-{kind}" for kind in ("parameter", "tag", "property", "reply"))
SECRET_KEY, SESSION_TOKEN = f"{CANARY}SecretKey", f"{CANARY}SessionToken"
ECHO = f"Parameter 'Password' has the value {PARAMETER}, which"

REQUESTS: tuple[Message, ...] = (
    provision(provisioning_parameters=[{"key": "Password", "value": PARAMETER}], tags=[{"key": "team", "value": TAG}]),
    update(
        provisioning_parameters=[{"key": "Password", "value": PARAMETER}, {"key": "Old", "use_previous_value": True}],
        tags=[{"key": "team", "value": TAG}],
    ),
    properties(provisioned_product_properties={"OWNER": f"{OWNER}/{PROPERTY}"}),
)

# What goes wrong in the server, in a request's way before and after the thread: each says all that it knows.
FAULT_BEFORE = """
import servicecatalog_grpc.translation.values as values
def fault(_, value):
    raise ValueError(f"{value}")
values.Structure.to_aws = fault
"""
FAULT_IN_THREAD = """
import botocore.client
def fault(_, operation, members):
    raise ValueError(f"{members}")
botocore.client.BaseClient._make_api_call = fault
"""
FAULT_AFTER = """
import servicecatalog_grpc.translation.values as values
def fault(_, message, raw):
    raise ValueError(f"{raw}")
values.Structure.fill = fault
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """In the place of AWS."""
    with closing(Upstream()) as server:
        yield server


def serve(upstream: Upstream, *flags: str, **variables: str) -> Facade:
    env = environment(upstream.url, AWS_SECRET_ACCESS_KEY=SECRET_KEY, AWS_SESSION_TOKEN=SESSION_TOKEN)
    return Facade("serve", "--listen", "127.0.0.1:0", "--max-attempts", "2", *flags, env=env | variables)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Facade, Upstream]]:
    """One server for all that fails alike, whose log is checked at its end too."""
    with closing(Upstream()) as upstream:
        with serve(upstream, "--log-level", "debug") as facade:
            yield facade, upstream
        check_log(facade)


def call(channel: grpc.Channel, request: Message, timeout: float = 10) -> Any:
    stub = ProvisioningServiceStub(channel)
    return getattr(stub, request.DESCRIPTOR.name.removesuffix("Request")).future(request, timeout=timeout)


def failures(address: str, timeout: float = 10) -> list[str]:
    """Make each call and return all that the caller gets of its failure, as one text."""
    texts = []
    with grpc.insecure_channel(address) as channel:
        for request in REQUESTS:
            with pytest.raises(grpc.RpcError) as raised:
                call(channel, request, timeout).result(timeout=20)
            failed: Any = raised.value
            status = rpc_status.from_call(failed)
            texts.append(f"{failed}{status}{failed.initial_metadata()}{failed.trailing_metadata()}")
    return texts


def check_log(facade: Facade) -> None:
    """See no canary in what the server has written, though it wrote much."""
    lines = [*facade.output, *facade.log]
    assert any(re.search(r"\bDEBUG\b", line) for line in lines)
    assert [line for line in lines if CANARY in line] == []


@pytest.mark.parametrize(
    ("flags", "variables"),
    [(("--log-level", "debug"), {}), ((), {"SERVICECATALOG_GRPC_LOG_LEVEL": "debug"})],
    ids=["flag", "variable"],
)
def test_calls_that_go_well(upstream: Upstream, flags: tuple[str, ...], variables: dict[str, str]) -> None:
    record = {"RecordId": "rec-1", "RecordTags": [{"Key": "team", "Value": REPLY}], "Status": "SUCCEEDED"}
    upstream.behave(reply(body={"RecordDetail": record, "RecordId": "rec-1", "News": REPLY}))
    with serve(upstream, *flags, **variables) as facade, grpc.insecure_channel(facade.address) as channel:
        for request in REQUESTS:
            call(channel, request).result(timeout=20)
    sent = b"".join(request.body for request in upstream.requests).decode()
    assert [canary for canary in (PARAMETER, TAG, PROPERTY) if canary not in sent] == []
    assert all(request.headers["x-amz-security-token"] == SESSION_TOKEN for request in upstream.requests)
    check_log(facade)


@pytest.mark.parametrize(
    "request_",
    [
        provision(provisioning_parameters=[{"key": "Password", "value": PARAMETER.ljust(4097, "x")}]),
        provision(provisioning_parameters=[{"key": "", "value": PARAMETER}]),
        provision(tags=[{"key": "team", "value": f"{TAG}\0"}]),
        provision(tags=[{"key": "team", "value": TAG.ljust(257, "x")}]),
        provision(provisioned_product_name=f"{CANARY} {CANARY}"),
        update(provisioning_parameters=[{"key": "Password", "value": PARAMETER.ljust(4097, "x")}]),
        properties(provisioned_product_properties={"OWNER": PROPERTY}),
        properties(provisioned_product_properties={"LAUNCH_ROLE": f"{OWNER}/{PROPERTY}"}),
    ],
    ids=["long", "no-key", "tag", "long-tag", "name", "update", "owner", "role"],
)
def test_requests_that_break_a_rule(shared: tuple[Facade, Upstream], request_: Message) -> None:
    facade, upstream = shared
    upstream.behave(ANSWER)
    with grpc.insecure_channel(facade.address) as channel, pytest.raises(grpc.RpcError) as raised:
        call(channel, request_).result(timeout=20)
    failed: Any = raised.value
    assert failed.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert CANARY not in f"{failed}{rpc_status.from_call(failed)}{failed.trailing_metadata()}"
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("InvalidParametersException", 400),
        ("ValidationException", 400),
        ("ResourceNotFoundException", 400),
        ("AccessDeniedException", 400),
        ("ThrottlingException", 400),
        ("NeverHeardOfException", 400),
    ],
)
def test_errors_of_aws_that_echo_a_value_reach_the_caller_alone(
    shared: tuple[Facade, Upstream], code: str, status: int
) -> None:
    facade, upstream = shared
    upstream.behave(error(code, f"{ECHO} is bad", status))
    assert all(ECHO in text for text in failures(facade.address))
    check_log(facade)


GARBLED: dict[str, Behaviour] = {
    "server-error": error("InternalFailure", ECHO, 500),
    "unavailable": reply(503, f"<html>{REPLY}</html>".encode()),
    "html": reply(200, f"<html>{REPLY}</html>".encode()),
    "truncated": truncated({"RecordDetail": {"RecordId": REPLY}}, 40),
    "no-record": reply(body={"RecordDetail": {"RecordTags": [{"Key": "k", "Value": REPLY}]}}),
    "wrong-shape": reply(body={"RecordDetail": {"RecordId": [REPLY]}, "RecordId": [REPLY]}),
    "wrong-list": reply(body={"RecordDetail": {"RecordId": "rec-1", "RecordTags": REPLY}, "RecordId": [REPLY]}),
    "wrong-time": reply(body={"RecordDetail": {"RecordId": "rec-1", "CreatedTime": REPLY}, "RecordId": [REPLY]}),
    "wrong-root": reply(body=[REPLY]),
    "no-http": raw(f"{REPLY}\r\n\r\n".encode()),
    "wrong-length": raw(f"HTTP/1.1 200 OK\r\nContent-Length: {REPLY}\r\n\r\n{REPLY}".encode()),
    "wrong-chunks": raw(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{REPLY}\r\n".encode()),
    "hang-up": hang_up,
    "reset": abort,
}


@pytest.mark.parametrize("behaviour", GARBLED.values(), ids=GARBLED)
def test_replies_that_are_garbled_or_lost(shared: tuple[Facade, Upstream], behaviour: Behaviour) -> None:
    facade, upstream = shared
    upstream.behave(behaviour)
    texts = failures(facade.address)
    assert PARAMETER in upstream.requests[0].body.decode()
    assert [text for text in texts if CANARY in text] == []
    check_log(facade)


@pytest.mark.parametrize(
    "behaviour", [silence, trickled({"RecordDetail": {"RecordId": REPLY}}, 0.05)], ids=["silence", "trickle"]
)
def test_deadlines_that_pass(upstream: Upstream, behaviour: Behaviour) -> None:
    upstream.behave(behaviour)
    with serve(upstream, "--log-level", "debug") as facade:
        texts = failures(facade.address, timeout=0.5)
    assert [text for text in texts if CANARY in text] == []
    check_log(facade)


def test_calls_that_are_cancelled(upstream: Upstream) -> None:
    record = reply(body={"RecordDetail": {"RecordId": REPLY}})
    upstream.behave(*(after(0.3, each) for each in (record, error("ValidationException", ECHO), hang_up)))
    with (
        serve(upstream, "--log-level", "debug", "--max-attempts", "1") as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        for request in REQUESTS:
            ended = len(orphans(facade))
            cancelled = call(channel, request)
            time.sleep(0.15)
            cancelled.cancel()
            wait_for(lambda ended=ended: len(orphans(facade)) > ended)  # type: ignore[misc]
    assert len(upstream.requests) == len(REQUESTS)
    check_log(facade)


def orphans(facade: Facade) -> list[str]:
    return [line for line in facade.log if "after its caller had gone" in line]


@pytest.mark.parametrize("fault", [FAULT_BEFORE, FAULT_IN_THREAD, FAULT_AFTER], ids=["before", "thread", "after"])
def test_faults_of_the_server_itself(upstream: Upstream, tmp_path: Path, fault: str) -> None:
    # Python reads this at its start.
    (tmp_path / "sitecustomize.py").write_text(fault)
    upstream.behave(reply(body={"RecordDetail": {"RecordId": REPLY}, "RecordId": REPLY}))
    with serve(upstream, "--log-level", "debug", PYTHONPATH=str(tmp_path)) as facade:
        texts = failures(facade.address)
    assert all("StatusCode.INTERNAL" in text for text in texts)
    assert [text for text in texts if CANARY in text or "ValueError" in text] == []
    assert sum("a fault of this server: ValueError" in line for line in facade.log) == len(REQUESTS)
    check_log(facade)


def test_the_sandbox() -> None:
    request = provision(
        product_id=None,
        product_name="sqs-queue",
        provisioning_artifact_id=None,
        provisioning_artifact_name="v1",
        provisioning_parameters=[{"key": "QueueName", "value": PARAMETER}],
        tags=[{"key": "team", "value": TAG}],
    )
    arguments = ("--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--record-seconds", "0.2")
    with (
        Facade("sandbox", *arguments, "--log-level", "debug", env=environment()) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        assert call(channel, request).result(timeout=20).record_detail.record_id
        time.sleep(0.6)
    check_log(facade)
