"""What telemetry costs: calls per second with traces and metrics on, against off. `make bench` runs it.

Two façades, one with and one without, share a CPU and get the same load in turns, so that whatever else the machine does
meets both. Callers, the server in the place of AWS and the OTLP sink have the other CPUs; how busy every process was
stands in the result, to show that it was the façade which had no more to give.
"""

import asyncio
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub

ROUNDS = 20
ROUND_SECONDS = 2.0
WARM_UP_SECONDS = 3.0
IN_FLIGHT = 16
TARGET = 0.85

RESULTS = Path(__file__).with_name("results.md")
COMMAND = Path(sys.executable).with_name("servicecatalog-grpc")

CPUS = sorted(os.sched_getaffinity(0))
FACADE_CPUS, OTHER_CPUS = {CPUS[0]}, set(CPUS[1:]) or {CPUS[0]}

_BODY = (
    b'{"RecordDetail":{"RecordId":"rec-1","ProvisionedProductId":"pp-1","Status":"CREATED","CreatedTime":1700000000.5}}'
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\n"
    b"x-amzn-RequestId: 11111111-2222-3333-4444-555555555555\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

REQUEST = pb.ProvisionProductRequest(
    product_id="prod-1", provisioning_artifact_id="pa-1", provisioned_product_name="bench"
)


@dataclass(frozen=True)
class Round:
    """Without and with telemetry, in turns right after each other."""

    off: "Load"
    on: "Load"

    @property
    def ratio(self) -> float:
        """How much of the calls per second is left."""
        return self.on.rate / self.off.rate

    @property
    def cpu_ratio(self) -> float:
        """The same per second of the façade's CPU: what else the machine does hardly matters to it."""
        return self.on.per_cpu_second / self.off.per_cpu_second


class Load(NamedTuple):
    """Calls per second, and calls per second of CPU that the façade used."""

    rate: float
    per_cpu_second: float


def main() -> int:
    """Measure, print and write the result, and return the exit status: 0 if telemetry costs no more than it may."""
    with ExitStack() as stack:
        aws, aws_pid, _ = stack.enter_context(_process(_aws))
        sink, sink_pid, _ = stack.enter_context(_process(_sink))
        _, callers_pid, callers = stack.enter_context(_process(_callers))
        off = stack.enter_context(_facade(aws, {}))
        on = stack.enter_context(_facade(aws, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{sink}"}))

        def load(facade: tuple[str, int], seconds: float) -> Load:
            address, pid = facade
            used = -_cpu_seconds(pid)
            callers.send((address, seconds))
            rate: float = callers.recv()
            return Load(rate, rate * seconds / (used + _cpu_seconds(pid)))

        for facade in (off, on):
            load(facade, WARM_UP_SECONDS)
        pids = {"callers": callers_pid, "AWS": aws_pid, "sink": sink_pid, "façade off": off[1], "façade on": on[1]}
        before = {name: _cpu_seconds(pid) for name, pid in pids.items()}
        began = time.monotonic()
        rounds = []
        for number in range(ROUNDS):
            # Each goes first as often as the other.
            order = (off, on) if number % 2 == 0 else (on, off)
            loads = {facade: load(facade, ROUND_SECONDS) for facade in order}
            each = Round(loads[off], loads[on])
            rounds.append(each)
            print(f"round {number + 1}: {each.off.rate:.0f} off, {each.on.rate:.0f} on, {each.ratio:.3f}", flush=True)
        elapsed = time.monotonic() - began
        busy = {name: (_cpu_seconds(pid) - before[name]) / elapsed for name, pid in pids.items()}
    text = _report(rounds, busy)
    print(text)
    RESULTS.write_text(text)
    return int(statistics.median(each.ratio for each in rounds) < TARGET)


def _report(rounds: list[Round], busy: Mapping[str, float]) -> str:
    ratios = sorted(each.ratio for each in rounds)
    low, _, high = statistics.quantiles(ratios, n=4)
    off, on = (
        statistics.median(each) for each in zip(*((each.off.rate, each.on.rate) for each in rounds), strict=True)
    )
    by_cpu = statistics.median(each.cpu_ratio for each in rounds)
    # The two façades work in turns, half of the time each.
    shares = {name: share * 2 if name.startswith("façade") else share for name, share in busy.items()}
    used = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"""# What telemetry costs

Written by `make bench`. ProvisionProduct, answered at once by a server in the place of AWS, {IN_FLIGHT} calls in flight,
{ROUNDS} rounds of {ROUND_SECONDS:g} s each way, in turns.

| | calls per second, median |
| --- | --- |
| off: no `OTEL_*` variable | {off:.0f} |
| on: traces and metrics over OTLP, every call sampled | {on:.0f} |

**On, as a share of off: median {statistics.median(ratios):.3f}**, quartiles {low:.3f} to {high:.3f}, all of
{ratios[0]:.3f} to {ratios[-1]:.3f}. It must be at least {TARGET}. Per second of the façade's CPU, which other work on the
machine hardly changes: median {by_cpu:.3f}.

CPUs: façades on {sorted(FACADE_CPUS)}, all else on {sorted(OTHER_CPUS)}. Share of a CPU that each process used, a façade
while it had the load: {used}.

{_cpu_model()}, {os.cpu_count()} CPUs; Python {platform.python_version()}, grpcio {version("grpcio")},
opentelemetry-sdk {version("opentelemetry-sdk")}, boto3 {version("boto3")}.
"""


@contextmanager
def _process(target: Callable[[Connection], None]) -> Iterator[tuple[str, int, Connection]]:
    """Run the function in a process of its own, on the other CPUs; give its first message, its id and the connection."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_on_other_cpus, args=(target, its), daemon=True)
    process.start()
    try:
        yield ours.recv(), process.pid or 0, ours
    finally:
        process.kill()
        process.join()


def _on_other_cpus(target: Callable[[Connection], None], connection: Connection) -> None:
    os.sched_setaffinity(0, OTHER_CPUS)
    target(connection)


@contextmanager
def _facade(aws: str, variables: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Run `serve` on the façades' CPU; give its address and its process id."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "OTEL_"))}
    env |= {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_ENDPOINT_URL_SERVICE_CATALOG": f"http://{aws}",
        **variables,
    }
    process = subprocess.Popen(
        [COMMAND, "serve", "--listen", "127.0.0.1:0"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.sched_setaffinity(process.pid, FACADE_CPUS)
    try:
        ready = process.stdout.readline() if process.stdout else ""
        yield ready.split()[-1], process.pid
    finally:
        process.terminate()
        process.wait()


def _callers(connection: Connection) -> None:
    """Keep so many calls in flight for as long as each message says, and answer with the calls per second."""

    async def load(address: str, seconds: float) -> float:
        end = time.monotonic() + seconds
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = ProvisioningServiceStub(channel)

            async def call() -> int:
                count = 0
                while time.monotonic() < end:
                    await stub.ProvisionProduct(REQUEST, timeout=20)
                    count += 1
                return count

            return sum(await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))) / seconds

    connection.send("")
    while True:
        address, seconds = connection.recv()
        connection.send(asyncio.run(load(address, seconds)))


class _Answering(asyncio.Protocol):
    """Answers each HTTP request with the same bytes."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is whole by now."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if separator and length and len(body) >= int(length[1]):
            self._buffer = body[int(length[1]) :]
            self._transport.write(_ANSWER)


def _aws(connection: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
        connection.send(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    asyncio.run(serve())


def _sink(connection: Connection) -> None:
    """Take whatever is exported, and look at none of it."""
    swallow: Any = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    server = grpc.server(ThreadPoolExecutor(2))
    for signal, service in (("trace", "TraceService"), ("metrics", "MetricsService")):
        name = f"opentelemetry.proto.collector.{signal}.v1.{service}"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": swallow}),))
    connection.send(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    server.wait_for_termination()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_model() -> str:
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
