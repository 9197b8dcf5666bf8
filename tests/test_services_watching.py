"""Watching a record: to its end, however many watch, and with a clear status where the end cannot be seen."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from facade import Facade, environment
from process import Health
from servicecatalog.v1 import provisioning_service_pb2, provisioning_service_pb2_grpc
from servicecatalog.v1 import record_service_pb2 as pb
from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub
from status import Details
from upstream import Behaviour, Request, Upstream, error, hang_up, reply
from waiting import wait_for

FIRST, LONGEST = 0.1, 0.4
FLAGS = ("--poll-first", str(FIRST), "--poll-longest", str(LONGEST), "--poll-rate", "1000")

NOT_FOUND = error("ResourceNotFoundException", "Record rec-1 not found.")


def state(status: str, *outputs: str, record_id: str = "rec-1") -> dict[str, Any]:
    """Return AWS's answer on a record."""
    return {
        "RecordDetail": {"RecordId": record_id, "Status": status},
        "RecordOutputs": [{"OutputKey": key, "OutputValue": "value"} for key in outputs],
    }


def is_(status: str, *outputs: str) -> Behaviour:
    return reply(body=state(status, *outputs))


def statuses(responses: list[pb.WatchRecordResponse]) -> list[str]:
    return [RecordStatus.Name(response.record_detail.status).removeprefix("RECORD_STATUS_") for response in responses]


@contextmanager
def watching(url: str, *flags: str) -> Iterator[tuple[Facade, RecordServiceStub]]:
    with (
        Facade("serve", "--listen", "127.0.0.1:0", *FLAGS, *flags, env=environment(url)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield facade, RecordServiceStub(channel)


@pytest.fixture(scope="module")
def _watching() -> Iterator[tuple[Upstream, RecordServiceStub]]:
    upstream = Upstream()
    with watching(upstream.url) as (_, stub):
        yield upstream, stub
    upstream.close()


@pytest.fixture
def upstream(_watching: tuple[Upstream, RecordServiceStub]) -> Upstream:
    """In the place of AWS, for this module alone."""
    return _watching[0]


@pytest.fixture
def stub(_watching: tuple[Upstream, RecordServiceStub]) -> RecordServiceStub:
    """A stub of a façade that polls quickly."""
    return _watching[1]


def watch(stub: RecordServiceStub, record_id: str = "rec-1", timeout: float = 20) -> list[pb.WatchRecordResponse]:
    return list(stub.WatchRecord(pb.WatchRecordRequest(id=record_id), timeout=timeout))


def failed(stub: RecordServiceStub, record_id: str = "rec-1", timeout: float = 20) -> Details:
    with pytest.raises(grpc.RpcError) as raised:
        watch(stub, record_id, timeout)
    return Details(raised.value)


def test_a_watch_sees_every_change_and_ends_after_the_last_with_its_outputs(
    stub: RecordServiceStub, upstream: Upstream
) -> None:
    upstream.behave(
        is_("CREATED"),
        is_("IN_PROGRESS"),
        is_("IN_PROGRESS"),
        is_("IN_PROGRESS_IN_ERROR"),
        is_("IN_PROGRESS"),
        is_("SUCCEEDED", "Url", "Arn"),
    )
    seen = watch(stub)
    assert statuses(seen) == ["CREATED", "IN_PROGRESS", "IN_PROGRESS_IN_ERROR", "IN_PROGRESS", "SUCCEEDED"]
    assert [output.output_key for output in seen[-1].record_outputs] == ["Url", "Arn"]
    assert {request.target for request in upstream.requests} == {"AWS242ServiceCatalogService.DescribeRecord"}
    assert {request.json["Id"] for request in upstream.requests} == {"rec-1"}


def test_a_record_that_has_ended_is_told_at_once_and_asked_for_once(
    stub: RecordServiceStub, upstream: Upstream
) -> None:
    failure = state("FAILED")
    failure["RecordDetail"]["RecordErrors"] = [{"Code": "A", "Description": "a"}, {"Code": "B", "Description": "b"}]
    upstream.behave(reply(body=failure))
    begin = time.monotonic()
    (only,) = watch(stub)
    assert time.monotonic() - begin < FIRST * 5
    assert [each.code for each in only.record_detail.record_errors] == ["A", "B"]
    assert len(upstream.requests) == 1


def test_the_last_message_has_the_outputs_of_all_pages(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(
        reply(body={**state("SUCCEEDED", "One"), "NextPageToken": "more"}), reply(body=state("SUCCEEDED", "Two"))
    )
    (only,) = watch(stub)
    assert [output.output_key for output in only.record_outputs] == ["One", "Two"]


def test_a_bad_id_is_refused_before_anything_is_asked(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(is_("SUCCEEDED"))
    for bad in ("", "no id", "r" * 101):
        details = failed(stub, bad)
        assert details.code == grpc.StatusCode.INVALID_ARGUMENT
        assert set(details.violations) == {"id"}
    assert upstream.requests == []


def test_a_record_that_is_not_there_yet_is_waited_for(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(NOT_FOUND, NOT_FOUND, is_("CREATED"), is_("SUCCEEDED"))
    assert statuses(watch(stub)) == ["CREATED", "SUCCEEDED"]


def test_a_record_that_never_comes_is_not_found(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(NOT_FOUND)
    details = failed(stub)
    assert (details.code, details.info.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert details.info.metadata["aws_operation"] == "DescribeRecord"
    assert 2 < len(upstream.requests) < 20


def test_a_record_that_gets_another_owner_is_lost_and_the_reason_says_so(
    stub: RecordServiceStub, upstream: Upstream
) -> None:
    upstream.behave(is_("IN_PROGRESS"), error("AccessDeniedException", "not authorized"))
    details = failed(stub)
    assert (details.code, details.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "RECORD_ACCESS_LOST")


def test_a_bad_request_says_which_operation_it_was_for(stub: RecordServiceStub) -> None:
    assert failed(stub, "").info.metadata == {"aws_operation": "DescribeRecord"}


def test_watches_that_were_given_up_keep_nobody_waiting() -> None:
    upstream = Upstream()
    upstream.behave(Records(200))
    with watching(upstream.url, "--poll-rate", "5") as (_, stub):
        storm = [stub.WatchRecord(pb.WatchRecordRequest(id=f"rec-{index}")) for index in range(200)]
        for call in storm:
            next(call)
        begin = time.monotonic()
        late = stub.WatchRecord(pb.WatchRecordRequest(id="rec-1"))
        next(late)
        assert time.monotonic() - begin < 1  # although 200 looks take 40 s
        for call in storm:
            call.cancel()
        upstream.behave(is_("SUCCEEDED"))
        assert statuses(list(late)) == ["SUCCEEDED"]
        assert time.monotonic() - begin < 3
    upstream.close()


def test_a_record_of_somebody_else_is_denied(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(error("AccessDeniedException", "not authorized"))
    details = failed(stub)
    assert (details.code, details.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
    assert len(upstream.requests) == 1


def test_throttles_and_lost_answers_are_lived_through(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(
        is_("CREATED"),
        error("ThrottlingException", "Rate exceeded"),
        error("InternalFailure", "", 500),
        is_("IN_PROGRESS"),
        reply(body=b"<html>"),
        is_("SUCCEEDED"),
    )
    assert statuses(watch(stub)) == ["CREATED", "IN_PROGRESS", "SUCCEEDED"]


def test_a_throttle_of_one_slows_all_pollers_down() -> None:
    upstream = Upstream()
    records = Records(2)

    def asked_in_three_seconds(*, throttled: bool) -> int:
        def behave(connection: Any, request: Request) -> None:
            if throttled and request.json["Id"] == "rec-1":
                error("ThrottlingException", "Rate exceeded")(connection, request)
            else:
                records(connection, request)

        upstream.behave(behave)
        records.asked.clear()
        with watching(upstream.url) as (_, stub):
            calls = [stub.WatchRecord(pb.WatchRecordRequest(id=f"rec-{index}")) for index in range(2)]
            time.sleep(3)
            for call in calls:
                call.cancel()
        return records.asked["rec-0"]

    usual = asked_in_three_seconds(throttled=False)
    assert asked_in_three_seconds(throttled=True) < usual * 0.7
    upstream.close()


def test_a_deadline_ends_a_watch_with_details(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(is_("IN_PROGRESS"))
    begin = time.monotonic()
    details = failed(stub, timeout=1)
    assert 0.8 < time.monotonic() - begin < 1.2
    assert (details.code, details.info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


def test_a_watch_that_broke_is_resumed_by_calling_again(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(is_("IN_PROGRESS"))
    failed(stub, timeout=0.5)
    upstream.behave(is_("SUCCEEDED"))
    assert statuses(watch(stub)) == ["SUCCEEDED"]


class Records:
    """Many records that go on when they are told; it counts who asks for which."""

    def __init__(self, count: int) -> None:
        self.status = dict.fromkeys((f"rec-{index}" for index in range(count)), "IN_PROGRESS")
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, connection: Any, request: Request) -> None:
        record_id = json.loads(request.body)["Id"]
        with self._lock:
            self.asked[record_id] += 1
            status = self.status[record_id]
        reply(body=state(status, record_id=record_id))(connection, request)

    def end(self) -> None:
        with self._lock:
            self.status = dict.fromkeys(self.status, "SUCCEEDED")


def test_however_many_watch_a_record_is_asked_for_as_often_as_for_one(
    stub: RecordServiceStub, upstream: Upstream
) -> None:
    records = Records(10)
    upstream.behave(records)
    with ThreadPoolExecutor(100) as pool:
        watches = [pool.submit(watch, stub, f"rec-{index % 10}") for index in range(100)]
        time.sleep(3)
        records.end()
        ended = time.monotonic()
        ends = [statuses(each.result())[-1] for each in watches]
    assert ends == ["SUCCEEDED"] * 100
    assert time.monotonic() - ended < LONGEST * 1.2 + 0.5
    # One poller alone: as often as the pauses allow, each at its shortest, and the ones at both ends.
    alone = 3 / (FIRST * 0.8)
    assert max(records.asked.values()) < alone
    growing = [FIRST * 1.5**step for step in range(4)]
    assert max(records.asked.values()) <= len(growing) + 3 / (LONGEST * 0.8) + 2


def test_nobody_asks_for_a_record_that_nobody_watches(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(is_("IN_PROGRESS"))
    calls = [stub.WatchRecord(pb.WatchRecordRequest(id="rec-1")) for _ in range(3)]
    for call in calls:
        next(call)
    for call in calls:
        call.cancel()
    time.sleep(LONGEST * 2)
    asked = len(upstream.requests)
    time.sleep(LONGEST * 3)
    assert len(upstream.requests) == asked


def test_a_watcher_that_stops_reading_costs_only_itself(stub: RecordServiceStub, upstream: Upstream) -> None:
    records = Records(1)
    upstream.behave(records)
    slow = stub.WatchRecord(pb.WatchRecordRequest(id="rec-0"))
    with ThreadPoolExecutor(1) as pool:
        quick = pool.submit(watch, stub, "rec-0")
        time.sleep(1)
        records.end()
        assert statuses(quick.result(timeout=5))[-1] == "SUCCEEDED"
    assert statuses(list(slow))[-1] == "SUCCEEDED"


def test_too_many_watches_are_refused_at_once() -> None:
    upstream = Upstream()
    upstream.behave(is_("IN_PROGRESS"))
    with watching(upstream.url, "--max-watches", "2") as (_, stub):
        calls = [stub.WatchRecord(pb.WatchRecordRequest(id=f"rec-{index}")) for index in range(2)]
        for call in calls:
            next(call)
        details = failed(stub)
        assert (details.code, details.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert details.retry_delay
        calls[0].cancel()
        wait_for(lambda: next(stub.WatchRecord(pb.WatchRecordRequest(id="rec-3")), None))
        calls[1].cancel()
    upstream.close()


def test_all_pollers_together_keep_to_their_rate() -> None:
    upstream = Upstream()
    records = Records(20)
    upstream.behave(records)
    with watching(upstream.url, "--poll-rate", "10") as (_, stub):
        calls = [stub.WatchRecord(pb.WatchRecordRequest(id=f"rec-{index}")) for index in range(20)]
        time.sleep(3)
        asked = sum(records.asked.values())
        for call in calls:
            call.cancel()
    upstream.close()
    assert 20 < asked <= 20 + 10 * 3 * 1.2 + 1  # each record's first look, and then the rate of all


def test_a_stop_ends_all_watches_within_the_grace_and_sends_them_elsewhere() -> None:
    upstream = Upstream()
    upstream.behave(Records(50))
    with watching(upstream.url, "--grace", "10") as (facade, stub):
        ends: list[grpc.StatusCode | None] = []
        reasons: list[str] = []

        def follow(index: int) -> None:
            try:
                watch(stub, f"rec-{index % 50}", timeout=60)
            except grpc.RpcError as error:
                details = Details(error)
                ends.append(details.code)
                reasons.append(details.info.reason)

        with ThreadPoolExecutor(1000) as pool:
            watches = [pool.submit(follow, index) for index in range(1000)]
            time.sleep(2)
            begin = time.monotonic()
            assert facade.stop(signal.SIGTERM) == 0
            stopped = time.monotonic() - begin
            for each in watches:
                each.result()
    upstream.close()
    assert stopped < 5
    assert Counter(ends) == {grpc.StatusCode.UNAVAILABLE: 1000}
    assert set(reasons) == {"SHUTTING_DOWN"}


def test_a_poller_that_fails_for_ever_gives_up(stub: RecordServiceStub, upstream: Upstream) -> None:
    upstream.behave(is_("IN_PROGRESS"), error("InternalFailure", "", 500))
    details = failed(stub)
    assert (details.code, details.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    assert 5 < len(upstream.requests) < 20


def test_a_watch_outlives_an_aws_that_is_away_for_a_while() -> None:
    first = Upstream()
    first.behave(is_("IN_PROGRESS"))
    with watching(first.url) as (_, stub):
        call = stub.WatchRecord(pb.WatchRecordRequest(id="rec-1"), timeout=20)
        next(call)
        port = first.port
        first.behave(hang_up)
        first.close()
        time.sleep(1)
        second = Upstream(port)
        second.behave(is_("SUCCEEDED"))
        assert statuses(list(call)) == ["SUCCEEDED"]
        second.close()


def test_callers_that_come_and_go_leave_nothing_behind() -> None:
    upstream = Upstream()
    upstream.behave(Records(20))
    chance = random.Random(5)
    with watching(upstream.url) as (facade, stub):

        def storm() -> Health:
            calls = [stub.WatchRecord(pb.WatchRecordRequest(id=f"rec-{index % 20}")) for index in range(500)]
            for call in chance.sample(calls, 250):
                next(call)
            for call in calls:
                call.cancel()
            # A caller that dies says nothing at all.
            script = (
                "import grpc, os, sys; from servicecatalog.v1 import record_service_pb2 as pb;"
                "from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub;"
                "stub = RecordServiceStub(grpc.insecure_channel(sys.argv[1]));"
                "calls = [stub.WatchRecord(pb.WatchRecordRequest(id=f'rec-{i}')) for i in range(20)];"
                "[next(call) for call in calls]; os.kill(os.getpid(), 9)"
            )
            assert subprocess.run([sys.executable, "-c", script, facade.address], check=False).returncode == -9
            time.sleep(1)
            return Health.of(facade.process.pid)

        storm()
        settled = storm()
        for _ in range(3):
            final = storm()
        asked = len(upstream.requests)
        time.sleep(LONGEST * 2)
        assert len(upstream.requests) == asked  # nobody is polled for any more
        assert final.threads < settled.threads + 5  # of the pool, which grows with the calls that meet
        assert final.sockets < settled.sockets + 3  # one a storm would be a leak; those to AWS may be more by now
        # 17 KiB for each of 1,500 watches would be 25 MiB; over 25 storms the memory swings within 10.
        assert final.kibibytes < settled.kibibytes + 14 * 1024
    upstream.close()


def test_watches_hold_no_place_and_no_thread_of_other_calls() -> None:
    upstream = Upstream()
    records = Records(300)

    def behave(connection: Any, request: Request) -> None:
        if request.target.endswith("DescribeRecord"):
            records(connection, request)
        else:
            reply(body={"RecordDetail": {"RecordId": "rec-new"}})(connection, request)

    upstream.behave(behave)
    with watching(upstream.url, "--max-writes", "1", "--max-reads", "1") as (facade, stub):
        calls = [stub.WatchRecord(pb.WatchRecordRequest(id=f"rec-{index}")) for index in range(300)]
        for call in calls:
            next(call)
        with grpc.insecure_channel(facade.address) as channel:
            writes = provisioning_service_pb2_grpc.ProvisioningServiceStub(channel)
            request = provisioning_service_pb2.ProvisionProductRequest(
                product_id="prod-1", provisioning_artifact_id="pa-1", provisioned_product_name="mine"
            )
            assert writes.ProvisionProduct(request, timeout=5).record_detail.record_id == "rec-new"
        assert stub.DescribeRecord(pb.DescribeRecordRequest(id="rec-1"), timeout=5).record_detail.record_id == "rec-1"
        for call in calls:
            call.cancel()
    upstream.close()
