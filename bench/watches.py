"""What watches cost: how often AWS is asked, how soon watchers know, and what ten thousand idle ones take.

`make bench` runs it and writes bench/watches.md. The façade has one CPU; the callers and the server in the place of AWS,
which live in this process, have the others.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog.v1 import provisioning_service_pb2, record_service_pb2
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub

RESULTS = Path(__file__).with_name("watches.md")
COMMAND = Path(sys.executable).with_name("servicecatalog-grpc")
CPUS = sorted(os.sched_getaffinity(0))

RECORDS, WATCHERS, WATCH_SECONDS = 50, 1000, 20.0
IDLE_WATCHES, IDLE_SECONDS = 10_000, 60.0
FIRST, LONGEST = 0.5, 2.0

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_READY = re.compile(r"gRPC on (\S+)")


class Aws:
    """In the place of AWS: answers at once with the state that the records are in, and counts the questions."""

    def __init__(self) -> None:
        self.status = "IN_PROGRESS"
        self.asked: Counter[str] = Counter()
        self.port = 0

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


class Facade:
    """A façade in a process of its own, on the first CPU, and what the kernel says of it."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.address = address
        self._process = process

    @property
    def kibibytes(self) -> int:
        return int(self._status("VmRSS").split()[0])

    @property
    def threads(self) -> int:
        return int(self._status("Threads"))

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> str:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


@asynccontextmanager
async def facade(aws: Aws, *flags: str) -> AsyncIterator[Facade]:
    """Run a façade in front of AWS."""
    env = {
        **os.environ,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_ENDPOINT_URL_SERVICE_CATALOG": f"http://127.0.0.1:{aws.port}",
        "NO_PROXY": "127.0.0.1",
    }
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("serve", "--listen", "127.0.0.1:0", "--log-level", "error", *flags),
        env=env,
        stdout=subprocess.PIPE,
    )
    os.sched_setaffinity(process.pid, {CPUS[0]})
    try:
        line = (await process.stdout.readline()).decode() if process.stdout else ""
        ready = _READY.search(line)
        if ready is None:
            raise RuntimeError(line)
        yield Facade(process, ready[1])
    finally:
        process.terminate()
        await process.wait()


async def _follow(stub: Any, record_id: str, seen: list[float]) -> None:
    responses = stub.WatchRecord(record_service_pb2.WatchRecordRequest(id=record_id))
    ended = RecordStatus.RECORD_STATUS_SUCCEEDED
    seen.extend([time.monotonic() async for response in responses if response.record_detail.status == ended])


async def shared(watchers: int, connections: int) -> tuple[float, list[float]]:
    """Let so many watch 50 records, and return how often AWS was asked per record, and how late each knew the end."""
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
                _follow(RecordServiceStub(channels[index % connections]), f"rec-{index % RECORDS}", seen)
            )
            for index in range(watchers)
        ]
        await asyncio.sleep(WATCH_SECONDS)
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


async def idle() -> list[str]:
    """Hold ten thousand watches of as many records and return the lines of what that takes."""
    aws = Aws()
    await aws.start()
    async with facade(aws) as running, grpc.aio.insecure_channel(running.address) as caller:
        before = await _latencies(caller, 100)
        empty, threads = running.kibibytes, running.threads
        channels = [
            grpc.aio.insecure_channel(running.address, options=(("grpc.use_local_subchannel_pool", 1),))
            for _ in range(10)
        ]
        stubs: list[Any] = [RecordServiceStub(channel) for channel in channels]
        watches = []
        for index in range(IDLE_WATCHES):
            call = stubs[index % 10].WatchRecord(record_service_pb2.WatchRecordRequest(id=f"rec-{index}"))
            watches.append(asyncio.create_task(call.read()))
            if index % 100 == 0:
                await asyncio.sleep(0.01)  # lets the client send them
        await asyncio.sleep(10)
        cpu, began = running.cpu_seconds, time.monotonic()
        asked = sum(aws.asked.values())
        await asyncio.sleep(IDLE_SECONDS)
        took = time.monotonic() - began
        share = (running.cpu_seconds - cpu) / took
        rate = (sum(aws.asked.values()) - asked) / took
        during = await _latencies(caller, 100)
        full, more = running.kibibytes, running.threads - threads
        for watch in watches:
            watch.cancel()
        for channel in channels:
            await channel.close()
    return [
        f"| resident memory per watch | {(full - empty) / IDLE_WATCHES:.1f} KiB ({empty} → {full} KiB) |",
        f"| threads more | {more} (the pool for polls has 8) |",
        f"| CPU while they are held | {share:.1%} of one |",
        f"| DescribeRecord calls | {rate:.1f} a second (`--poll-rate` is 10) |",
        f"| health check, median / worst, before → during | {_compare(before[0], during[0])} |",
        f"| ProvisionProduct, median / worst, before → during | {_compare(before[1], during[1])} |",
    ]


def _compare(before: Sequence[float], during: Sequence[float]) -> str:
    return " → ".join(f"{statistics.median(each):.1f} / {max(each):.1f} ms" for each in (before, during))


async def main() -> None:
    """Measure, print and write."""
    os.sched_setaffinity(0, set(CPUS[1:]) or {CPUS[0]})
    alone, _ = await shared(RECORDS, 1)
    lines = [
        "# What watches cost",
        "",
        f"Written by `make bench`. The façade has CPU {CPUS[0]}, everything else {CPUS[1:] or CPUS}.",
        "",
        f"## {WATCHERS} watches of {RECORDS} records for {WATCH_SECONDS:g} s",
        "",
        f"Pauses from {FIRST:g} to {LONGEST:g} s; one watcher a record alone has AWS asked {alone:.1f} times a record.",
        "",
        "| connections | asked per record | ratio to one watcher alone | end seen by | after, median | after, worst |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for connections in (1, 50):
        asked, late = await shared(WATCHERS, connections)
        lines.append(
            f"| {connections} | {asked:.1f} | {asked / alone:.2f} | {len(late)} of {WATCHERS} "
            f"| {statistics.median(late):.2f} s | {max(late):.2f} s |"
        )
        print(lines[-1], flush=True)
    lines += [
        "",
        f"## {IDLE_WATCHES} watches of as many records for {IDLE_SECONDS:g} s",
        "",
        "| | |",
        "| --- | --- |",
        *await idle(),
        "",
    ]
    RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    asyncio.run(main())
