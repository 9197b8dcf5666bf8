"""The façade is replaced again and again behind the sidecar, under load, and no caller notices.

For 12 seconds, or as long as ROLLING_SECONDS says.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Self

import grpc
import pytest
from calls import ANSWER, provision
from envoy import Discovery, Envoy, deployed
from facade import Facade, environment
from servicecatalog.v1.record_service_pb2 import DescribeRecordRequest
from stubs import Stubs
from upstream import Upstream, after
from waiting import wait_for

SECONDS = float(os.environ.get("ROLLING_SECONDS", "12"))
RATE = 50
CALLERS = 64

# How long a façade goes on after it is out of discovery: a preStop hook. Envoys learn of it meanwhile.
PRE_STOP_SECONDS = 1.0


class Load(threading.Thread):
    """So many calls a second, reads and writes, by stubs that repeat nothing. `outcomes` counts the codes."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._done = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.tokens: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        generator = random.Random(25)
        options = (("grpc.enable_retries", 0),)
        began, number = time.monotonic(), 0
        with grpc.insecure_channel(self._address, options) as channel, ThreadPoolExecutor(CALLERS) as callers:
            stubs = Stubs(channel)
            while not self._done.wait(max(0, began + number / RATE - time.monotonic())):
                callers.submit(self._call, stubs, f"token-{number}" if generator.random() < 0.5 else "")
                number += 1

    def _call(self, stubs: Stubs, token: str) -> None:
        try:
            if token:
                stubs.ProvisionProduct(provision(provision_token=token), timeout=20)
                self.tokens.add(token)
            else:
                stubs.DescribeRecord(DescribeRecordRequest(id="rec-1"), timeout=20)
        except grpc.RpcError as error:
            self.outcomes[error.code().name] += 1
            self.failures.append(f"{'write' if token else 'read'}: {error}")
        else:
            self.outcomes["OK"] += 1


def serves(facade: Facade) -> bool:
    """Say whether the façade has its share of the calls."""
    return sum("servicecatalog.v1." in line for line in facade.log) > RATE / 10


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, and not at once with its answers."""
    with closing(Upstream()) as server:
        server.behave(after(0.05, ANSWER))
        yield server


def test_no_call_fails_while_the_facade_is_replaced(upstream: Upstream, tmp_path: Path) -> None:
    """As Kubernetes and a mesh do it: a new one is ready and known, the old one is forgotten, waits a little and drains."""

    def facade() -> Facade:
        return Facade("serve", "--listen", "127.0.0.1:0", env=environment(upstream.url)).__enter__()

    old = facade()
    config = deployed("sidecar")
    discovery = Discovery(config, tmp_path, old.address)
    replaced = 0
    ended = time.monotonic() + SECONDS
    with Envoy(config, tmp_path) as envoy, Load(envoy.address) as load:
        while time.monotonic() < ended:
            new = facade()
            discovery.tell(old.address, new.address)
            wait_for(partial(serves, new))
            discovery.tell(new.address)
            time.sleep(PRE_STOP_SECONDS)
            assert old.stop() == 0
            old.__exit__(None, None, None)
            old = new
            replaced += 1
    old.__exit__(None, None, None)
    assert not load.failures, (load.outcomes, load.failures[:3])
    assert replaced >= 2
    assert load.outcomes["OK"] > SECONDS * RATE * 0.8
    # A call that AWS got twice would have been repeated by somebody who couldn't know.
    sent = Counter(request.json["ProvisionToken"] for request in upstream.requests if "ProvisionToken" in request.json)
    assert set(sent) == load.tokens
    assert set(sent.values()) == {1}
