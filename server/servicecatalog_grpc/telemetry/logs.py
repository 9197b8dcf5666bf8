"""The log on stderr: JSON lines for programs, readable ones for people, and no flood when a collector is away."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
from opentelemetry import trace

# Where the SDK reports that it could not export. It does so again and again, and each signal for itself.
_EXPORT_LOGGERS = ("opentelemetry.exporter.", "opentelemetry.sdk.")
_REMINDER_SECONDS = 600.0

_NOISE = {"ExecuteBatchError", "CancelledError", "UnicodeDecodeError"}


def start_logging(level: int, stream: TextIO = sys.stderr) -> None:
    """Log from this level on to the stream, in the form that suits it."""
    # No line says which thread or process wrote it, and to find out takes longer than the rest of a record
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Readable() if stream.isatty() else _Json())
    handler.addFilter(Dampened())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
    # botocore logs requests and replies whole at its debug level, parameter values and outputs included.
    logging.getLogger("botocore").setLevel(max(level, logging.WARNING))
    # What it says of a failed refresh includes what a credential process printed; aws/credentials.py says enough.
    logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)
    # urllib3 warns of a reply that it cannot parse with the reply's own words.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_noise)


def _is_no_noise(record: logging.LogRecord) -> bool:
    """Say whether what gRPC logs is a fault, and not a caller's or a stop's doing.

    It has a traceback for each caller that hangs up while its answer is on the way, for each stream that a stop ends and
    for a path that is no text; and it quotes metadata that is no text.
    """
    kind = record.exc_info[0] if record.exc_info else None
    return not (kind and kind.__name__ in _NOISE) and "Invalid encoding on" not in str(record.msg)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record says beside its message, and the trace that it belongs to."""
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    known = {name: value for name, value in fields.items() if value is not None}
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        known["trace_id"] = trace.format_trace_id(span.trace_id)
        known["span_id"] = trace.format_span_id(span.span_id)
    return known


class Dampened(logging.Filter):
    """Lets one record through that says that an export failed, and another one after ten minutes."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_EXPORT_LOGGERS):
            return True
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _REMINDER_SECONDS
        return True


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:
            # It takes no text that is not Unicode, as a path or a variable can be, and no number of more than 64 bits.
            return json.dumps(line, default=str)


class _Readable(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        return super().formatMessage(record) + fields
