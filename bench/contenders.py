"""Those who are compared, each in a process of its own on the server's CPU. They wait idle until it is their turn."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from bench.callers import Ghz, ghz, modules
from bench.loop import Load
from bench.measured import AIOBOTOCORE, BOTO3, FACADE, FACADE_TRACED, PEER, PEER_TRACED, Route
from bench.processes import BENCH, SERVER_CPU, Process, environment, facade, running, sink
from bench.upstream import MissingError, Upstream, upstream

SERVERS = (FACADE, FACADE_TRACED, PEER, PEER_TRACED)
UNTRACED = (FACADE, PEER)

# As many as are in flight at 256 callers, and thousands; 32 at work and 256 waiting are the defaults.
LOAD_FLAGS = ("--max-writes", "256", "--max-waiting", "4096")
FLIGHT_FLAGS = ("--max-writes", "2000", "--max-waiting", "4096")

_PEER_SOURCE = BENCH / "peers" / "go"
_PEER_MODULES = (
    "google.golang.org/grpc",
    "github.com/aws/aws-sdk-go-v2",
    "github.com/aws/aws-sdk-go-v2/service/servicecatalog",
    "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
    "go.opentelemetry.io/otel/sdk",
)


class Contender(Protocol):
    """What calls AWS, or is called to."""

    @property
    def process(self) -> Process:
        """The process on the server's CPU."""

    def keep(self, callers: int, seconds: float) -> Load:
        """Let so many call, each one call after the other."""

    def pace(self, callers: int, seconds: float, rate: float) -> Load:
        """Make so many calls a second at an even pace."""


@dataclass(frozen=True)
class Loop:
    """A process that calls AWS itself."""

    process: Process
    url: str

    def keep(self, callers: int, seconds: float) -> Load:
        return self._load(callers=callers, seconds=seconds)

    def pace(self, callers: int, seconds: float, rate: float) -> Load:
        return self._load(callers=callers, seconds=seconds, rate=rate)

    def _load(self, **command: float) -> Load:
        return Load(**self.process.ask({"url": self.url, **command}))


@dataclass(frozen=True)
class Served:
    """A server that ghz calls."""

    process: Process
    ghz: Ghz

    def keep(self, callers: int, seconds: float) -> Load:
        return self.ghz.keep(self.process.address, callers, seconds)

    def pace(self, callers: int, seconds: float, rate: float) -> Load:
        return self.ghz.pace(self.process.address, callers, seconds, rate)


class Ring:
    """Starts contenders in front of the upstream."""

    def __init__(self, upstream: Upstream, ghz: Ghz, sink: Process, peer: Path | None) -> None:
        self.upstream = upstream
        self.ghz = ghz
        self.sink = sink
        self.peer = peer

    @property
    def servers(self) -> tuple[str, ...]:
        """Those servers that there are."""
        return tuple(name for name in SERVERS if self.peer or name not in {PEER, PEER_TRACED})

    @property
    def untraced(self) -> tuple[str, ...]:
        """Those of them without tracing."""
        return tuple(name for name in self.servers if name in UNTRACED)

    @contextmanager
    def server(self, name: str, route: Route, *flags: str) -> Iterator[Served]:
        """Run a server; the flags are for the façade."""
        url = self.upstream.url(route)
        variables = {"AWS_CA_BUNDLE": str(self.upstream.ca)}
        if name in {FACADE_TRACED, PEER_TRACED}:
            variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{self.sink.address}"
        if name in {FACADE, FACADE_TRACED}:
            context = facade(url, *flags, variables=variables)
        else:
            variables["AWS_ENDPOINT_URL_SERVICE_CATALOG"] = url
            command = (str(self.peer), "-listen", "127.0.0.1:0")
            context = running(command, cpu=SERVER_CPU, env=environment(variables), loud=False)
        with context as process:
            yield Served(process, self.ghz)

    @contextmanager
    def loop(self, name: str) -> Iterator[Callable[[Route], Loop]]:
        """Run a process that calls AWS itself; give what makes a contender of it for a route."""
        interpreter = {BOTO3: Path(sys.executable), AIOBOTOCORE: bench_python()}[name]
        env = environment({"AWS_CA_BUNDLE": str(self.upstream.ca)})
        with running((interpreter, "-m", f"bench.loop_{name}"), cpu=SERVER_CPU, env=env) as process:
            yield lambda route: Loop(process, self.upstream.url(route))

    def versions(self) -> dict[str, str]:
        """Return the versions of what is not Python."""
        found = {"nginx": self.upstream.version, "ghz": self.ghz.version}
        if self.peer:
            built = modules(self.peer)
            found |= {"Go": built["go"], **{name: built[name] for name in _PEER_MODULES if name in built}}
        return found


@contextmanager
def ring(routes: Sequence[Route], *, peer: bool = False) -> Iterator[Ring]:
    """Prepare all that contenders need. Raises MissingError where something is not on this machine."""
    with (
        TemporaryDirectory() as directory,
        ghz() as callers,
        upstream(Path(directory), routes) as aws,
        sink() as collector,
    ):
        yield Ring(aws, callers, collector, _build_peer(Path(directory)) if peer else None)


def bench_python() -> Path:
    """Return the interpreter of requirements/bench.txt. Raises MissingError where it is not installed."""
    # Not resolved: a virtual environment's interpreter is a link to another.
    path = Path(sys.prefix, "bench", "bin", "python")
    if not path.exists():
        raise MissingError(f"{path} is missing: `make bench` installs it")
    return path


def _build_peer(directory: Path) -> Path | None:
    """Build the peer, or return None where there is no Go."""
    go = shutil.which("go")
    if go is None or not _PEER_SOURCE.exists():
        print("without the Go peer: there is no Go on the PATH", flush=True)
        return None
    print("building the Go peer", flush=True)
    program = directory / "peer"
    subprocess.run((go, "-C", _PEER_SOURCE, "build", "-o", program, "."), check=True)
    return program
