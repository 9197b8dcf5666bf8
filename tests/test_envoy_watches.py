"""Watches live through everything that ends connections: those who wait for a record get its end, and never know."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import servicecatalog
from envoy import Discovery, Envoy, deployed, manager
from facade import Facade, environment, peers
from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog.v1.record_service_pb2 import DescribeRecordRequest
from upstream import Upstream, reply
from waiting import wait_for

WATCHERS = 8
POLLS = ("--poll-first", "0.1", "--poll-longest", "0.2", "--poll-rate", "100")


def record(status: str) -> Any:
    return reply(body={"RecordDetail": {"RecordId": "rec-1", "Status": status}})


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, with a record whose work has begun."""
    with closing(Upstream()) as server:
        server.behave(record("IN_PROGRESS"))
        yield server


def serve(upstream: Upstream, *flags: str) -> Facade:
    return Facade("serve", "--listen", "127.0.0.1:0", *POLLS, *flags, env=environment(upstream.url))


class Waiting:
    """Callers that wait for the record, each with a client of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._pool = ThreadPoolExecutor(WATCHERS)
        self._ends = [self._pool.submit(self._wait) for _ in range(WATCHERS)]

    def _wait(self) -> int:
        with servicecatalog.connect(self._address, plaintext=True) as client:
            return int(client.wait("rec-1", timeout=60).record_detail.status)

    def see_the_end(self, upstream: Upstream) -> None:
        """Let the record end, and see that every caller gets to know."""
        assert not any(each.done() for each in self._ends)
        upstream.behave(record("SUCCEEDED"))
        assert [each.result(20) for each in self._ends] == [RecordStatus.RECORD_STATUS_SUCCEEDED] * WATCHERS
        self._pool.shutdown()


def watches(envoy: Envoy) -> int:
    """Return how many streams have ended so far."""
    return sum(line["method"].endswith("/WatchRecord") for line in list(envoy.access))


def test_watches_live_through_the_age_of_the_facades_connections(upstream: Upstream, tmp_path: Path) -> None:
    flags = ("--max-connection-age", "0.5", "--max-connection-age-grace", "0.5")
    with serve(upstream, *flags) as facade, Envoy(deployed("sidecar", facade.address), tmp_path) as envoy:
        waiting = Waiting(envoy.address)
        wait_for(lambda: watches(envoy) >= 3 * WATCHERS, 30)
        assert len(peers(facade)) >= 3
        waiting.see_the_end(upstream)


def test_watches_outlast_the_age_of_connections_to_the_sidecar(upstream: Upstream, tmp_path: Path) -> None:
    with serve(upstream) as facade:
        config = deployed("sidecar", facade.address)
        manager(config)["common_http_protocol_options"] = {"max_connection_duration": "0.5s"}
        manager(config)["drain_timeout"] = "0.5s"
        with Envoy(config, tmp_path) as envoy, servicecatalog.connect(envoy.address, plaintext=True) as client:
            waiting = Waiting(envoy.address)
            # Other calls go over new connections all the while.
            while len({line["peer"] for line in list(envoy.access)}) < 4:
                client.records.DescribeRecord(DescribeRecordRequest(id="rec-1"), timeout=20)
            assert watches(envoy) == 0
            waiting.see_the_end(upstream)


def test_watches_go_on_at_another_facade_when_theirs_is_replaced(upstream: Upstream, tmp_path: Path) -> None:
    config = deployed("sidecar")
    with serve(upstream) as old, serve(upstream) as new:
        discovery = Discovery(config, tmp_path, old.address)
        with Envoy(config, tmp_path) as envoy:
            waiting = Waiting(envoy.address)
            wait_for(lambda: envoy.stat("upstream_rq_active") >= WATCHERS)
            discovery.tell(new.address)
            assert old.stop() == 0
            wait_for(lambda: watches(envoy) >= WATCHERS and envoy.stat("upstream_rq_active") >= WATCHERS)
            waiting.see_the_end(upstream)
