"""The settings in effect, for the log: without anything that is a secret."""

import re
from collections.abc import Mapping
from dataclasses import fields

from servicecatalog_grpc.config import Settings

_MASK = "***"

# Of AWS's variables only those that choose where calls go. Most of the others are secrets or lead to them.
_AWS = (
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SERVICE_CATALOG",
    "AWS_ENDPOINT_URL_STS",
)

# OTEL_EXPORTER_OTLP_HEADERS and its like carry API keys.
_SECRET = re.compile(r"HEADERS|PASSWORD|SECRET|TOKEN|API_?KEY", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]*@")


def effective_settings(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return each setting by its name, and the standard variables that are set."""
    own = {each.name: str(getattr(settings, each.name)) for each in fields(settings)}
    standard = {name: value for name, value in environment.items() if name.startswith("OTEL_") or name in _AWS}
    return {name: _masked(name, value) for name, value in {**own, **dict(sorted(standard.items()))}.items()}


def _masked(name: str, value: str) -> str:
    return _MASK if _SECRET.search(name) else _USER_IN_URL.sub(f"{_MASK}@", value)
