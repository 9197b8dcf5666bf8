"""`wait` follows a record over whatever passes, and ends with what does not, in time."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import servicecatalog
import servicecatalog.aio
from both_clients import BOTH, GENERATORS, AnyClient
from servicecatalog import Failure
from servicecatalog._watching import Watching
from servicecatalog.v1.error_reason_pb2 import ErrorReason
from servicecatalog.v1.record_pb2 import RecordDetail, RecordStatus
from servicecatalog.v1.record_service_pb2 import WatchRecordResponse
from stand_in import StandIn, fail, hold, info, retry_in, states

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNKNOWN


def state(status: RecordStatus.ValueType) -> WatchRecordResponse:
    return WatchRecordResponse(record_detail=RecordDetail(record_id="rec-1", status=status))


CREATED = state(RecordStatus.RECORD_STATUS_CREATED)
IN_ERROR = state(RecordStatus.RECORD_STATUS_IN_PROGRESS_IN_ERROR)
SUCCEEDED = state(RecordStatus.RECORD_STATUS_SUCCEEDED)
FAILED = state(RecordStatus.RECORD_STATUS_FAILED)


@pytest.fixture
def facade() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(params=BOTH)
def client(request: pytest.FixtureRequest, facade: StandIn) -> Iterator[AnyClient]:
    with BOTH[request.param](facade.address, plaintext=True) as client:
        yield client


@pytest.mark.parametrize("last", [SUCCEEDED, FAILED])
def test_it_returns_the_last_state_whatever_that_is(
    client: AnyClient, facade: StandIn, last: WatchRecordResponse
) -> None:
    facade.answer(states(CREATED, IN_ERROR, last))
    seen: list[WatchRecordResponse] = []
    assert client.wait("rec-1", on_change=seen.append) == last
    assert seen == [CREATED, IN_ERROR, last]
    (received,) = facade.received
    assert received.request.id == "rec-1"
    assert received.time_left > 1e6


def test_it_resumes_a_broken_stream_and_tells_only_what_changed(client: AnyClient, facade: StandIn) -> None:
    facade.answer(
        states(CREATED, then=fail(UNAVAILABLE, info("SHUTTING_DOWN"))),
        states(CREATED, then=fail(UNKNOWN, message="a proxy's")),
        states(CREATED),
        states(IN_ERROR, SUCCEEDED),
    )
    seen: list[WatchRecordResponse] = []
    assert client.wait("rec-1", timeout=20, on_change=seen.append) == SUCCEEDED
    assert seen == [CREATED, IN_ERROR, SUCCEEDED]
    assert len(facade.received) == 4
    # gRPC rounds what is left up for the wire.
    assert all(each.time_left < 20.5 for each in facade.received)


def test_a_stream_that_breaks_after_the_end_has_ended(client: AnyClient, facade: StandIn) -> None:
    facade.answer(states(SUCCEEDED, then=fail(UNAVAILABLE)))
    assert client.wait("rec-1") == SUCCEEDED


def test_it_comes_back_when_the_facade_says(client: AnyClient, facade: StandIn) -> None:
    facade.answer(fail(grpc.StatusCode.RESOURCE_EXHAUSTED, info("OVERLOADED"), retry_in(0.7)), states(SUCCEEDED))
    client.wait("rec-1")
    first, second = facade.received
    assert 0.7 <= second.at - first.at < 3


def test_it_finds_a_facade_that_has_restarted(client: AnyClient, facade: StandIn) -> None:
    facade.answer(states(CREATED, then=hold(threading.Event())))
    restarted: list[StandIn] = []

    def restart() -> None:
        facade.stop()
        restarted.append(StandIn(facade.address))
        restarted[0].answer(states(SUCCEEDED))
        restarted[0].__enter__()

    waiting = threading.Timer(0.3, restart)
    waiting.start()
    try:
        assert client.wait("rec-1", timeout=20) == SUCCEEDED
    finally:
        waiting.join()
        restarted[0].stop()


@pytest.mark.parametrize(
    "answer",
    [
        fail(grpc.StatusCode.NOT_FOUND, info("RESOURCE_NOT_FOUND")),
        fail(grpc.StatusCode.PERMISSION_DENIED, info("RECORD_ACCESS_LOST")),
        fail(grpc.StatusCode.INVALID_ARGUMENT, info("INVALID_REQUEST")),
        fail(grpc.StatusCode.UNAUTHENTICATED),
        fail(grpc.StatusCode.INTERNAL, info("INTERNAL")),
    ],
)
def test_what_does_not_pass_is_raised(client: AnyClient, facade: StandIn, answer: Any) -> None:
    facade.answer(states(CREATED, then=answer))
    with pytest.raises(Failure) as raised:
        client.wait("rec-1", timeout=20)
    assert raised.value.message == "no"
    assert len(facade.received) == 1


def test_it_ends_at_its_deadline_on_a_silent_stream(client: AnyClient, facade: StandIn) -> None:
    facade.answer(states(CREATED, then=hold(threading.Event())))
    _ends_at_the_deadline(client)


@pytest.mark.parametrize("details", [[info("THROTTLED"), retry_in(60)], []])
def test_it_ends_at_its_deadline_between_two_streams(client: AnyClient, facade: StandIn, details: list[Any]) -> None:
    facade.answer(fail(grpc.StatusCode.ABORTED if not details else grpc.StatusCode.RESOURCE_EXHAUSTED, *details))
    raised = _ends_at_the_deadline(client)
    assert isinstance(raised.__cause__, Failure)


def test_a_deadline_that_has_passed_is_no_wait(client: AnyClient, facade: StandIn) -> None:
    facade.answer(states(SUCCEEDED))
    with pytest.raises(Failure, match="DEADLINE_EXCEEDED"):
        client.wait("rec-1", timeout=0)


def test_the_observers_own_failure_is_no_break(client: AnyClient, facade: StandIn) -> None:
    def observe(_: object) -> None:
        raise Failure(UNAVAILABLE)

    facade.answer(states(CREATED, then=hold(threading.Event())))
    with pytest.raises(Failure, match="UNAVAILABLE"):
        client.wait("rec-1", on_change=observe)
    assert len(facade.received) == 1


@pytest.mark.parametrize("client_class", BOTH.values(), ids=BOTH)
def test_an_interceptor_may_replace_the_stream(client_class: type[AnyClient], facade: StandIn) -> None:
    facade.answer(states(CREATED, then=fail(UNAVAILABLE)), states(CREATED, SUCCEEDED))
    with client_class(facade.address, plaintext=True, interceptors=[GENERATORS[client_class]()]) as client:
        assert client.wait("rec-1") == SUCCEEDED
        facade.answer(states(CREATED, then=hold(threading.Event())))
        _ends_at_the_deadline(client)


@pytest.mark.parametrize("when", ["streaming", "pausing"])
def test_closing_the_client_ends_a_wait(facade: StandIn, when: str) -> None:
    begin(facade, when)
    client = servicecatalog.connect(facade.address, plaintext=True)
    threading.Timer(0.3, client.close).start()
    started = time.monotonic()
    with pytest.raises(Failure, match="CANCELLED: the client was closed"):
        client.wait("rec-1")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("when", ["streaming", "pausing"])
def test_cancelling_a_task_ends_a_wait(facade: StandIn, when: str) -> None:
    async def wait() -> None:
        async with servicecatalog.aio.connect(facade.address, plaintext=True) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.wait("rec-1")

    begin(facade, when)
    started = time.monotonic()
    asyncio.run(wait())
    assert time.monotonic() - started < 5


WAIT = """
import sys, servicecatalog
with servicecatalog.connect(sys.argv[1], plaintext=True) as client:
    print("waiting", flush=True)
    client.wait("rec-1", timeout=60)
"""


@pytest.mark.parametrize("when", ["streaming", "pausing"])
def test_ctrl_c_ends_a_wait(facade: StandIn, when: str) -> None:
    begin(facade, when)
    with subprocess.Popen(
        [sys.executable, "-c", WAIT, facade.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        process.stdout.readline()
        while not facade.received:
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors


def begin(facade: StandIn, when: str) -> None:
    """Make the façade answer so that a wait is in the middle of a stream, or between two."""
    streaming = states(CREATED, then=hold(threading.Event()))
    pausing = fail(grpc.StatusCode.RESOURCE_EXHAUSTED, info("THROTTLED"), retry_in(60))
    facade.answer({"streaming": streaming, "pausing": pausing}[when])


def _ends_at_the_deadline(client: AnyClient) -> Failure:
    started = time.monotonic()
    with pytest.raises(Failure) as raised:
        client.wait("rec-1", timeout=0.5)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.45 < time.monotonic() - started < 5
    return raised.value


def failure(code: grpc.StatusCode, reason: str | None) -> Failure:
    trailing: list[tuple[str, bytes]] = []
    if reason is not None:

        class Context:
            send_initial_metadata = abort = staticmethod(lambda *_: None)
            set_trailing_metadata = staticmethod(trailing.extend)

        answer: Callable[[Any], Any] = fail(code, info(reason))
        answer(Context)
    return Failure(code, trailing_metadata=trailing)


PASSING_CODES = {"UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED"}
PASSING_REASONS = {"THROTTLED", "OVERLOADED", "DEADLINE_EXCEEDED"}
REASONS = [*(name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()), "NEWER"]  # noqa: SIM118 # no dict


@pytest.mark.parametrize("code", list(grpc.StatusCode)[1:], ids=lambda code: code.name)
def test_a_failure_without_a_reason_passes_by_its_code(code: grpc.StatusCode) -> None:
    assert _resumed(failure(code, None)) == (code.name in PASSING_CODES)


@pytest.mark.parametrize("reason", REASONS)
def test_a_failure_with_a_reason_passes_by_its_reason(reason: str) -> None:
    assert _resumed(failure(UNKNOWN, reason)) == (reason in PASSING_REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_unavailable_passes_whatever_its_reason(reason: str) -> None:
    assert _resumed(failure(UNAVAILABLE, reason))


def test_pauses_grow_and_start_again_after_a_message() -> None:
    watching = Watching("rec-1", None)
    pauses = [watching.pause(None) for _ in range(8)]
    expected = [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert all(0.8 * base <= pause <= 1.2 * base for base, pause in zip(expected, pauses, strict=True))
    assert len({pause / base for base, pause in zip(expected, pauses, strict=True)}) > 1
    watching.saw(CREATED)
    assert watching.pause(None) <= 0.24


def _resumed(failure: Failure) -> bool:
    try:
        return Watching("rec-1", None).pause(failure) > 0
    except Failure as raised:
        return raised is not failure
