"""Connections as proxies and load balancers treat them: silent, pinged, old, and full of metadata."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import grpc
import pytest
from calls import ANSWER, provision
from facade import peers, serve
from http2 import ACK, ENHANCE_YOUR_CALM, GOAWAY, PING, Connection, Frame
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_service_pb2 import WatchRecordRequest
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub
from upstream import Upstream, after, reply
from waiting import wait_for

# What a caller sees is then the server's doing and not that of gRPC's own retries.
NO_RETRIES = (("grpc.enable_retries", 0),)

IN_PROGRESS = reply(body={"RecordDetail": {"RecordId": "rec-1", "Status": "IN_PROGRESS"}})
SUCCEEDED = reply(body={"RecordDetail": {"RecordId": "rec-1", "Status": "SUCCEEDED"}})


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """In the place of AWS."""
    with closing(Upstream()) as server:
        server.behave(ANSWER)
        yield server


def pings(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame.kind == PING]


# Keepalive


def test_a_silent_connection_is_pinged_and_dropped_when_it_is_dead_and_one_that_pings_is_kept(
    upstream: Upstream,
) -> None:
    """Without any call, as connections are at night. The one that pings does so as often as it may."""
    with (
        serve(upstream.url, "--keepalive-time", "1") as facade,
        Connection(facade.address) as dead,
        Connection(facade.address) as alive,
    ):
        from_dead: list[Frame] = []
        from_alive: list[Frame] = []

        def answer() -> None:
            for frame in alive.frames():
                from_alive.append(frame)
                if frame.kind == PING and not frame.flags & ACK:
                    alive.send(PING, ACK, frame.payload)

        threading.Thread(target=answer, daemon=True).start()
        began = time.monotonic()
        ended = threading.Thread(target=lambda: from_dead.extend(dead.frames()), daemon=True)
        ended.start()
        sent = 0
        # By its own rules, gRPC would send it away at the fourth ping.
        while ended.is_alive() or sent < 5:
            assert time.monotonic() - began < 90
            alive.ping(b"i am her")
            sent += 1
            time.sleep(5.5)
        assert len(pings(from_dead)) == 1
        wait_for(lambda: sum(frame.payload == b"i am her" for frame in from_alive) == sent)
        assert GOAWAY not in {frame.kind for frame in from_alive}
        assert sum(not frame.flags & ACK for frame in pings(from_alive)) > 3


def test_a_client_that_floods_the_server_with_pings_is_sent_away(upstream: Upstream) -> None:
    with serve(upstream.url) as facade, Connection(facade.address) as connection:
        for _ in range(10):
            connection.ping(b"me again")
        goaway = next(frame for frame in connection.frames() if frame.kind == GOAWAY)
        assert int.from_bytes(goaway.payload[4:8]) == ENHANCE_YOUR_CALM
        assert goaway.payload[8:] == b"too_many_pings"


# Age


def test_calls_go_on_over_new_connections_when_the_old_ones_get_too_old(upstream: Upstream) -> None:
    with (
        serve(upstream.url, "--max-connection-age", "0.5") as facade,
        grpc.insecure_channel(facade.address, NO_RETRIES) as channel,
    ):
        stub = ProvisioningServiceStub(channel)
        calls = 0
        while len(peers(facade)) < 4:
            stub.ProvisionProduct(provision(), timeout=20)
            calls += 1
            assert calls < 20_000
        assert calls > 4


def test_a_call_that_is_at_work_when_its_connection_gets_too_old_ends_well_within_the_grace(upstream: Upstream) -> None:
    with (
        serve(upstream.url, "--max-connection-age", "0.5", "--max-connection-age-grace", "60") as facade,
        grpc.insecure_channel(facade.address, NO_RETRIES) as channel,
    ):
        upstream.behave(after(2, ANSWER))
        stub = ProvisioningServiceStub(channel)
        assert stub.ProvisionProduct(provision(), timeout=20).record_detail.record_id == "rec-1"


def test_a_watch_breaks_after_the_grace_with_the_code_that_says_to_call_again(upstream: Upstream) -> None:
    upstream.behave(IN_PROGRESS)
    flags = ("--max-connection-age", "0.5", "--max-connection-age-grace", "0.5", "--poll-first", "0.1")
    with serve(upstream.url, *flags) as facade, grpc.insecure_channel(facade.address, NO_RETRIES) as channel:
        watch = RecordServiceStub(channel).WatchRecord
        states = watch(WatchRecordRequest(id="rec-1"), timeout=60)
        assert next(states).record_detail.record_id == "rec-1"
        with pytest.raises(grpc.RpcError) as raised:
            next(states)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        upstream.behave(SUCCEEDED)
        assert len(list(watch(WatchRecordRequest(id="rec-1"), timeout=20))) == 1


# Limits


def test_metadata_within_the_limit_is_never_refused(
    stub: ProvisioningServiceStub, upstream_of_facade: Upstream
) -> None:
    # gRPC's own limits would refuse most of these, at random.
    for _ in range(20):
        stub.ProvisionProduct(provision(), metadata=(("x-large", "x" * 15 * 1024),), timeout=20)
    assert len(upstream_of_facade.requests) == 20


@pytest.mark.parametrize(
    "metadata",
    [(("x-large", "x" * 17 * 1024),), tuple((f"x-many-{number}", "x") for number in range(500))],
    ids=["one", "many"],
)
def test_metadata_beyond_the_limit_is_refused_and_harms_no_other_call(
    stub: ProvisioningServiceStub, upstream_of_facade: Upstream, metadata: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.ProvisionProduct(provision(), metadata=metadata, timeout=20)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert upstream_of_facade.requests == []
    assert stub.ProvisionProduct(provision(), timeout=20).record_detail.record_id == "rec-1"


@pytest.fixture
def upstream_of_facade(_upstream: Upstream) -> Upstream:
    """In the place of AWS, behind the façade that all modules share."""
    _upstream.behave(ANSWER)
    return _upstream
