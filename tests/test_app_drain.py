"""How the server stops: what is in flight ends well, what comes later is refused, and a second signal waits for nothing."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest
from calls import ANSWER, provision
from facade import logged, serve
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream, after, until
from waiting import wait_for

GRACE = 10

# What a caller sees is then the server's doing and not that of gRPC's own retries.
NO_RETRIES = (("grpc.enable_retries", 0),)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, for the servers of this module."""
    with closing(Upstream()) as server:
        yield server


CALLERS = 16


@contextmanager
def in_flight(address: str, upstream: Upstream, token: str, release: threading.Event) -> Iterator[Any]:
    """Make a call that AWS answers once `release` is set, and go on when AWS has it."""
    upstream.behave(until(release, ANSWER))
    with grpc.insecure_channel(address, NO_RETRIES) as channel:
        call = ProvisioningServiceStub(channel).ProvisionProduct.future(provision(provision_token=token), timeout=20)
        wait_for(lambda: len(upstream.requests) == 1)
        try:
            yield call
        finally:
            release.set()


def test_whoever_watches_its_health_hears_of_the_stop_before_the_calls_end(upstream: Upstream) -> None:
    release = threading.Event()
    statuses = health_pb2.HealthCheckResponse
    with (
        serve(upstream.url, "--grace", str(GRACE)) as facade,
        in_flight(facade.address, upstream, "in-flight", release) as call,
        grpc.insecure_channel(facade.address, NO_RETRIES) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch  # type: ignore[attr-defined]  # the stubs lack it
        watches = [
            watch(health_pb2.HealthCheckRequest(service=service), timeout=20)
            for service in ("", "servicecatalog.v1.ProvisioningService")
        ]
        assert [next(each).status for each in watches] == [statuses.SERVING] * 2
        facade.process.terminate()
        began = time.monotonic()
        assert [next(each).status for each in watches] == [statuses.NOT_SERVING] * 2
        assert time.monotonic() - began < 2
        assert not call.done()
        for each in watches:
            each.cancel()
        release.set()
        assert call.result(timeout=10).record_detail.record_id == "rec-1"
        assert facade.process.wait(5) == 0


def test_new_callers_are_refused_while_the_last_calls_end(upstream: Upstream) -> None:
    release = threading.Event()
    with (
        serve(upstream.url, "--grace", str(GRACE)) as facade,
        in_flight(facade.address, upstream, "in-flight", release) as call,
        grpc.insecure_channel(facade.address, NO_RETRIES) as channel,
    ):
        facade.process.terminate()
        wait_for(lambda: logged(facade, "draining"))
        time.sleep(0.2)
        with pytest.raises(grpc.RpcError) as raised:
            ProvisioningServiceStub(channel).ProvisionProduct(provision(provision_token="late"), timeout=5)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        assert not call.done()
        release.set()
        assert call.result(timeout=10).record_detail.record_id == "rec-1"
        assert facade.process.wait(5) == 0
    assert [request.json["ProvisionToken"] for request in upstream.requests] == ["in-flight"]


def test_calls_that_wait_for_their_turn_are_in_flight_too(upstream: Upstream) -> None:
    release = threading.Event()
    with (
        serve(upstream.url, "--grace", str(GRACE), "--max-writes", "1") as facade,
        in_flight(facade.address, upstream, "first", release) as first,
        grpc.insecure_channel(facade.address, NO_RETRIES) as channel,
    ):
        stub = ProvisioningServiceStub(channel)
        waiting = [stub.ProvisionProduct.future(provision(provision_token=f"waiting-{n}"), timeout=20) for n in "123"]
        time.sleep(0.3)
        facade.process.terminate()
        wait_for(lambda: logged(facade, "draining"))
        release.set()
        for call in (first, *waiting):
            assert call.result(timeout=10).record_detail.record_id == "rec-1"
        assert facade.process.wait(5) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(upstream: Upstream, number: signal.Signals, status: int) -> None:
    with (
        serve(upstream.url, "--grace", "60") as facade,
        in_flight(facade.address, upstream, "in-flight", threading.Event()) as call,
    ):
        facade.process.send_signal(number)
        wait_for(lambda: logged(facade, "draining"))
        time.sleep(0.3)
        assert facade.process.poll() is None
        began = time.monotonic()
        assert facade.stop(number) == status
        assert time.monotonic() - began < 1
        with pytest.raises(grpc.RpcError):
            call.result(timeout=5)
    assert logged(facade, "second signal")


def test_with_nothing_in_flight_it_stops_at_once(upstream: Upstream) -> None:
    with serve(upstream.url, "--grace", "60") as facade, grpc.insecure_channel(facade.address) as channel:
        upstream.behave(ANSWER)
        ProvisioningServiceStub(channel).ProvisionProduct(provision())
        began = time.monotonic()
        assert facade.stop() == 0
        assert time.monotonic() - began < 2


class Caller(threading.Thread):
    """Calls one after the other until one is refused; `outcomes` has the code of each by its token."""

    def __init__(self, number: int, address: str) -> None:
        super().__init__()
        self._number = number
        self._address = address
        self.outcomes: dict[str, grpc.StatusCode] = {}

    def run(self) -> None:
        with grpc.insecure_channel(self._address, NO_RETRIES) as channel:
            call = ProvisioningServiceStub(channel).ProvisionProduct
            code = grpc.StatusCode.OK
            while code == grpc.StatusCode.OK:
                token = f"{self._number}-{len(self.outcomes)}"
                try:
                    call(provision(provision_token=token), timeout=20)
                except grpc.RpcError as error:
                    code = error.code()
                self.outcomes[token] = code


@pytest.mark.parametrize("number", [signal.SIGTERM] * 10 + [signal.SIGINT] * 10)
def test_under_load_every_call_that_was_taken_on_is_answered(upstream: Upstream, number: signal.Signals) -> None:
    upstream.behave(after(0.05, ANSWER))
    with serve(upstream.url, "--grace", str(GRACE)) as facade:
        callers = [Caller(number, facade.address) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        wait_for(lambda: len(upstream.requests) > 2 * CALLERS)
        began = time.monotonic()
        assert facade.stop(number) == 0
        assert time.monotonic() - began < GRACE
        for caller in callers:
            caller.join(20)
    outcomes = {token: code for caller in callers for token, code in caller.outcomes.items()}
    answered = {token for token, code in outcomes.items() if code == grpc.StatusCode.OK}
    refused = Counter(code for code in outcomes.values() if code != grpc.StatusCode.OK)
    assert refused == {grpc.StatusCode.UNAVAILABLE: CALLERS}
    assert len(answered) > CALLERS
    assert {request.json["ProvisionToken"] for request in upstream.requests} == answered


def test_an_open_health_watch_does_not_hold_the_stop(upstream: Upstream) -> None:
    with serve(upstream.url, "--grace", "5") as facade, grpc.insecure_channel(facade.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))  # type: ignore[attr-defined]  # the stubs lack it
        next(watch)
        began = time.monotonic()
        assert facade.stop() == 0
        assert time.monotonic() - began < 2


def test_a_grace_shorter_than_the_call_in_flight_ends_it_and_says_that_its_outcome_is_unknown(
    upstream: Upstream,
) -> None:
    with (
        serve(upstream.url, "--grace", "0.5") as facade,
        in_flight(facade.address, upstream, "in-flight", threading.Event()) as call,
    ):
        began = time.monotonic()
        assert facade.stop() == 0
        # The first half of the grace is the call's, the other one for telling its caller.
        assert 0.25 < time.monotonic() - began < 1.5 + 0.5
        with pytest.raises(grpc.RpcError) as raised:
            call.result(timeout=5)
        # It was sent: UNAVAILABLE would promise that nothing happened.
        assert raised.value.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert logged(facade, "OUTCOME_UNKNOWN")
