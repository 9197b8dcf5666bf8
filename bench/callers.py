"""Callers of façades: ghz, a program in Go, which costs less CPU than what it calls."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.loop import Load
from bench.processes import BENCH, COMMAND
from bench.upstream import MissingError

CONNECTIONS = 4
_STREAMS = 100  # what gRPC's implementations put on one connection before they have heard what the server allows
_CALL = "servicecatalog.v1.ProvisioningService.ProvisionProduct"
_REQUEST = {"product_id": "prod-1", "provisioning_artifact_id": "pa-1", "provisioned_product_name": "bench"}


class Ghz:
    """The program, and the contract that it calls by."""

    def __init__(self, program: str, protoset: Path) -> None:
        self._command = (program, "--insecure", "--protoset", str(protoset), "--call", _CALL)
        self._program = program

    @property
    def version(self) -> str:
        """The version that it was built from."""
        return modules(self._program).get("github.com/bojand/ghz", "of unknown version")

    def keep(self, address: str, callers: int, seconds: float) -> Load:
        """Let so many call for so many seconds, each one call after the other."""
        connections = min(callers, CONNECTIONS)
        return self._run(address, f"-c{callers}", f"--connections={connections}", f"-z{seconds}s")

    def pace(self, address: str, callers: int, seconds: float, rate: float) -> Load:
        """Make so many calls a second, at an even pace."""
        count = f"-n{round(rate * seconds)}"
        return self._run(address, f"-c{callers}", f"--connections={CONNECTIONS}", count, f"--rps={rate:g}")

    def burst(self, address: str, calls: int) -> Load:
        """Make so many calls at once."""
        connections = max(CONNECTIONS, calls // _STREAMS)
        return self._run(address, f"-c{calls}", f"-n{calls}", f"--connections={connections}", "--timeout=60s")

    def _run(self, address: str, *arguments: str) -> Load:
        command = (*self._command, "--data", json.dumps(_REQUEST), "--duration-stop=wait", "--format=json", *arguments)
        done = subprocess.run((*command, address), stdout=subprocess.PIPE, check=True)
        report = json.loads(done.stdout)
        return Load(
            calls=report["statusCodeDistribution"].get("OK", 0),
            seconds=report["total"] / 1e9,
            errors=report["errorDistribution"] or {},
            milliseconds=[call["latency"] / 1e6 for call in report["details"] or () if call["status"] == "OK"],
        )


@contextmanager
def ghz() -> Iterator[Ghz]:
    """Find the program and compile the contract. Raises MissingError where it is not installed."""
    program = shutil.which("ghz", path=os.pathsep.join((str(COMMAND.parent), os.environ.get("PATH", os.defpath))))
    if program is None:
        raise MissingError("ghz is missing: `make bench` installs it with Go on the PATH")
    with TemporaryDirectory() as directory:
        # ghz's own parser of .proto files knows no optional fields.
        protoset = Path(directory, "contract.binpb")
        subprocess.run(
            (COMMAND.with_name("buf"), "build", "--as-file-descriptor-set", "--output", protoset),
            cwd=BENCH.parent,
            check=True,
        )
        yield Ghz(program, protoset)


def modules(program: str | Path) -> dict[str, str]:
    """Return the modules that a Go program was built from, with their versions, and `go` with that of Go."""
    go = shutil.which("go")
    if go is None:
        return {}
    text = subprocess.run((go, "version", "-m", program), capture_output=True, text=True, check=True).stdout
    version = re.search(r": go(\S+)", text)
    found = dict(re.findall(r"^\t(?:mod|dep)\t(\S+)\t(\S+)", text, re.MULTILINE))
    return {**found, "go": version[1] if version else "unknown"}
