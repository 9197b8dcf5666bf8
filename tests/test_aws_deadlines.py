"""A call ends with its deadline whatever AWS does, and leaves nothing behind."""

import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import grpc
import pytest
from calls import ANSWER, provision
from facade import Facade, environment
from grpc import StatusCode
from grpc_status import rpc_status
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from status import Details
from upstream import Behaviour, Connections, Request, Upstream, after, error, reply, silence, trickle, trickled, unread

CALLERS = 100
WRITES = 8


@contextmanager
def facade_before(url: str, *flags: str) -> Iterator[ProvisioningServiceStub]:
    with (
        Facade("serve", "--listen", "127.0.0.1:0", "--max-reads", "1", *flags, env=environment(url)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield ProvisioningServiceStub(channel)


@pytest.fixture(scope="module")
def _upstream_and_stub() -> Iterator[tuple[Upstream, ProvisioningServiceStub]]:
    upstream = Upstream()
    with facade_before(upstream.url, "--max-writes", str(WRITES), "--default-deadline", "0.5") as stub:
        yield upstream, stub
    upstream.close()


@pytest.fixture
def upstream(_upstream_and_stub: tuple[Upstream, ProvisioningServiceStub]) -> Upstream:
    """In the place of AWS, for this module alone."""
    return _upstream_and_stub[0]


@pytest.fixture
def stub(_upstream_and_stub: tuple[Upstream, ProvisioningServiceStub]) -> ProvisioningServiceStub:
    """A stub of a façade with few threads and a short deadline for calls that set none."""
    return _upstream_and_stub[1]


class End(NamedTuple):
    """How a call ended, and after how many seconds; `details` is None where the client's own clock ended it."""

    code: StatusCode
    seconds: float
    details: Details | None


def calls(stub: ProvisioningServiceStub, count: int, timeout: float) -> list[End]:
    """Make so many calls at once and return their ends."""
    ends: list[End] = []
    last = threading.Semaphore(0)

    def one(number: int) -> None:
        start = time.monotonic()

        def ended(future: Any) -> None:
            seconds = time.monotonic() - start
            failed = future.code() != StatusCode.OK and rpc_status.from_call(future) is not None
            ends.append(End(future.code(), seconds, Details(future) if failed else None))
            last.release()

        stub.ProvisionProduct.future(provision(provision_token=f"call-{number}"), timeout=timeout).add_done_callback(
            ended
        )

    for number in range(count):
        one(number)
    for _ in range(count):
        assert last.acquire(timeout=20)
    return ends


def check_expired(ends: list[End]) -> None:
    """See that they all ended by a deadline of 0.2 s, within 0.5 s but for the slack of a busy machine."""
    assert {end.code for end in ends} == {StatusCode.DEADLINE_EXCEEDED}
    assert {end.details.info.reason for end in ends if end.details} <= {"DEADLINE_EXCEEDED"}
    seconds = sorted(end.seconds for end in ends)
    measured = f"median {statistics.median(seconds):.3f} s, slowest {seconds[-1]:.3f} s"
    assert statistics.median(seconds) < 0.5, measured
    assert seconds[-1] < 1.0, measured


def check_free(stub: ProvisioningServiceStub, code: StatusCode) -> None:
    """See that as many calls as there are places for writes get this answer at once."""
    ends = calls(stub, WRITES, timeout=10)
    assert {end.code for end in ends} == {code}
    slowest = max(end.seconds for end in ends)
    assert slowest < 0.5, f"slowest {slowest:.3f} s"


def test_of_calls_at_a_time_each_ends_by_its_own_deadline(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(silence)
    timeouts = (3.0, 1.0, 2.0, 1.5, 2.5)
    start = time.monotonic()
    made: list[Any] = [stub.ProvisionProduct.future(provision(), timeout=timeout) for timeout in timeouts]
    for timeout, call in sorted(zip(timeouts, made, strict=True), key=lambda each: each[0]):
        # The façade tells of it, a moment before the caller's own clock would.
        assert call.code() == StatusCode.DEADLINE_EXCEEDED
        assert Details(call).info.reason == "DEADLINE_EXCEEDED"
        assert timeout * 0.8 < time.monotonic() - start < timeout + 0.3
    upstream.behave(ANSWER)
    check_free(stub, StatusCode.OK)


def test_a_hundred_callers_are_not_held_by_an_aws_that_never_answers(
    stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    held = _Count(silence)
    upstream.behave(held)
    check_expired(calls(stub, CALLERS, timeout=0.2))
    assert held.most >= WRITES
    time.sleep(1)
    assert held.now == 0
    together = threading.Barrier(WRITES)

    def once_all_are_here(connection: socket.socket, request: Request) -> None:
        together.wait(5)
        ANSWER(connection, request)

    upstream.behave(once_all_are_here)
    check_free(stub, StatusCode.OK)


def _answer(connection: socket.socket) -> None:
    connection.recv(65536)
    body = b'{"RecordDetail": {"RecordId": "rec-1"}}'
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    while connection.recv(65536):
        pass


@pytest.mark.parametrize(
    ("scheme", "then", "code"),
    [
        ("http", _answer, StatusCode.OK),
        # Hanging up in the middle of the handshake is the fastest that a server without a certificate can do.
        ("https", lambda _: None, StatusCode.UNAVAILABLE),
    ],
    ids=["never reads", "never ends its TLS handshake"],
)
def test_a_hundred_callers_are_not_held_by_a_server_that(
    scheme: str, then: Callable[[socket.socket], None], code: StatusCode
) -> None:
    server = Connections()
    server.behave(unread)
    with facade_before(server.url.replace("http", scheme), "--max-writes", str(WRITES), "--max-attempts", "1") as stub:
        check_expired(calls(stub, CALLERS, timeout=0.2))
        assert server.accepted >= WRITES
        time.sleep(1)
        server.behave(then)
        check_free(stub, code)
    server.close()


def test_a_hundred_callers_are_not_held_by_a_host_that_never_answers_a_connect() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.settimeout(0)
            with suppress(BlockingIOError):
                each.connect(address)
        flags = ("--max-writes", str(WRITES), "--max-attempts", "1")
        with facade_before(f"http://127.0.0.1:{address[1]}", *flags) as stub:
            ends = calls(stub, CALLERS, timeout=0.2)
            check_expired(ends)
            assert all("nothing was sent" in end.details.message for end in ends if end.details)
            time.sleep(1)
            for each in (full, *waiting):
                each.close()
            check_free(stub, StatusCode.UNAVAILABLE)


def test_most_callers_learn_the_token_of_a_call_that_expired(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(silence)
    ends = [end for _ in range(4) for end in calls(stub, WRITES, timeout=0.5)]
    assert {end.code for end in ends} == {StatusCode.DEADLINE_EXCEEDED}
    told = [end.details for end in ends if end.details]
    assert len(told) > len(ends) / 2, f"{len(told)} of {len(ends)}"
    for details in told:
        assert details.info.reason == "DEADLINE_EXCEEDED"
        assert details.info.metadata["aws_operation"] == "ProvisionProduct"
        assert details.info.metadata["idempotency_token"] == details.initial["idempotency-token"]
        assert details.info.metadata["idempotency_token"].startswith("call-")
        assert details.retry_delay is None


def test_a_caller_without_a_deadline_gets_the_server_s(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(silence)
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        stub.ProvisionProduct(provision())
    seconds = time.monotonic() - start
    details = Details(raised.value)
    assert (details.code, details.info.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    (request,) = upstream.requests
    assert details.info.metadata["idempotency_token"] == request.json["ProvisionToken"]
    assert details.initial["idempotency-token"] == request.json["ProvisionToken"]
    assert "may have acted" in details.message
    assert 0.49 < seconds < 1.0, f"{seconds:.3f} s"


def test_the_deadline_bounds_all_attempts_together(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(after(0.2, error("InternalFailure", "sorry", status=500)))
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        stub.ProvisionProduct(provision())
    seconds = time.monotonic() - start
    assert Details(raised.value).info.reason in ("OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED")
    assert seconds < 1.0, f"{seconds:.3f} s"
    assert 1 < len(upstream.requests) < 4


def test_the_thread_of_an_expired_call_is_free_at_once(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    held = _Count(silence)
    upstream.behave(held)
    start = time.monotonic()
    (end,) = calls(stub, 1, timeout=0.4)
    assert end.code == StatusCode.DEADLINE_EXCEEDED
    while held.now:
        time.sleep(0.005)
    seconds = time.monotonic() - start
    assert seconds < 0.4 + 0.3, f"{seconds:.3f} s"


def test_a_call_that_expires_in_the_queue_is_never_sent() -> None:
    upstream = Upstream()
    upstream.behave(after(1, ANSWER))
    with facade_before(upstream.url, "--max-writes", "1") as stub:
        first = stub.ProvisionProduct.future(provision(provision_token="first"), timeout=10)
        while not upstream.requests:
            time.sleep(0.01)
        with pytest.raises(grpc.RpcError) as raised:
            stub.ProvisionProduct(provision(provision_token="second"), timeout=0.5)
        details = Details(raised.value)
        assert first.code() == StatusCode.OK
        time.sleep(0.2)
    assert (details.code, details.info.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert details.info.metadata == {"aws_operation": "ProvisionProduct"}
    assert "idempotency-token" not in details.initial
    assert "nothing was sent" in details.message
    assert [request.json["ProvisionToken"] for request in upstream.requests] == ["first"]
    upstream.close()


def test_the_connection_of_a_call_that_ended_well_is_used_again(
    stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    _end_connections(stub, upstream)
    upstream.behave(_echo)
    assert [_record_of(stub, f"again-{number}") for number in range(5)] == [f"again-{number}" for number in range(5)]
    assert upstream.connections == 1


def test_the_connection_of_an_expired_call_is_not_used_again(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    _end_connections(stub, upstream)
    upstream.behave(after(0.4, _echo), _echo)
    with pytest.raises(grpc.RpcError):
        _record_of(stub, "early", timeout=0.2)
    assert _record_of(stub, "next") == "next"
    time.sleep(0.4)  # by now the late answer has been sent
    assert _record_of(stub, "last") == "last"
    assert upstream.connections == 2


def test_answers_never_cross(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    chance = random.Random(3)
    delays = [chance.uniform(0, 0.25) for _ in range(120)]
    behaviours = [after(delay, _echo) for delay in delays]
    upstream.behave(*behaviours, _echo)

    def one(number: int) -> bool:
        token = f"cross-{number}"
        call = stub.ProvisionProduct.future(provision(provision_token=token), timeout=0.15)
        assert call.code() in (StatusCode.OK, StatusCode.DEADLINE_EXCEEDED)
        if call.code() == StatusCode.OK:
            assert call.result().record_detail.record_id == token
        return bool(call.code() == StatusCode.OK)

    with ThreadPoolExecutor(WRITES) as callers:
        well = list(callers.map(one, range(len(behaviours))))
    assert 10 < well.count(True) < len(well) - 10  # or this has shown nothing


@pytest.mark.parametrize("pause", [0, 0.05])
def test_an_answer_that_nobody_asked_for_reaches_nobody(
    stub: ProvisioningServiceStub, upstream: Upstream, pause: float
) -> None:
    def twice(connection: socket.socket, request: Request) -> None:
        _echo(connection, request)
        time.sleep(pause)
        _echo(connection, request)

    upstream.behave(twice)
    for number in range(5):
        assert _record_of(stub, f"once-{number}") == f"once-{number}"
        time.sleep(0.1)


@pytest.mark.parametrize("seconds", [30 * 86400, 10 * 365 * 86400])
def test_a_deadline_far_away_is_as_good_as_any(
    stub: ProvisioningServiceStub, upstream: Upstream, seconds: float
) -> None:
    upstream.behave(_echo)
    assert _record_of(stub, "far", timeout=seconds) == "far"


class _Count:
    """A behaviour that counts how many requests it is at work on."""

    def __init__(self, then: Behaviour) -> None:
        self.now = 0
        self.most = 0
        self._then = then
        self._lock = threading.Lock()

    def __call__(self, connection: socket.socket, request: Request) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self._then(connection, request)
        finally:
            with self._lock:
                self.now -= 1


def _echo(connection: socket.socket, request: Request) -> None:
    """Answer with a record whose id is the request's token."""
    reply(body={"RecordDetail": {"RecordId": request.json["ProvisionToken"]}})(connection, request)


def _record_of(stub: ProvisioningServiceStub, token: str, timeout: float = 10) -> str:
    response = stub.ProvisionProduct(provision(provision_token=token), timeout=timeout)
    record_id: str = response.record_detail.record_id
    return record_id


def _end_connections(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    """Let the façade have no connection left that another test opened: expired ones are not used again."""
    upstream.behave(silence)
    calls(stub, WRITES, timeout=0.2)
    time.sleep(0.3)


@pytest.mark.parametrize(
    "behaviour",
    [trickle, trickled({"RecordDetail": {"RecordId": "r" * 60}}, 0.02)],
    ids=["headers", "body"],
)
def test_a_reply_that_the_deadline_cuts_short_is_no_garbled_one(
    behaviour: Behaviour, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    upstream.behave(behaviour)
    with pytest.raises(grpc.RpcError) as raised:
        stub.ProvisionProduct(provision(), timeout=0.5)
    assert Details(raised.value).info.reason == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("seconds", [10, 15])
def test_the_token_arrives_also_where_grpc_rounds_the_deadline_up(
    seconds: int, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    upstream.behave(silence)
    assert all(end.details for end in calls(stub, 4, seconds))


def test_callers_that_hang_up_leave_no_traceback_in_the_log() -> None:
    upstream = Upstream()
    upstream.behave(silence)
    with facade_before(upstream.url, "--max-writes", "8") as stub:  # which looks for one at its end
        for _ in range(5):
            calls(stub, 100, 0.05)
    upstream.close()
