"""What becomes of a call whose caller goes away."""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from calls import ANSWER, provision
from facade import Facade, environment
from grpc import StatusCode
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.telemetry.call import token_digest
from upstream import Behaviour, Request, Upstream, abort, after, error
from waiting import wait_for


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, for one test: what was cancelled may come late."""
    upstream = Upstream()
    yield upstream
    upstream.close()


@contextmanager
def facade_before(upstream: Upstream, *flags: str) -> Iterator[tuple[Facade, ProvisioningServiceStub]]:
    with (
        Facade("serve", "--listen", "127.0.0.1:0", "--max-reads", "1", *flags, env=environment(upstream.url)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield facade, ProvisioningServiceStub(channel)


def begin(stub: ProvisioningServiceStub, token: str) -> Any:
    return stub.ProvisionProduct.future(provision(provision_token=token), timeout=20)


def tokens(upstream: Upstream) -> list[str]:
    return [request.json["ProvisionToken"] for request in upstream.requests]


def outcome(facade: Facade, token: str) -> str | None:
    """Return the outcome that the log has for the token, if any."""
    for line in list(facade.log):
        if "after its caller had gone" in line:
            entry = json.loads(line)
            if entry["token_digest"] == token_digest(token):
                return str(entry["outcome"])
    return None


class Work:
    """A behaviour that takes its time, then answers; it keeps how many requests it had at a time, and when."""

    def __init__(self, seconds: float, then: Behaviour = ANSWER) -> None:
        self.now = 0
        self.most = 0
        self.began: list[float] = []
        self.ended: list[float] = []
        self._seconds = seconds
        self._then = then
        self._lock = threading.Lock()

    def __call__(self, connection: socket.socket, request: Request) -> None:
        with self._lock:
            self.began.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self._seconds)
        with self._lock:
            self.ended.append(time.monotonic())
            self.now -= 1
        self._then(connection, request)


def test_a_call_that_is_cancelled_in_the_queue_never_reaches_aws(upstream: Upstream) -> None:
    upstream.behave(after(0.5, ANSWER), ANSWER)
    with facade_before(upstream, "--max-writes", "1") as (facade, stub):
        first = begin(stub, "first")
        wait_for(lambda: upstream.requests)
        queued = [begin(stub, f"queued-{number}") for number in range(5)]
        time.sleep(0.2)
        for each in queued:
            assert each.cancel()
        last = begin(stub, "last")
        assert (first.code(), last.code()) == (StatusCode.OK, StatusCode.OK)
        time.sleep(0.2)
        assert tokens(upstream) == ["first", "last"]
        assert "had gone" not in "".join(facade.log)


def test_a_call_that_is_cancelled_in_the_queue_leaves_its_place_there(upstream: Upstream) -> None:
    upstream.behave(after(1, ANSWER), ANSWER)
    with facade_before(upstream, "--max-writes", "1", "--max-waiting", "10") as (_, stub):
        first = begin(stub, "first")
        wait_for(lambda: upstream.requests)
        for each in [begin(stub, f"queued-{number}") for number in range(10)]:
            time.sleep(0.02)
            assert not each.done()
            each.cancel()
        time.sleep(0.1)
        others = [begin(stub, f"other-{number}") for number in range(10)]
        assert {each.code() for each in (first, *others)} == {StatusCode.OK}
    assert sorted(tokens(upstream)) == sorted(["first", *(f"other-{number}" for number in range(10))])


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (ANSWER, "OK"),
        (error("InvalidStateException", "TAINTED"), "INVALID_STATE"),
        (error("ThrottlingException", "Rate exceeded"), "THROTTLED"),
        (error("InternalFailure", "sorry", status=500), "OUTCOME_UNKNOWN"),
        (abort, "OUTCOME_UNKNOWN"),
    ],
    ids=["ok", "refused", "throttled", "500", "reset"],
)
def test_a_call_that_is_cancelled_in_flight_runs_to_its_end_and_is_logged(
    upstream: Upstream, answer: Behaviour, ended: str
) -> None:
    work = Work(0.4, answer)
    upstream.behave(work, ANSWER)
    with facade_before(upstream, "--max-writes", "1") as (facade, stub):
        call = begin(stub, "gone")
        wait_for(lambda: upstream.requests)
        assert call.cancel()
        assert call.code() == StatusCode.CANCELLED
        wait_for(lambda: outcome(facade, "gone"))
        assert outcome(facade, "gone") == ended
        assert work.ended
        (request,) = upstream.requests  # whole, and not sent again
        assert request.json["ProvisionedProductName"] == "mine"
        assert begin(stub, "next").code() == StatusCode.OK
        assert tokens(upstream) == ["gone", "next"]
        # An answer that was read to its end leaves a connection that can be used again.
        assert upstream.connections == (2 if answer is abort else 1)


def test_a_cancelled_call_keeps_its_place_until_its_thread_is_free(upstream: Upstream) -> None:
    work = Work(1)
    upstream.behave(work)
    with facade_before(upstream, "--max-writes", "2") as (facade, stub):
        gone = [begin(stub, "gone-1"), begin(stub, "gone-2")]
        wait_for(lambda: len(upstream.requests) == 2)
        for each in gone:
            each.cancel()
        assert begin(stub, "third").code() == StatusCode.OK
        assert {outcome(facade, "gone-1"), outcome(facade, "gone-2")} == {"OK"}
    assert sorted(tokens(upstream)) == ["gone-1", "gone-2", "third"]
    assert work.began[2] >= min(work.ended)
    assert work.most == 2


def test_a_storm_of_cancelled_calls_never_takes_more_than_its_places(upstream: Upstream) -> None:
    limit, count = 4, 50
    chance = random.Random(4)
    work = Work(0.15)
    upstream.behave(work)
    with facade_before(upstream, "--max-writes", str(limit)) as (facade, stub):
        timers = []
        calls = []
        for number in range(count):
            call = begin(stub, f"storm-{number}")
            calls.append(call)
            # Sooner than any of them can be answered.
            timers.append(threading.Timer(chance.uniform(0, 0.1), call.cancel))
            timers[-1].start()
            time.sleep(0.01)
        for timer in timers:
            timer.join()
        assert {call.code() for call in calls} == {StatusCode.CANCELLED}
        wait_for(lambda: all(outcome(facade, token) for token in tokens(upstream)))
        sent = tokens(upstream)
        assert {outcome(facade, token) for token in sent} == {"OK"}
        assert len(set(sent)) == len(sent)
        assert limit < len(sent) < count  # some were in flight and some in the queue
        assert work.most == limit

        # Every place is there again, and not one more.
        together = [begin(stub, f"after-{number}") for number in range(2 * limit)]
        assert {call.code() for call in together} == {StatusCode.OK}
    assert work.most == limit
    last = sorted(work.began[-2 * limit :])
    assert last[limit - 1] - last[0] < 0.15 <= last[limit] - last[0]


def test_a_call_that_is_cancelled_between_attempts_is_not_sent_again(upstream: Upstream) -> None:
    # The wait after this answer is up to 2 s; few calls are through with it when they are cancelled.
    upstream.behave(error("InvalidParametersException", "The profile does not exist"))
    with facade_before(upstream) as (_, stub):
        calls = [begin(stub, f"waiting-{number}") for number in range(20)]
        wait_for(lambda: len(set(tokens(upstream))) == 20)
        time.sleep(0.1)
        for each in calls:
            each.cancel()
        time.sleep(0.1)
        sent = len(upstream.requests)
        time.sleep(2)
    assert len(upstream.requests) == sent
    assert sent < 40


def test_a_call_cancelled_between_its_attempts_is_logged_if_aws_may_have_acted() -> None:
    upstream = Upstream()
    upstream.behave(error("InternalFailure", "", 500))
    with facade_before(upstream) as (facade, stub):
        calls = [begin(stub, f"token-{index}") for index in range(20)]
        wait_for(lambda: len({request.json["ProvisionToken"] for request in upstream.requests}) == 20)
        for call in calls:
            call.cancel()
        wait_for(lambda: all(outcome(facade, f"token-{index}") for index in range(20)))
    upstream.close()
