"""The same log through OpenTelemetry, for those who collect logs that way."""

import logging

from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider

from servicecatalog_grpc.telemetry.logs import fields_of

_LEVELS_APART = 10
_SEVERITIES_APART = 4


class ExportedLogs(logging.Handler):
    """Hands each record to the provider. What the SDK itself logs stays here, or a failing export would feed itself."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._logger = provider.get_logger("servicecatalog_grpc")

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("opentelemetry."):
            return
        attributes = {**fields_of(record), "logger": record.name}
        if record.exc_info:
            attributes["exception.stacktrace"] = logging.Formatter().formatException(record.exc_info)
        self._logger.emit(
            timestamp=int(record.created * 1e9),
            severity_number=SeverityNumber(record.levelno // _LEVELS_APART * _SEVERITIES_APART + 1),
            severity_text=record.levelname,
            body=record.getMessage(),
            attributes=attributes,
        )
