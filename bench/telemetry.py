"""What telemetry costs: calls per second with traces and metrics on, against off. `make bench` runs it.

Two façades, one with and one without, share a CPU and get the same load in turns, so that whatever else the machine does
meets both. It writes telemetry.md, and ends with 0 if it could measure.
"""

import platform
import statistics
import sys
from importlib.metadata import version

from bench.contenders import ring
from bench.figures import FAST, Course, Plan
from bench.measured import FACADE, FACADE_TRACED, Key, Measured, Turn, compare, spread, turns
from bench.processes import OTHER_CPUS, SERVER_CPU, begin, machine
from bench.upstream import MissingError

PLAN = Plan(seconds=2.0, rounds=20)
QUICK = Plan(seconds=0.5, rounds=4)
IN_FLIGHT = 16
TARGET = 0.85

_OFF, _ON = (Key(name, IN_FLIGHT, FAST[0]) for name in (FACADE, FACADE_TRACED))


def main() -> int:
    """Measure, print and write the result, and return the exit status."""
    options = begin(__doc__)
    plan = QUICK if options.quick else PLAN
    try:
        with ring([FAST[0]]) as contenders:
            course = Course(contenders, plan)
            course.load("telemetry", [(key.contender, key.callers) for key in (_OFF, _ON)], [FAST[0]], plan.rounds)
            measured = course.measured
    except MissingError as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    text = _report(measured, plan)
    print(text)
    (options.results / "telemetry.md").write_text(text)
    return 0


def _report(measured: Measured, plan: Plan) -> str:
    load = measured.load
    off, on = turns(load, _OFF), turns(load, _ON)
    ratios = sorted(on[number].rate / off[number].rate for number in on)
    ratio = compare(load, _ON, _OFF, _rate)
    by_cpu = compare(load, _OFF, _ON, lambda turn: turn.cpu_ms)
    rates = [spread(load, key, _rate) for key in (_OFF, _ON)]
    if ratio is None or by_cpu is None:
        raise RuntimeError("nothing was measured")
    verdict = "as it must be" if ratio.median >= TARGET else "**which is missed**"
    shares = {name: statistics.median(turn.shares[name] for turn in load) for name in ("callers", "upstream", "sink")}
    used = ", ".join(
        f"{name} {share:.0%}"
        for name, share in {
            "façade off": statistics.median(turn.shares["contender"] for turn in off.values()),
            "façade on": statistics.median(turn.shares["contender"] for turn in on.values()),
            **shares,
        }.items()
    )
    per_second = [f"{each.median:.0f}" if each else "" for each in rates]
    return f"""# What telemetry costs

Written by `make bench`. ProvisionProduct, answered at once by nginx in the place of AWS, {IN_FLIGHT} calls in flight,
{plan.rounds} rounds of {plan.seconds:g} s each way, in turns.

| | calls per second, median |
| --- | --- |
| off: no `OTEL_*` variable | {per_second[0]} |
| on: traces and metrics over OTLP, every call sampled | {per_second[1]} |

**On, as a share of off: median {ratio.median:.3f}**, quartiles {ratio.low:.3f} to {ratio.high:.3f}, all of
{ratios[0]:.3f} to {ratios[-1]:.3f}. It is to be at least {TARGET}, {verdict}. Per second of the façade's CPU, which other
work on the machine hardly changes: median {by_cpu.median:.3f}.

CPUs: façades on {SERVER_CPU}, all else on {", ".join(map(str, OTHER_CPUS))}. Share of a CPU that each process used, a façade
while it had the load: {used}.

{machine()}; Python {platform.python_version()}, grpcio {version("grpcio")},
opentelemetry-sdk {version("opentelemetry-sdk")}, boto3 {version("boto3")}.
"""


def _rate(turn: Turn) -> float:
    return turn.rate


if __name__ == "__main__":
    sys.exit(main())
