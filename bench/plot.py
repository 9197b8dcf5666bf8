"""Draws what was measured: `python -m bench.plot MEASURED.json RESULTS.svg`, in the environment of requirements/bench.txt."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.measured import (
    AIOBOTOCORE,
    BOTO3,
    FACADE,
    FACADE_TRACED,
    PEER,
    PEER_TRACED,
    THREADS,
    Key,
    Measured,
    Route,
    Spread,
    compare,
    spread,
)

_COLOURS = {
    BOTO3: "#7f7f7f",
    AIOBOTOCORE: "#bcbd22",
    FACADE: "#1f77b4",
    FACADE_TRACED: "#9ecae1",
    PEER: "#2ca02c",
    PEER_TRACED: "#a1d99b",
}
_FAST = Route(delay_ms=0, tls=True)
_SERVERS = (FACADE, FACADE_TRACED, PEER)


def main() -> None:
    """Draw a panel for each question, all with TLS, as AWS has it."""
    source, destination = map(Path, sys.argv[1:])
    measured = Measured.read(source)
    # The same figures are the same file.
    mpl.rcParams |= {"svg.hashsalt": "bench", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, panels = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    _cpu_per_call(panels[0, 0], measured)
    _throughput(panels[0, 1], measured)
    _latency(panels[1, 0], measured)
    _flights(panels[1, 1], measured)
    figure.suptitle("ProvisionProduct over TLS: medians, and how far the rounds lie from them")
    figure.savefig(destination, metadata={"Date": None})


def _cpu_per_call(panel: Any, measured: Measured) -> None:
    names = [name for name in _COLOURS if _turns(measured, name)]
    bars = [(name, callers) for name in names for callers in (1, THREADS)]
    found = [compare(measured.load, Key(*bar, _FAST), Key(BOTO3, 1, _FAST), lambda turn: turn.cpu_ms) for bar in bars]
    _bars(panel, [f"{name}, {callers}" for name, callers in bars], found, [_COLOURS[name] for name, _ in bars])
    panel.axvline(1, color="black", linewidth=0.8, linestyle="--")
    panel.set_title("CPU per call ÷ boto3 in a loop, by callers")


def _throughput(panel: Any, measured: Measured) -> None:
    for name in (FACADE, FACADE_TRACED, PEER, PEER_TRACED):
        callers = sorted({turn.callers for turn in _turns(measured, name)})
        found = [spread(measured.load, Key(name, count, _FAST), lambda turn: turn.rate) for count in callers]
        _line(panel, name, callers, found)
    boto3 = spread(measured.load, Key(BOTO3, THREADS, _FAST), lambda turn: turn.rate)
    if boto3:
        panel.axhline(boto3.median, color=_COLOURS[BOTO3], linestyle="--", label=f"{BOTO3}, {THREADS} threads")
    panel.set_xscale("log", base=2)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("callers")
    _scale(panel, sorted({turn.callers for turn in measured.load}))
    panel.set_title("calls per second on one core")
    panel.legend(frameon=False)


def _latency(panel: Any, measured: Measured) -> None:
    labels, found, colours = [], [], []
    for name in _SERVERS:
        turns = [turn for turn in measured.paced if turn.contender == name and turn.route.tls]
        for percent in (50, 99):
            values = [
                getattr(turn, f"p{percent}_ms") - getattr(other, f"p{percent}_ms")
                for turn in turns
                for other in measured.paced
                if (other.contender, other.route, other.round) == (BOTO3, turn.route, turn.round)
            ]
            if values:
                labels.append(f"{name}, p{percent}")
                found.append(Spread.of(values))
                colours.append(_COLOURS[name])
    _bars(panel, labels, found, colours)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_title("latency added to plain boto3, milliseconds")


def _flights(panel: Any, measured: Measured) -> None:
    for name in (FACADE, PEER):
        flights = [flight for flight in measured.flights if flight.contender == name and flight.route.tls]
        calls = sorted({flight.calls for flight in flights})
        _line(panel, name, calls, [Spread.of([each.kib for each in flights if each.calls == count]) for count in calls])
    panel.set_ylim(bottom=0)
    panel.set_xscale("log")
    _scale(panel, sorted({flight.calls for flight in measured.flights}))
    panel.set_xlabel("calls in flight at once")
    panel.set_title("memory per call in flight, KiB")
    panel.legend(frameon=False)


def _turns(measured: Measured, name: str) -> list[Any]:
    return [turn for turn in measured.load if turn.contender == name and turn.route == _FAST]


def _bars(panel: Any, labels: Sequence[str], spreads: Sequence[Spread | None], colours: Sequence[str]) -> None:
    found = [each or Spread(0, 0, 0) for each in spreads]
    medians = [each.median for each in found]
    bars = panel.barh(labels, medians, xerr=_errors(found), color=colours, error_kw={"linewidth": 0.8})
    panel.bar_label(bars, [f"{median:.2f}" for median in medians], padding=6)
    panel.margins(x=0.15)
    panel.invert_yaxis()


def _line(panel: Any, name: str, places: Sequence[int], spreads: Sequence[Spread | None]) -> None:
    found = [each or Spread(0, 0, 0) for each in spreads]
    if found:
        medians = [each.median for each in found]
        panel.errorbar(places, medians, _errors(found), color=_COLOURS[name], marker="o", capsize=3, label=name)


def _errors(spreads: Sequence[Spread]) -> list[list[float]]:
    return [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]


def _scale(panel: Any, places: Sequence[int]) -> None:
    panel.set_xticks(places, [f"{place:,}" for place in places])
    panel.minorticks_off()


if __name__ == "__main__":
    main()
