"""What watches cost: how often AWS is asked, how soon watchers know, and what ten thousand idle ones take.

`make bench` runs it, and it writes watches.md. The façade has one CPU; the callers and the server in the place of AWS,
which live in this process, have the others.
"""

import asyncio
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog.v1 import provisioning_service_pb2, record_service_pb2
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub

from bench import processes
from bench.processes import OTHER_CPUS, SERVER_CPU, Process, begin

FIRST, LONGEST = 0.5, 2.0

# How long the first looks at all records may take.
_LOOKED_AT_SECONDS = 120.0

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """How many watch, and for how long."""

    records: int = 50
    watchers: int = 1000
    watch_seconds: float = 20.0
    idle_watches: int = 10_000
    idle_seconds: float = 60.0


QUICK = Plan(records=10, watchers=100, watch_seconds=3.0, idle_watches=1000, idle_seconds=5.0)


class Aws:
    """In the place of AWS: answers at once with the state that the records are in, and counts the questions."""

    def __init__(self) -> None:
        self.status = "IN_PROGRESS"
        self.asked: Counter[str] = Counter()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                request = json.loads(await reader.readexactly(int(length[1]) if length else 0))
                record_id = request.get("Id", "rec-new")
                self.asked[record_id] += 1
                body = json.dumps({"RecordDetail": {"RecordId": record_id, "Status": self.status}}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def facade(aws: Aws, *flags: str) -> AsyncIterator[Process]:
    """Run a façade in front of AWS, which goes on answering while the façade stops."""
    with ExitStack() as stack:
        yield stack.enter_context(processes.facade(aws.url, "--log-level", "error", *flags))
        await asyncio.to_thread(stack.close)


async def _follow(stub: Any, record_id: str, seen: list[float]) -> None:
    responses = stub.WatchRecord(record_service_pb2.WatchRecordRequest(id=record_id))
    ended = RecordStatus.RECORD_STATUS_SUCCEEDED
    seen.extend([time.monotonic() async for response in responses if response.record_detail.status == ended])


async def shared(plan: Plan, watchers: int, connections: int) -> tuple[float, list[float]]:
    """Let so many watch the records, and return how often AWS was asked per record, and how late each knew the end."""
    aws = Aws()
    await aws.start()
    flags = ("--poll-first", str(FIRST), "--poll-longest", str(LONGEST), "--poll-rate", "1000")
    async with facade(aws, *flags) as running:
        channels = [
            grpc.aio.insecure_channel(running.address, options=(("grpc.use_local_subchannel_pool", 1),))
            for _ in range(connections)
        ]
        seen: list[float] = []
        watches = [
            asyncio.create_task(
                _follow(RecordServiceStub(channels[index % connections]), f"rec-{index % plan.records}", seen)
            )
            for index in range(watchers)
        ]
        await asyncio.sleep(plan.watch_seconds)
        aws.status = "SUCCEEDED"
        ended = time.monotonic()
        await asyncio.gather(*watches)
        for channel in channels:
            await channel.close()
    return statistics.mean(aws.asked.values()), [moment - ended for moment in seen]


async def _latencies(channel: grpc.aio.Channel, count: int) -> tuple[list[float], list[float]]:
    """Return how long health checks and ProvisionProduct take, in milliseconds."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    provision: Any = ProvisioningServiceStub(channel)
    request = provisioning_service_pb2.ProvisionProductRequest(
        product_id="prod-1", provisioning_artifact_id="pa-1", provisioned_product_name="bench"
    )
    checks: list[float] = []
    calls: list[float] = []
    for _ in range(count):
        for call, message, kept in (
            (health.Check, health_pb2.HealthCheckRequest(), checks),
            (provision.ProvisionProduct, request, calls),
        ):
            began = time.monotonic()
            await call(message, timeout=30)
            kept.append((time.monotonic() - began) * 1000)
        await asyncio.sleep(0.02)
    return checks, calls


async def idle(plan: Plan) -> list[str]:
    """Hold many watches of as many records and return the lines of what that takes."""
    aws = Aws()
    await aws.start()
    async with facade(aws) as running, grpc.aio.insecure_channel(running.address) as caller:
        before = await _latencies(caller, 100)
        empty, threads = running.resident_kib, running.threads
        channels = [
            grpc.aio.insecure_channel(running.address, options=(("grpc.use_local_subchannel_pool", 1),))
            for _ in range(10)
        ]
        stubs: list[Any] = [RecordServiceStub(channel) for channel in channels]
        watches = []
        for index in range(plan.idle_watches):
            call = stubs[index % 10].WatchRecord(record_service_pb2.WatchRecordRequest(id=f"rec-{index}"))
            watches.append(asyncio.create_task(call.read()))
            if index % 100 == 0:
                await asyncio.sleep(0.01)  # lets the client send them
        # All of them are there only when each record has been looked at once, and one was provisioned before.
        async with asyncio.timeout(_LOOKED_AT_SECONDS):
            while len(aws.asked) <= plan.idle_watches:  # noqa: ASYNC110 - a server in the place of AWS has no events
                await asyncio.sleep(0.5)
        cpu, began = running.cpu_seconds, time.monotonic()
        asked = sum(aws.asked.values())
        await asyncio.sleep(plan.idle_seconds)
        took = time.monotonic() - began
        share = (running.cpu_seconds - cpu) / took
        rate = (sum(aws.asked.values()) - asked) / took
        during = await _latencies(caller, 100)
        full, more = running.resident_kib, running.threads - threads
        for watch in watches:
            watch.cancel()
        for channel in channels:
            await channel.close()
    return [
        f"| resident memory per watch | {(full - empty) / plan.idle_watches:.1f} KiB ({empty} → {full} KiB) |",
        f"| threads more | {more} |",
        f"| CPU while they are held | {share:.1%} of one |",
        f"| DescribeRecord calls | {rate:.1f} a second (`--poll-rate` is 10) |",
        f"| health check, median / worst, before → during | {_compare(before[0], during[0])} |",
        f"| ProvisionProduct, median / worst, before → during | {_compare(before[1], during[1])} |",
    ]


def _compare(before: Sequence[float], during: Sequence[float]) -> str:
    return " → ".join(f"{statistics.median(each):.1f} / {max(each):.1f} ms" for each in (before, during))


async def measure(plan: Plan) -> str:
    """Measure and return the report."""
    alone, _ = await shared(plan, plan.records, 1)
    others = ", ".join(map(str, OTHER_CPUS))
    lines = [
        "# What watches cost",
        "",
        f"Written by `make bench`. The façade has CPU {SERVER_CPU}, everything else {others}.",
        "",
        f"## {plan.watchers} watches of {plan.records} records for {plan.watch_seconds:g} s",
        "",
        f"Pauses from {FIRST:g} to {LONGEST:g} s; one watcher a record alone has AWS asked {alone:.1f} times a record.",
        "",
        "| connections | asked per record | ratio to one watcher alone | end seen by | after, median | after, worst |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for connections in (1, 50):
        asked, late = await shared(plan, plan.watchers, connections)
        lines.append(
            f"| {connections} | {asked:.1f} | {asked / alone:.2f} | {len(late)} of {plan.watchers} "
            f"| {statistics.median(late):.2f} s | {max(late):.2f} s |"
        )
        print(lines[-1], flush=True)
    lines += [
        "",
        f"## {plan.idle_watches} watches of as many records for {plan.idle_seconds:g} s",
        "",
        "| | |",
        "| --- | --- |",
        *await idle(plan),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    options = begin(__doc__)
    text = asyncio.run(measure(QUICK if options.quick else Plan()))
    print(text)
    (options.results / "watches.md").write_text(text)


if __name__ == "__main__":
    main()
