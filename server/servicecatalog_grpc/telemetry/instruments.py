"""Every metric of the server: its name, unit and description, and what is measured when somebody asks.

Labels are operations, codes, reasons and classes, of which there are few; ids belong in traces and logs. Without a meter
provider nothing is kept.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

CLASS = "servicecatalog_grpc.class"
ROLE = "servicecatalog.aws.role"
TOKEN_SOURCE = "servicecatalog.token.source"  # noqa: S105 - an attribute's name

# The boundaries that the conventions advise:
# https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/#metric-rpcservercallduration
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

_meter = metrics.get_meter("servicecatalog_grpc")

call_duration = _meter.create_histogram(
    "rpc.server.call.duration",
    unit="s",
    description="How long calls took, by method and status.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
attempt_duration = _meter.create_histogram(
    "rpc.client.call.duration",
    unit="s",
    description="How long attempts of calls to AWS took, by operation and AWS error code.",
    explicit_bucket_boundaries_advisory=_SECONDS,
)
throttles = _meter.create_counter(
    "servicecatalog_grpc.aws.throttles",
    unit="{attempt}",
    description="Attempts that AWS throttled, by operation.",
)
refusals = _meter.create_counter(
    "servicecatalog_grpc.refusals",
    unit="{call}",
    description="Calls that this server refused, by method and reason: before anything was done for them at AWS.",
)

# Each write takes one, and a count of our own costs a tenth of what the SDK's does.
tokens: Counter[str] = Counter()
_meter.create_observable_counter(
    "servicecatalog_grpc.tokens",
    [lambda _: [Observation(count, {TOKEN_SOURCE: source}) for source, count in tokens.copy().items()]],
    unit="{token}",
    description="Idempotency tokens, by where they came from.",
)


class Load(Protocol):
    """What a class of calls keeps busy."""

    @property
    def in_flight(self) -> int:
        """How many calls are at work."""

    @property
    def waiting(self) -> int:
        """How many calls wait for their turn."""


def observe_load(classes: Mapping[str, Load]) -> None:
    """Measure the load of each class of calls from now on."""
    _gauge(
        "servicecatalog_grpc.calls.in_flight",
        "{call}",
        "Calls at work, by class.",
        lambda: ((load.in_flight, {CLASS: name}) for name, load in classes.items()),
    )
    _gauge(
        "servicecatalog_grpc.calls.waiting",
        "{call}",
        "Calls that wait for their turn, by class.",
        lambda: ((load.waiting, {CLASS: name}) for name, load in classes.items()),
    )


def observe_credentials(own: Callable[[], float | None], roles: Callable[[], Mapping[str, float]]) -> None:
    """Measure how long the AWS credentials are good for from now on: the server's own, None for ever, and those of roles."""

    def measure() -> Iterable[tuple[float, Mapping[str, str]]]:
        if (left := own()) is not None:
            yield left, {}
        for role, left in roles().items():
            yield left, {ROLE: role}

    _gauge(
        "servicecatalog_grpc.credentials.expiry",
        "s",
        "How long the AWS credentials are good for, by role if not the server's own; absent for those that do not expire.",
        measure,
    )


def observe_certificate(seconds_left: Callable[[], float]) -> None:
    """Measure how long the server's TLS certificate is valid for from now on."""
    _gauge(
        "servicecatalog_grpc.certificate.expiry",
        "s",
        "How long the server's TLS certificate is valid for; absent without TLS.",
        lambda: ((seconds_left(), {}),),
    )


def _gauge(
    name: str, unit: str, description: str, measure: Callable[[], Iterable[tuple[float, Mapping[str, str]]]]
) -> None:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(attributes)) for value, attributes in measure()]

    _meter.create_observable_gauge(name, [callback], unit=unit, description=description)
