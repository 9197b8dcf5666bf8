"""The event loop under load, and how the kernel is to schedule the threads around it."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from facade import Facade, environment, serve
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog_grpc.event_loop import EventLoop

SERVING = health_pb2.HealthCheckResponse.SERVING

NOBODY = "http://127.0.0.1:1"


def policies(facade: Facade) -> list[tuple[str, int]]:
    """Return the name and the scheduling policy of each thread."""
    tasks = list(Path(f"/proc/{facade.process.pid}/task").iterdir())
    return [((task / "comm").read_text().strip(), os.sched_getscheduler(int(task.name))) for task in tasks]


@contextmanager
def starting_with(policy: int) -> Iterator[None]:
    """Let what is started from here have this policy."""
    own = os.sched_getscheduler(0)
    os.sched_setscheduler(0, policy, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, own, os.sched_param(0))


def check(facade: Facade) -> int:
    """Return the status of the server's health."""
    with grpc.insecure_channel(facade.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status)


def test_the_thread_that_brings_grpcs_events_interrupts_no_other() -> None:
    with serve(NOBODY) as facade:
        assert check(facade) == SERVING
        found = policies(facade)
        assert os.sched_getscheduler(facade.process.pid) == os.SCHED_OTHER
        interrupting = {name for name, policy in found if policy == os.SCHED_OTHER}
        courteous = [name for name, policy in found if policy == os.SCHED_BATCH]
    # Those that read from the network go first, as ever.
    assert "event_engine" in interrupting
    assert "event_engine" not in courteous
    # The other one is a clock of gRPC's, which stands still.
    assert sorted(name.startswith("grpc_") for name in courteous) == [False, True]


def test_a_policy_that_somebody_chose_stays() -> None:
    with starting_with(os.SCHED_BATCH), serve(NOBODY) as facade:
        assert check(facade) == SERVING
        assert {policy for _, policy in policies(facade)} == {os.SCHED_BATCH}


@pytest.mark.parametrize("refused", ["sched_setscheduler", "sched_getscheduler"])
def test_where_the_host_refuses_a_policy_the_server_does_without(tmp_path: Path, refused: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\ndef refuse(*_): raise PermissionError\nos.{refused} = refuse"
    )
    env = environment(NOBODY, PYTHONPATH=str(tmp_path))
    with Facade("serve", "--listen", "127.0.0.1:0", env=env) as facade:
        assert check(facade) == SERVING
        assert {policy for _, policy in policies(facade)} == {os.SCHED_OTHER}


def test_what_comes_from_outside_is_seen_however_busy_the_loop_is() -> None:
    turns = 0

    def go_on() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(go_on)

    async def listen() -> bytes:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)  # noqa: FBT003 - the standard library's own way
            loop.call_soon(go_on)
            loop.call_later(0.01, there.send, b"x")
            return await asyncio.wait_for(loop.sock_recv(here, 1), timeout=5)

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        assert runner.run(listen()) == b"x"
    assert turns > 2
