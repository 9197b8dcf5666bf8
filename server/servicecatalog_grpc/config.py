"""The settings: one frozen object, checked when it is made, from flags and environment variables."""

import argparse
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

ENVIRONMENT_PREFIX = "SERVICECATALOG_GRPC_"

# Python's own int and float take more: digits of other scripts, and `1_000`.
_NUMBER = re.compile(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", re.ASCII | re.IGNORECASE)

_FORWARDED = ("ignore", "trust")
_LEVELS = ("debug", "info", "warning", "error")
_MAX_PORT = 65535
_MAX_SECONDS = 7 * 24 * 3600  # gRPC counts milliseconds in 31 bits, which is more than three weeks
_MAX_SOCKET_PATH_BYTES = 107  # sun_path of Linux, less the final NUL


class SettingsError(Exception):
    """A setting that cannot be used. The text is one line that names the setting."""


class StartError(Exception):
    """The server cannot start. The text is one line."""


def _setting(default: Any, help_text: str, metavar: str) -> Any:
    return field(default=default, metadata={"help": help_text, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve. Raises SettingsError at construction. AWS's own settings stay with AWS's standard variables."""

    listen: str = _setting("127.0.0.1:50051", "where to serve gRPC: HOST:PORT, [IPV6]:PORT or unix:PATH", "ADDRESS")
    tls_certificate: str = _setting("", "the server's certificate chain, in PEM; plaintext if empty", "FILE")
    tls_key: str = _setting("", "its private key, in PEM", "FILE")
    tls_client_ca: str = _setting("", "authorities of callers' certificates, in PEM; callers then need one", "FILE")
    policy: str = _setting("", "who may do what, in YAML; everybody everything if empty", "FILE")
    forwarded_client_cert: str = _setting(
        "ignore", f"{_FORWARDED[0]} or {_FORWARDED[1]} x-forwarded-client-cert from loopback or a Unix socket", "HOW"
    )
    keepalive_time: float = _setting(60.0, "seconds of silence on a connection until the server pings", "SECONDS")
    max_connection_age: float = _setting(0.0, "seconds until callers are asked to connect anew; never if 0", "SECONDS")
    max_connection_age_grace: float = _setting(60.0, "seconds after that until calls still open break", "SECONDS")
    default_deadline: float = _setting(25.0, "deadline of calls that set none, in seconds", "SECONDS")
    max_writes: int = _setting(32, "calls at a time that change something; each takes a connection to AWS", "COUNT")
    max_reads: int = _setting(32, "calls at a time that only read; each takes a connection to AWS", "COUNT")
    max_watches: int = _setting(20_000, "watches that may be open at a time", "COUNT")
    max_waiting: int = _setting(256, "calls of either kind that may wait for their turn", "COUNT")
    aws_rate: str = _setting("", "calls per second to AWS, as OPERATION=RATE[,…]; others are not held back", "RATES")
    poll_first: float = _setting(1.0, "first pause between two looks at a watched record, in seconds", "SECONDS")
    poll_longest: float = _setting(30.0, "longest pause between two looks at a watched record, in seconds", "SECONDS")
    poll_rate: float = _setting(10.0, "looks per second at all watched records together, first looks aside", "RATE")
    max_attempts: int = _setting(4, "attempts of a call to AWS, the first one included", "COUNT")
    grace: float = _setting(30.0, "how long a stop waits for calls in flight, in seconds", "SECONDS")
    metrics_listen: str = _setting("", "where to serve metrics to Prometheus: HOST:PORT; nowhere if empty", "ADDRESS")
    log_level: str = _setting("info", f"least level to log: {', '.join(_LEVELS)}", "LEVEL")

    def __post_init__(self) -> None:
        _check_address("listen", self.listen, unix=True)
        for name in ("tls_certificate", "tls_key", "tls_client_ca", "policy"):
            _check_path(name, getattr(self, name))
        _check_pair(self.tls_certificate, self.tls_key)
        if self.tls_client_ca and not self.tls_certificate:
            raise SettingsError(f"{_flag('tls_client_ca')}: needs {_flag('tls_certificate')} and {_flag('tls_key')}")
        if self.forwarded_client_cert not in _FORWARDED:
            raise SettingsError(
                f"{_flag('forwarded_client_cert')}: must be {' or '.join(_FORWARDED)}, is {self.forwarded_client_cert!r}"
            )
        _check_number("keepalive_time", self.keepalive_time, least=1, most=_MAX_SECONDS)
        _check_number("max_connection_age", self.max_connection_age, least=0, most=_MAX_SECONDS)
        _check_number("max_connection_age_grace", self.max_connection_age_grace, least=0, most=_MAX_SECONDS)
        _check_number("default_deadline", self.default_deadline, least=0.001)
        _check_number("max_writes", self.max_writes, least=1, most=10_000)
        _check_number("max_reads", self.max_reads, least=1, most=10_000)
        _check_number("max_watches", self.max_watches, least=1)
        _check_number("max_waiting", self.max_waiting, least=0)
        _check_number("poll_first", self.poll_first, least=0.01)
        _check_number("poll_longest", self.poll_longest, least=self.poll_first)
        _check_number("poll_rate", self.poll_rate, least=0.01)
        _ = self.aws_rates
        _check_number("max_attempts", self.max_attempts, least=1, most=10)
        _check_number("grace", self.grace, least=0)
        if self.metrics_listen:
            _check_address("metrics_listen", self.metrics_listen, unix=False)
        if self.log_level not in _LEVELS:
            raise SettingsError(f"{_flag('log_level')}: must be one of {', '.join(_LEVELS)}, is {self.log_level!r}")

    @property
    def aws_rates(self) -> dict[str, float]:
        """The calls per second by operation."""
        rates = {}
        for entry in filter(None, self.aws_rate.split(",")):
            operation, _, rate = entry.partition("=")
            try:
                rates[operation.strip()] = float(rate)
            except ValueError:
                raise SettingsError(f"{_flag('aws_rate')}: must be OPERATION=RATE[,…], is {self.aws_rate!r}") from None
            _check_number("aws_rate", rates[operation.strip()], least=0.001)
        return rates

    @property
    def trusts_forwarded(self) -> bool:
        """Whether a proxy beside the server may say who calls."""
        return self.forwarded_client_cert == "trust"

    @property
    def logging_level(self) -> int:
        """The log level as the logging module counts it."""
        return int(getattr(logging, self.log_level.upper()))


@dataclass(frozen=True, kw_only=True)
class SandboxSettings(Settings):
    """How to serve with an embedded AWS behind it."""

    aws_listen: str = _setting("127.0.0.1:4566", "where the embedded AWS answers: HOST:PORT", "ADDRESS")
    record_seconds: float = _setting(2.0, "how long each piece of work takes, in seconds", "SECONDS")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_address("aws_listen", self.aws_listen, unix=False)
        _check_number("record_seconds", self.record_seconds, least=0, most=3600)


@dataclass(frozen=True, kw_only=True)
class HealthSettings:
    """Whom to ask for its health, and how. Raises SettingsError at construction."""

    address: str = _setting(
        "", f"where the server is; where ${ENVIRONMENT_PREFIX}LISTEN or {Settings.listen} says, if empty", "ADDRESS"
    )
    service: str = _setting("", "a service's full name; the server as a whole if empty", "NAME")
    tls_ca: str = _setting("", "authorities of the server's certificate, in PEM", "FILE")
    tls_certificate: str = _setting(
        "", "certificate chain to show to it, in PEM; without authorities, also the one that it has to have", "FILE"
    )
    tls_key: str = _setting("", "private key of that certificate, in PEM", "FILE")
    tls_name: str = _setting("", "name in the server's certificate, if not the host of its address", "NAME")

    def __post_init__(self) -> None:
        _check_pair(self.tls_certificate, self.tls_key)


S = TypeVar("S", Settings, SandboxSettings, HealthSettings)


def add_flags(parser: argparse.ArgumentParser, settings: type[Settings | HealthSettings]) -> None:
    """Give the parser one flag per setting; its help names default and variable."""
    for each in fields(settings):
        variable = ENVIRONMENT_PREFIX + each.name.upper()
        parser.add_argument(
            _flag(each.name),
            metavar=each.metadata["metavar"],
            help=f"{each.metadata['help']} (default {each.default or 'none'}, or ${variable})",
        )


def read_settings(settings: type[S], flags: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> S:
    """Return the settings: a flag wins over its variable, the variable over the default. Raises SettingsError."""
    known = {ENVIRONMENT_PREFIX + each.name.upper(): each for each in fields(settings)}
    values = {}
    for variable, each in known.items():
        flag = getattr(flags, each.name)
        if flag is not None:
            values[each.name] = _parse(each, flag, _flag(each.name))
        elif variable in environment:
            values[each.name] = _parse(each, environment[variable], f"${variable}")
    return settings(**values)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings and are none: misspelt ones, or those of another version.

    They are no error, because Kubernetes makes such variables for a Service of the name `servicecatalog-grpc`
    (https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables).
    """
    known = {
        ENVIRONMENT_PREFIX + each.name.upper() for kind in (SandboxSettings, HealthSettings) for each in fields(kind)
    }
    return sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT or [IPV6]:PORT. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets")
    if not (separator and host and host.isprintable() and " " not in host):
        raise ValueError("no host")
    if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise ValueError("not HOST:PORT")
    return host, int(port)


def _parse(each: "Field[Any]", text: str, source: str) -> Any:
    if isinstance(each.default, str):
        return text
    kind = int if isinstance(each.default, int) else float
    try:
        return kind(text if _NUMBER.fullmatch(text) else "")
    except ValueError:
        raise SettingsError(
            f"{source}: must be {'a whole number' if kind is int else 'a number'}, is {text!r}"
        ) from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_address(name: str, address: str, *, unix: bool) -> None:
    if unix and address.startswith("unix:"):
        path = address.removeprefix("unix:")
        # gRPC takes addresses in UTF-8 only.
        encoded = path.encode(errors="surrogateescape")
        if (
            not path.isprintable()
            or not 0 < len(encoded) <= _MAX_SOCKET_PATH_BYTES
            or not Path(path).absolute().parent.is_dir()
        ):
            raise SettingsError(
                f"{_flag(name)}: must be a path of at most {_MAX_SOCKET_PATH_BYTES} bytes in a directory that exists, "
                f"is {path!r}"
            )
        return
    try:
        split_address(address)
    except ValueError:
        forms = "HOST:PORT, [IPV6]:PORT or unix:PATH" if unix else "HOST:PORT or [IPV6]:PORT"
        raise SettingsError(f"{_flag(name)}: must be {forms}, is {address!r}") from None


def _check_pair(certificate: str, key: str) -> None:
    if bool(certificate) != bool(key):
        raise SettingsError(f"{_flag('tls_certificate')} and {_flag('tls_key')}: one needs the other")


def _check_path(name: str, path: str) -> None:
    if not path.isprintable():
        raise SettingsError(f"{_flag(name)}: must be a path, is {path!r}")


def _check_number(name: str, value: float, *, least: float, most: float = math.inf) -> None:
    if not least <= value <= most or not math.isfinite(value):
        bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise SettingsError(f"{_flag(name)}: must be {bounds}, is {value}")
