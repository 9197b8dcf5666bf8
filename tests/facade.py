"""The façade as a user runs it: the command, in a process of its own, on a free port."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

COMMAND = Path(sys.executable).with_name("servicecatalog-grpc")
READY = re.compile(r"gRPC\s+(?:on )?(\S+)")
SANDBOX_AWS = re.compile(r"AWS\s+(http://\S+)")
LAST_LINE = {"serve": "ready", "sandbox": "Ctrl-C"}
START_SECONDS = 20

# The person's own AWS settings must not decide how a test goes.
_ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SERVICECATALOG_GRPC_"))
}


def environment(endpoint_url: str | None = None, **more: str) -> dict[str, str]:
    """Return the variables of a process that talks to this endpoint, with credentials that any emulator takes."""
    variables = {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    if endpoint_url is not None:
        variables["AWS_ENDPOINT_URL_SERVICE_CATALOG"] = endpoint_url
    return {**_ENVIRONMENT, **variables, **more}


class Facade:
    """A running `servicecatalog-grpc`, whose `address` is known once it is entered. `log` holds its stderr."""

    def __init__(self, *arguments: str, env: dict[str, str]) -> None:
        self._arguments = arguments
        self._env = env
        self.address = ""
        self.output: list[str] = []
        self.log: list[str] = []

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [COMMAND, *self._arguments],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ready = threading.Event()
        self._readers = [
            threading.Thread(target=self._keep, args=(self.process.stdout, self.output, ready)),
            threading.Thread(target=self._keep, args=(self.process.stderr, self.log, None)),
        ]
        for reader in self._readers:
            reader.start()
        if not ready.wait(START_SECONDS) or not self.address:
            self.process.kill()
            raise AssertionError("".join(["not ready\n", *self.output, *self.log]))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(40)
        finally:
            self.process.kill()
            for reader in self._readers:
                reader.join()
        assert kind is not None or "Traceback" not in "".join(self.log), "".join(self.log)

    @property
    def endpoint_url(self) -> str:
        """Where a sandbox's embedded AWS answers."""
        match = SANDBOX_AWS.search("".join(self.output))
        assert match, self.output
        return match[1]

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 40) -> int:
        """Send the signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def _keep(self, stream: object, lines: list[str], ready: threading.Event | None) -> None:
        for line in stream:  # type: ignore[attr-defined]
            lines.append(line)
            if ready and not self.address and (match := READY.search(line)):
                self.address = match[1]
            if ready and LAST_LINE[self._arguments[0]] in line:
                ready.set()
        stream.close()  # type: ignore[attr-defined]
        if ready:
            ready.set()


def serve(endpoint_url: str, *flags: str) -> Facade:
    """Return a façade in front of the endpoint that makes one attempt for each call."""
    arguments = ("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1", *flags)
    return Facade(*arguments, env=environment(endpoint_url))


def logged(facade: Facade, text: str) -> bool:
    return any(text in line for line in facade.log)


def peers(facade: Facade) -> set[str]:
    """Return the connections by which calls came, as far as these have ended."""
    return {match[1] for line in facade.log if (match := re.search(r'"peer":"([^"]*)"', line))}


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. No terminal: nobody can be asked for a passphrase."""
    return subprocess.run(
        [COMMAND, *arguments],
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def complaint(status: int, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run the command, see it fail with this status and say one line about it, and return the line."""
    ended = run(*arguments, env=env)
    assert (ended.returncode, ended.stdout) == (status, ""), ended.stderr
    assert re.fullmatch(r"servicecatalog-grpc( \w+)?: \S.*\n", ended.stderr), ended.stderr
    return ended.stderr


def refusal(status: int, *flags: str, env: dict[str, str] | None = None) -> str:
    """See `serve` fail once its command line is read, and return its one line."""
    line = complaint(status, "serve", "--listen", "127.0.0.1:0", *flags, env=env)
    assert line.startswith("servicecatalog-grpc: "), line
    return line
