"""What was measured, as plain data, and the statistics on it: medians, spreads, and ratios of what ran side by side."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from operator import truediv
from pathlib import Path
from typing import Any, NamedTuple

BOTO3 = "boto3"
AIOBOTOCORE = "aiobotocore"
FACADE, FACADE_TRACED = "façade", "façade, traced"
PEER, PEER_TRACED = "Go peer", "Go peer, traced"

THREADS = 16  # of the boto3 that throughput is compared with

# From so many on, quartiles say something; of fewer rounds, the reports have the lowest and the highest.
_ENOUGH = 5


class Route(NamedTuple):
    """A way to the upstream's answer: after how many milliseconds, and whether with TLS."""

    delay_ms: int
    tls: bool

    def __str__(self) -> str:
        return f"{self.delay_ms} ms, {'TLS' if self.tls else 'plain HTTP'}"


@dataclass(frozen=True)
class Turn:
    """One contender's turn under load. Shares are of one CPU, from 0 to 1."""

    round: int
    route: Route
    contender: str
    callers: int
    calls: int
    seconds: float
    cpu_seconds: float
    shares: dict[str, float]
    errors: dict[str, int]
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """CPU per call, in milliseconds."""
        return self.cpu_seconds / self.calls * 1000

    @property
    def rate(self) -> float:
        """Calls answered per second."""
        return self.calls / self.seconds


@dataclass(frozen=True)
class Flight:
    """Calls that were in flight at once, in a process that had served none before."""

    round: int
    route: Route
    contender: str
    calls: int
    answered: int
    seconds: float
    idle_kib: int
    peak_kib: int
    errors: dict[str, int]

    @property
    def kib(self) -> float:
        """Memory per call beyond that of the idle process, in KiB."""
        return (self.peak_kib - self.idle_kib) / self.calls


@dataclass(frozen=True)
class Start:
    """A start: how long until all services said SERVING, and the memory after that."""

    round: int
    contender: str
    seconds: float
    resident_kib: int


class Spread(NamedTuple):
    """A median, and how far the rounds lie from it: quartiles, or the extremes of few."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        if len(values) < _ENOUGH:
            return cls(statistics.median(values), min(values), max(values))
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


class Key(NamedTuple):
    """Whose turns: the contender, with how many callers, by which route."""

    contender: str
    callers: int
    route: Route


@dataclass
class Measured:
    """All that a run has measured; `load` as fast as the callers could, `paced` at an even pace."""

    load: list[Turn] = field(default_factory=list)
    paced: list[Turn] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """Read what `write` has written."""
        data = json.loads(path.read_text())

        def each(kind: Callable[..., Any], name: str) -> list[Any]:
            return [kind(**{**row, "route": Route(*row["route"])}) for row in data[name]]

        starts = [Start(**row) for row in data["starts"]]
        return cls(each(Turn, "load"), each(Turn, "paced"), each(Flight, "flights"), starts, data["versions"])

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False))


def turns(rows: Sequence[Turn], key: Key) -> dict[int, Turn]:
    """Return the contender's turns by their rounds."""
    return {row.round: row for row in rows if Key(row.contender, row.callers, row.route) == key}


def spread(rows: Sequence[Turn], key: Key, value: Callable[[Turn], float]) -> Spread | None:
    """Return the spread of a value over the rounds, or None if it was not measured."""
    values = [value(row) for row in turns(rows, key).values()]
    return Spread.of(values) if values else None


def compare(
    rows: Sequence[Turn],
    one: Key,
    other: Key,
    value: Callable[[Turn], float],
    how: Callable[[float, float], float] = truediv,
) -> Spread | None:
    """Return the spread of what one value is to the other of the same round: their ratio, or e.g. their difference."""
    ours, theirs = turns(rows, one), turns(rows, other)
    values = [how(value(ours[number]), value(theirs[number])) for number in ours.keys() & theirs.keys()]
    return Spread.of(values) if values else None
