"""What the benchmarks share: processes on CPUs of their own, what the kernel says of them, and running a façade.

Whoever is measured has `SERVER_CPU` alone; callers, upstream and this process have the others. Where there is one CPU,
they share it, and the reports show it by the CPUs that they name.
"""

import argparse
import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = CPUS[0]
OTHER_CPUS = CPUS[1:] or CPUS

BENCH = Path(__file__).parent
QUICK_RESULTS = BENCH.parent / "build" / "bench"
COMMAND = Path(sys.executable).with_name("servicecatalog-grpc")

_TICKS = os.sysconf("SC_CLK_TCK")
TICK_SECONDS = 1 / _TICKS  # the least that the kernel says of used CPU
_STOP_SECONDS = 10.0
_DROPPED = re.compile(r"(AWS|OTEL|SERVICECATALOG_GRPC|GRPC|REQUESTS)_.*|.*_proxy|SSL_CERT_.*", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What the command line of a benchmark says."""

    quick: bool

    @property
    def results(self) -> Path:
        """The directory of what was measured."""
        if self.quick:
            QUICK_RESULTS.mkdir(parents=True, exist_ok=True)
        return QUICK_RESULTS if self.quick else BENCH


def begin(description: str | None) -> Options:
    """Read the command line; leave the server's CPU to the server; end all that runs here on a signal."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = QUICK_RESULTS.relative_to(BENCH.parent)
    parser.add_argument("--quick", action="store_true", help=f"few and short rounds, to try it; writes to {where}")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    os.sched_setaffinity(0, OTHER_CPUS)
    # Thousands of calls in flight are as many connections to the upstream.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return Options(quick=options.quick)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


class Process:
    """A process of ours, and what the kernel says of it."""

    def __init__(self, process: subprocess.Popen[str], hello: str) -> None:
        """`hello` is the line that it printed when it was ready."""
        self.pid = process.pid
        self.hello = hello
        self._process = process

    @property
    def address(self) -> str:
        """Where it serves, with which its first line ends."""
        return self.hello.split()[-1]

    @property
    def cpu_seconds(self) -> float:
        """CPU that all of its threads have used."""
        return cpu_seconds(self.pid)

    @property
    def resident_kib(self) -> int:
        """Memory that it holds, in KiB."""
        return int(self._status("VmRSS").split()[0])

    @property
    def peak_kib(self) -> int:
        """The most memory that it held since it began, or since `forget_peak`, in KiB."""
        return int(self._status("VmHWM").split()[0])

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return int(self._status("Threads"))

    def forget_peak(self) -> None:
        """Let `peak_kib` begin anew; see proc_pid_clear_refs(5)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def ask(self, command: Mapping[str, Any]) -> Any:
        """Send a line of JSON, and return what the line of the answer says."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it has no pipes")
        print(json.dumps(command), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended instead of answering {command}")
        return json.loads(line)

    def _status(self, name: str) -> str:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def cpu_seconds(pid: int) -> float:
    """CPU that all threads of a process have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def busy_seconds(cpus: Sequence[int]) -> float:
    """For how long these CPUs have been busy with anything, on average."""
    lines = {line.split()[0]: line.split()[1:] for line in Path("/proc/stat").read_text().splitlines()}
    # user, nice, system, then idle and waiting, interrupts, softirqs, and what the hypervisor took
    return sum(int(lines[f"cpu{cpu}"][field]) for cpu in cpus for field in (0, 1, 2, 5, 6, 7)) / _TICKS / len(cpus)


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    cpu: int | None = None,
    env: Mapping[str, str] | None = None,
    loud: bool = True,
) -> Iterator[Process]:
    """Run a command until the block ends, and give it once it has printed its first line.

    It has the CPU from its first instruction on (Go counts them then), or else those of this process. Raises RuntimeError
    where it ends instead; `loud` says whether its stderr is of interest.
    """
    # A process inherits the CPUs of the thread that starts it.
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        process = subprocess.Popen(
            command,
            env=environment() if env is None else env,
            cwd=BENCH.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if loud else subprocess.DEVNULL,
            text=True,
        )
    finally:
        os.sched_setaffinity(0, OTHER_CPUS)
    try:
        hello = process.stdout.readline() if process.stdout else ""
        if not hello:
            raise RuntimeError(f"did not start: {' '.join(map(str, command))}")
        yield Process(process, hello.strip())
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with credentials for no AWS, and nothing else that changes how AWS is called."""
    return {
        **{name: value for name, value in os.environ.items() if not _DROPPED.fullmatch(name)},
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **(variables or {}),
    }


@contextmanager
def facade(url: str, *flags: str, variables: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run a façade on the server's CPU, in front of this upstream."""
    env = environment({"AWS_ENDPOINT_URL_SERVICE_CATALOG": url, **(variables or {})})
    command: tuple[str | Path, ...] = (COMMAND, "serve", "--listen", "127.0.0.1:0", *flags)
    # It writes its log as it always does, a line for each call, but nobody keeps it.
    with running(command, cpu=SERVER_CPU, env=env, loud=False) as process:
        yield process


@contextmanager
def sink() -> Iterator[Process]:
    """Run what takes OTLP and looks at none of it, away from the server's CPU."""
    with running((sys.executable, "-m", "bench.sink")) as process:
        yield process


def machine() -> str:
    """Say what all of this ran on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}"
    )
