"""A real OpenTelemetry Collector that writes what it gets to a file, and the reading of that file."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import need

START_SECONDS = 20

_CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      http: {{endpoint: "127.0.0.1:{http}"}}
exporters:
  file:
    path: {path}
    flush_interval: 50ms
service:
  telemetry:
    metrics: {{level: none}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
    metrics: {{receivers: [otlp], exporters: [file]}}
    logs: {{receivers: [otlp], exporters: [file]}}
"""


@dataclass(frozen=True)
class Span:
    """A span as the collector got it."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    error: bool
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    service: str

    @classmethod
    def read(cls, raw: dict[str, Any], service: str) -> "Span":
        status = raw.get("status", {})
        assert "message" not in status
        return cls(
            name=raw["name"],
            kind={1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}[raw["kind"]],
            trace=raw["traceId"],
            id=raw["spanId"],
            parent=raw.get("parentSpanId", ""),
            error=status.get("code") == 2,
            attributes=attributes(raw),
            events=[(event["name"], attributes(event)) for event in raw.get("events", ())],
            service=service,
        )


def attributes(raw: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: _value(each["value"]) for each in raw.get("attributes", ())}


def _value(raw: dict[str, Any]) -> Any:
    ((kind, value),) = raw.items()
    if kind == "arrayValue":
        return [_value(each) for each in value.get("values", ())]
    return int(value) if kind == "intValue" else value


class Collector:
    """The collector, at `endpoint` for gRPC and at `http_endpoint` for HTTP."""

    def __init__(self, endpoint: str, http_endpoint: str, path: Path) -> None:
        self.endpoint = endpoint
        self.http_endpoint = http_endpoint
        self.path = path

    def batches(self) -> list[dict[str, Any]]:
        """Return what came, leaving out a line that is not whole yet."""
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        return [json.loads(line) for line in lines]

    def spans(self) -> list[Span]:
        return [
            Span.read(raw, attributes(resource["resource"])["service.name"])
            for batch in self.batches()
            for resource in batch.get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for raw in scope["spans"]
        ]

    def spans_of(self, trace: str, count: int) -> list[Span]:
        """Wait until the trace has so many spans, and return them."""

        def found() -> list[Span]:
            return [span for span in self.spans() if span.trace == trace]

        wait_for(lambda: len(found()) >= count)
        return found()

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return each metric by its name, as it came last."""
        return {
            metric["name"]: metric
            for batch in self.batches()
            for resource in batch.get("resourceMetrics", ())
            for scope in resource["scopeMetrics"]
            for metric in scope["metrics"]
        }

    def logs(self) -> list[dict[str, Any]]:
        return [
            record
            for batch in self.batches()
            for resource in batch.get("resourceLogs", ())
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]


@contextmanager
def collector(directory: Path) -> Iterator[Collector]:
    """Run a collector that writes into the directory."""
    program = need("otelcol")
    grpc, http = free_port(), free_port()
    path, config, log = directory / "otlp.jsonl", directory / "config.yaml", directory / "otelcol.log"
    config.write_text(_CONFIG.format(grpc=grpc, http=http, path=path))
    with log.open("w") as output:
        process = subprocess.Popen([program, f"--config=file:{config}"], stdout=output, stderr=output)
    try:
        wait_for(lambda: "Everything is ready" in log.read_text() or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, log.read_text()
        yield Collector(f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}", path)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)
