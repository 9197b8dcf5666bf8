"""One intent is one product behind proxies that repeat, cut and lose calls by rules of their own."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from envoy import Envoy, like_istio, routes
from facade import Facade, environment
from fault_proxy import FaultProxy, random_faults
from intents import (
    INTENTS,
    assert_exactly_once,
    by_idempotency_key,
    by_nothing,
    by_request_id,
    by_token,
    carry_out,
    in_turn,
    sandbox,
)
from upstream import Request

FAULT_SHARE = 0.3
KILLS = 3  # of each pod


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The embedded AWS of a sandbox."""
    with sandbox() as url:
        yield url


def serve(proxy: FaultProxy, *flags: str, listen: str = "127.0.0.1:0") -> Facade:
    return Facade("serve", "--listen", listen, *flags, env=environment(proxy.url))


def test_with_istios_retries_a_thousand_intents_are_a_thousand_products(endpoint: str, tmp_path: Path) -> None:
    """Who gives nothing has the id that Envoy gives to a call, the same for all its attempts."""
    with (
        closing(FaultProxy(endpoint, random_faults(seed=22, share=FAULT_SHARE))) as proxy,
        serve(proxy) as facade,
        Envoy(like_istio(facade.address), tmp_path) as envoy,
    ):
        records = carry_out(envoy.address, in_turn(by_token, by_idempotency_key, by_nothing))
        assert all(records)
        assert len(proxy.faults) > INTENTS * FAULT_SHARE
    assert_exactly_once(endpoint, records)


class Pod:
    """A façade, and the address of the sidecar in front of it."""

    def __init__(self, proxy: FaultProxy, facade: Facade, address: str) -> None:
        self.address = address
        self.facade = facade
        self.kills = 0
        self._proxy = proxy

    def kill(self) -> None:
        """Kill the façade with whatever it has in its hands, and start another in its place, as a kubelet does."""
        self.facade.process.kill()
        self.facade.__exit__(None, None, None)
        assert self.facade.process.returncode == -9
        self.kills += 1
        self.facade = serve(self._proxy, listen=self.facade.address).__enter__()


@contextmanager
def started(proxy: FaultProxy, directory: Path) -> Iterator[Pod]:
    directory.mkdir()
    with serve(proxy) as facade:
        config = like_istio(facade.address)
        # Istio's retries are those of the sidecar beside the caller.
        del routes(config)[0]["route"]["retry_policy"]
        with Envoy(config, directory) as sidecar:
            pod = Pod(proxy, facade, sidecar.address)
            try:
                yield pod
            finally:
                pod.facade.__exit__(None, None, None)


def test_pods_that_are_killed_in_the_middle_lose_and_double_nothing(endpoint: str, tmp_path: Path) -> None:
    with (
        closing(FaultProxy(endpoint, random_faults(seed=23, share=FAULT_SHARE))) as proxy,
        started(proxy, tmp_path / "first") as first,
        started(proxy, tmp_path / "second") as second,
        Envoy(like_istio(first.address, second.address), tmp_path) as envoy,
    ):
        done = threading.Event()

        def kill() -> None:
            for pod in (first, second) * KILLS:
                if done.wait(0.3):
                    return
                pod.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            ways = in_turn(by_token, by_idempotency_key, by_request_id, by_nothing)
            records = carry_out(envoy.address, ways, INTENTS // 2)
        finally:
            done.set()
            killer.join()
        assert min(first.kills, second.kills) > 0
        assert envoy.stat("upstream_rq_retry") > 0
    # Who gives nothing has to give up where an answer is lost. That is rare.
    assert records.count("") < INTENTS // 20
    assert_exactly_once(endpoint, records)


def test_timeouts_shorter_than_awss_answer_lose_and_double_nothing(endpoint: str, tmp_path: Path) -> None:
    """Of everything that Envoy can retry on. A call waits for its turn longer than a try may take, or AWS is slow."""
    generator = random.Random(24)

    def slow(_: Request) -> str | None:
        # AWS acts late here, when its caller may be gone already, and with `delay` it answers late.
        time.sleep(generator.choice([0, 0, 0.6]))
        return generator.choice([None, "delay"])

    with (
        closing(FaultProxy(endpoint, slow)) as proxy,
        serve(proxy, "--max-writes", "8") as facade,
    ):
        config = like_istio(facade.address)
        route = routes(config)[0]["route"]
        route["timeout"] = "0.5s"
        route["retry_policy"]["per_try_timeout"] = "0.15s"
        route["retry_policy"]["retry_on"] += ",5xx,reset,deadline-exceeded,internal,resource-exhausted"
        del route["max_grpc_timeout"]
        with Envoy(config, tmp_path) as envoy:
            records = carry_out(envoy.address, in_turn(by_token, by_idempotency_key, by_request_id), INTENTS // 10)
            assert envoy.stat("upstream_rq_per_try_timeout") > 0
            assert envoy.stat("upstream_rq_timeout") > 0
            assert envoy.stat("upstream_rq_retry") > 0
    assert_exactly_once(endpoint, records)
