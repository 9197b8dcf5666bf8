"""One intent is one product, whatever is lost on the way: real state behind a proxy that loses a third of the calls."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from facade import Facade, environment
from fault_proxy import FAULTS, FaultProxy, random_faults
from intents import (
    INTENTS,
    Identify,
    assert_exactly_once,
    by_idempotency_key,
    by_request_id,
    by_token,
    carry_out,
    sandbox,
)

FAULT_SHARE = 0.3


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The embedded AWS of a sandbox."""
    with sandbox() as url:
        yield url


@pytest.mark.parametrize("identify", [by_token, by_idempotency_key, by_request_id])
def test_a_thousand_intents_are_a_thousand_products(endpoint: str, identify: Identify) -> None:
    proxy = FaultProxy(endpoint, random_faults(seed=20, share=FAULT_SHARE))
    with Facade("serve", "--listen", "127.0.0.1:0", env=environment(proxy.url)) as facade:
        records = carry_out(facade.address, identify)
    proxy.close()
    assert all(records)
    assert_exactly_once(endpoint, records)
    seen = Counter(proxy.faults)
    assert set(seen) == set(FAULTS), seen
    assert len(proxy.faults) > INTENTS * FAULT_SHARE


def test_a_facade_that_is_killed_in_the_middle_loses_and_doubles_nothing(endpoint: str) -> None:
    proxy = FaultProxy(endpoint, random_faults(seed=21, share=FAULT_SHARE))
    with Facade("serve", "--listen", "127.0.0.1:0", env=environment(proxy.url)) as first:
        address = first.address
        second = Facade("serve", "--listen", address, env=environment(proxy.url))

        def kill_and_restart() -> None:
            time.sleep(1.5)
            first.process.kill()
            first.process.wait()
            second.__enter__()

        killer = threading.Thread(target=kill_and_restart)
        killer.start()
        records = carry_out(address, by_idempotency_key)
        killer.join()
        second.__exit__(None, None, None)
    proxy.close()
    assert first.process.returncode == -9
    assert_exactly_once(endpoint, records)
