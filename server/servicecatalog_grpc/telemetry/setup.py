"""Starts telemetry as the standard variables of OpenTelemetry and `--metrics-listen` say, and stops it again.

See https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import os
from collections.abc import Callable, Mapping

from servicecatalog_grpc.config import SettingsError

SIGNALS = ("traces", "metrics", "logs")

_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


def start_telemetry(metrics_listen: str, environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Start what is configured and return what stops it, which flushes and takes two seconds at most.

    Where nothing is configured nothing of the SDK is imported. Raises SettingsError for a setting that cannot be used,
    and OSError if Prometheus cannot be served there.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return _nothing
    exporters = {signal: exporter_names(signal, environment) for signal in SIGNALS}
    if not any(exporters.values()) and not metrics_listen:
        return _nothing
    from servicecatalog_grpc.telemetry.providers import start_providers  # noqa: PLC0415 - it imports the SDK

    return start_providers(exporters, metrics_listen)


def exporter_names(signal: str, environment: Mapping[str, str]) -> list[str]:
    """Return the names of a signal's exporters, as their packages register them. Raises SettingsError.

    An endpoint alone is wish enough for traces and metrics. Logs stand on stderr already: they are exported where
    somebody says so.
    """
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = environment.get(variable, "").strip()
    if not names:
        endpoints = [f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"]
        if signal != "logs":
            endpoints.append("OTEL_EXPORTER_OTLP_ENDPOINT")
        names = "otlp" if any(environment.get(each) for each in endpoints) else "none"
    chosen = [name.strip() for name in names.split(",")]
    return [_protocol(signal, environment) if name == "otlp" else name for name in chosen if name not in {"", "none"}]


def _protocol(signal: str, environment: Mapping[str, str]) -> str:
    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    for variable in variables:
        if protocol := environment.get(variable, "").strip():
            if protocol not in _PROTOCOLS:
                raise SettingsError(f"${variable}: must be one of {', '.join(_PROTOCOLS)}, is {protocol!r}")
            return _PROTOCOLS[protocol]
    return _PROTOCOLS["grpc"]


def _nothing() -> None:
    pass
