"""The providers of the OpenTelemetry SDK. Only who exports something imports this."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points, version
from typing import Any
from uuid import uuid4

from opentelemetry import metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from servicecatalog_grpc.config import SettingsError
from servicecatalog_grpc.telemetry.exported_logs import ExportedLogs
from servicecatalog_grpc.telemetry.prometheus import serve_metrics

_NAME = "servicecatalog-grpc"

# What is left of three seconds for the process to end in.
_SHUTDOWN_SECONDS = 2.0

_PROMETHEUS = "prometheus"


def start_providers(exporters: Mapping[str, Sequence[str]], metrics_listen: str) -> Callable[[], None]:
    """Make a provider for each signal that has an exporter, and return what shuts them down.

    Raises SettingsError for an exporter that is not there or cannot be made, and OSError if the address for Prometheus
    cannot be had. Samplers, batches, endpoints and so on come from the standard variables, which the SDK reads itself.
    """
    made = {
        signal: [_make(signal, name) for name in names if name != _PROMETHEUS] for signal, names in exporters.items()
    }
    readers: list[MetricReader] = [
        each if isinstance(each, MetricReader) else PeriodicExportingMetricReader(each) for each in made["metrics"]
    ]
    stops: list[Callable[[], Any]] = []
    if metrics_listen or _PROMETHEUS in exporters["metrics"]:
        reader, stop = serve_metrics(metrics_listen)
        readers.append(reader)
        stops.append(stop)
    # Spans and what hangs on them live until they are exported. At Python's own thresholds, looking for garbage among
    # them costs more than any other part of telemetry.
    gc.set_threshold(20_000, 20, 100)
    resource = _resource()
    # None of them is left to the end of the interpreter, where they would wait for half a minute each.
    if readers:
        meter_provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meter_provider)
        stops.append(meter_provider.shutdown)
    if made["traces"]:
        tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in made["traces"]:
            tracer_provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(tracer_provider)
        stops.append(tracer_provider.shutdown)
    if made["logs"]:
        logger_provider = LoggerProvider(resource, shutdown_on_exit=False)
        for exporter in made["logs"]:
            logger_provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        logging.getLogger().addHandler(ExportedLogs(logger_provider))
        stops.append(logger_provider.shutdown)
    return lambda: _stop(stops)


def _make(signal: str, name: str) -> Any:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    found = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    if not found:
        raise SettingsError(f"${variable}: no exporter of this name is installed: {name!r}")
    try:
        return next(iter(found)).load()()
    except Exception as error:
        raise SettingsError(f"${variable}: {name} cannot be used as configured: {error}") from error


def _resource() -> Resource:
    """Return who this process is: what the standard variables say, and where they say nothing what it knows itself."""
    said = OTELResourceDetector().detect().attributes
    own = {"service.name": _NAME, "service.version": version(_NAME), "service.instance.id": str(uuid4())}
    return Resource.create({name: value for name, value in own.items() if name not in said})


def _stop(stops: Sequence[Callable[[], Any]]) -> None:
    """Call all of them side by side, and wait for them only so long: a collector may be away, and its exporter patient."""
    threads = [threading.Thread(target=stop, daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _SHUTDOWN_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
