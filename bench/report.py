"""Writes what was measured for those who decide whether to run the façade: results.md."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import sub

from bench.callers import CONNECTIONS
from bench.contenders import FLIGHT_FLAGS, LOAD_FLAGS
from bench.figures import CALLERS, FAST, IN_FLIGHT, PACED, PACED_CALLERS, RATE, ROUNDS_OF_A_PROCESS, SLOW, SLOWEST, Plan
from bench.measured import (
    AIOBOTOCORE,
    BOTO3,
    FACADE,
    FACADE_TRACED,
    PEER,
    PEER_TRACED,
    THREADS,
    Flight,
    Key,
    Measured,
    Route,
    Spread,
    Turn,
    compare,
    spread,
)
from bench.processes import OTHER_CPUS, SERVER_CPU, machine

_NONE = "-"
_AT_ITS_LIMIT = 0.95
_ALL = (BOTO3, AIOBOTOCORE, FACADE, FACADE_TRACED, PEER, PEER_TRACED)
_SERVERS = (FACADE, FACADE_TRACED, PEER, PEER_TRACED)


@dataclass(frozen=True)
class Target:
    """What a figure is to be, and what it is: over plain HTTP and over TLS, or just what it is."""

    figure: str
    limit: str
    met: Callable[[float], bool]
    measured: Sequence[Spread]
    digits: int
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether every median meets it."""
        return all(self.met(each.median) for each in self.measured)

    def row(self) -> str:
        """Return its row of the table."""
        cells = [self._cell(each) for each in self.measured]
        return _row(self.figure, self.limit, *cells, *[_NONE] * (len(FAST) - len(cells)))

    def _cell(self, each: Spread) -> str:
        text = f"{each.median:.{self.digits}f}{self.unit}"
        return f"{text}, met" if self.met(each.median) else f"**{text}, missed**"


def report(measured: Measured, plan: Plan) -> str:
    """Return the whole text."""
    targets = _targets(measured)
    parts = (
        _summary(measured, targets),
        _cpu_per_call(measured, plan),
        _throughput(measured, plan),
        _latency(measured, plan),
        _flights(measured, plan),
        _starts(measured, plan),
        _method(measured),
        _cpus(measured),
        _versions(measured),
    )
    return "\n".join(parts)


def _targets(measured: Measured) -> list[Target]:
    load, paced = measured.load, measured.paced
    found = []
    for name, most in ((FACADE, 1.0), (FACADE_TRACED, 1.25)):
        for callers in (1, THREADS):
            ratios = [
                compare(load, Key(name, callers, route), Key(BOTO3, 1, route), lambda turn: turn.cpu_ms)
                for route in FAST
            ]
            figure = f"a. CPU per call of the {name}, {_callers(callers)}, ÷ boto3 in a loop"
            found.append(Target(figure, f"≤ {most}", most.__ge__, _there(ratios), 2))
    against = [
        compare(load, Key(FACADE, THREADS, route), Key(BOTO3, THREADS, route), lambda turn: turn.rate) for route in FAST
    ]
    figure = f"b. calls per second, {_callers(THREADS)}, ÷ boto3 with {THREADS} threads"
    found.append(Target(figure, "≥ 1.0", (1.0).__le__, _there(against), 2))
    most_callers = [
        compare(load, Key(FACADE, CALLERS[-1], route), Key(FACADE, THREADS, route), lambda turn: turn.rate)
        for route in FAST
    ]
    figure = f"b. calls per second, {_callers(CALLERS[-1])} ÷ {_callers(THREADS)}"
    found.append(Target(figure, "≥ 0.90", (0.9).__le__, _there(most_callers), 2))
    for percent, limit in ((50, 1.0), (99, 5.0)):
        added = [_added(paced, FACADE, route, percent) for route in PACED]
        figure = f"c. latency added to boto3's, p{percent}"
        found.append(Target(figure, f"≤ {limit} ms", limit.__ge__, _there(added), 2, " ms"))
    return [*found, *_targets_of_processes(measured)]


def _targets_of_processes(measured: Measured) -> list[Target]:
    most = IN_FLIGHT[-1]
    flights = [_of(measured.flights, FACADE, route, most) for route in SLOWEST]
    answered = [Spread.of([min(flight.answered for flight in each)]) for each in flights if each]
    memory = [Spread.of([flight.kib for flight in each]) for each in flights if each]
    found = [
        Target(f"d. answered of {most} calls at once, worst round", f"all {most}", float(most).__le__, answered, 0),
        Target(f"d. memory per call of {most} at once, beyond idle", "≤ 100 KiB", (100.0).__ge__, memory, 0, " KiB"),
    ]
    for name in (FACADE, FACADE_TRACED):
        starts = [start for start in measured.starts if start.contender == name]
        seconds = [Spread.of([start.seconds for start in starts])]
        resident = [Spread.of([start.resident_kib / 1024 for start in starts])]
        found += [
            Target(f"e. start to SERVING of the {name}", "≤ 1.0 s", (1.0).__ge__, seconds, 2, " s"),
            Target(f"e. idle memory of the {name}", "≤ 90 MiB", (90.0).__ge__, resident, 0, " MiB"),
        ]
    return found


def _summary(measured: Measured, targets: Sequence[Target]) -> str:
    route = FAST[-1]

    def cpu(name: str, callers: int) -> float:
        found = spread(measured.load, Key(name, callers, route), lambda turn: turn.cpu_ms)
        return found.median if found else 0.0

    def rate(name: str) -> float:
        found = spread(measured.load, Key(name, THREADS, route), lambda turn: turn.rate)
        return found.median if found else 0.0

    loop = cpu(BOTO3, 1)
    peer = (
        f" The same for this one operation in Go uses {cpu(PEER, THREADS):.2f} ms and answers {rate(PEER):.0f}."
        if cpu(PEER, THREADS)
        else ""
    )
    met = sum(target.is_met for target in targets)
    return f"""# What a call costs

Written by `make bench`. Each figure is a ratio of what ran side by side in one run, in turns.

A ProvisionProduct that the façade validates, translates, makes idempotent and sends over TLS takes
{cpu(FACADE, THREADS):.2f} ms of its CPU with {THREADS} callers, and {cpu(FACADE_TRACED, THREADS):.2f} ms with tracing. \
Plain boto3, called in a loop, takes
{loop:.2f} ms; aiobotocore with {THREADS} tasks {cpu(AIOBOTOCORE, THREADS):.2f} ms. One core answers {rate(FACADE):.0f} \
calls a second, where boto3 with {THREADS} threads makes
{rate(BOTO3):.0f}.{peer}

![CPU per call, calls per second, latency added and memory per call in flight, from this run](results.svg)

## Targets

{met} of {len(targets)} are met. Medians of the rounds count; a and b are with an upstream that answers at once, c is with one
that takes {PACED[0].delay_ms} ms, d with one that takes {SLOWEST[0].delay_ms} ms.

{_row("figure", "target", *(_transport(route) for route in FAST))}
{_row(*["---"] * 4)}
{_lines(target.row() for target in targets)}
"""


def _cpu_per_call(measured: Measured, plan: Plan) -> str:
    def cells(name: str, callers: int) -> Iterable[str]:
        for route in FAST:
            key = Key(name, callers, route)
            yield _spread(spread(measured.load, key, lambda turn: turn.cpu_ms), 2)
            for other in (Key(BOTO3, 1, route), Key(AIOBOTOCORE, callers, route)):
                found = compare(measured.load, key, other, lambda turn: turn.cpu_ms)
                yield "1" if key == other else _spread(found, 2)

    titles = [f"{_transport(route)}: {what}" for route in FAST for what in ("ms", "÷ boto3 loop", "÷ aiobotocore")]
    rows = [_row(name, str(callers), *cells(name, callers)) for name in _ALL for callers in (1, THREADS)]
    return f"""## a. CPU per ProvisionProduct

Milliseconds of CPU, of all threads of the process, user and system. Callers of boto3 are threads, of aiobotocore tasks;
its column compares with as many of them. {_rounds(plan.rounds, plan.seconds)}

{_row("process", "callers", *titles)}
{_row(*["---"] * (2 + len(titles)))}
{_without_empty(rows)}
"""


def _throughput(measured: Measured, plan: Plan) -> str:
    def cells(name: str, callers: int, routes: Sequence[Route]) -> Iterable[str]:
        for route in routes:
            key = Key(name, callers, route)
            yield _at_least(measured, key, spread(measured.load, key, lambda turn: turn.rate))
            other = Key(BOTO3, THREADS, route)
            found = compare(measured.load, key, other, lambda turn: turn.rate)
            yield "1" if key == other else _spread(found, 2)

    def table(routes: Sequence[Route]) -> str:
        titles = [text for route in routes for text in (f"{route}: calls/s", f"÷ boto3, {THREADS}")]
        rows = [_row(name, str(callers), *cells(name, callers, routes)) for name in _ALL for callers in CALLERS]
        head = (_row("process", "callers", *titles), _row(*["---"] * (2 + len(titles))))
        return _lines((*head, _without_empty(rows)))

    return f"""## b. Calls per second on one core

÷ boto3 with {THREADS} threads, whatever the number of callers. {_rounds(plan.rounds, plan.seconds)}

{table(FAST)}

With an upstream that takes its time, {THREADS} callers wait for it most of the time, as {THREADS} threads do: their ratio is
near 1 whatever a call costs, and c says what is added. More callers show what one core does meanwhile. {_rounds(plan.slow_rounds, plan.seconds)}

{table(SLOW)}

≥: the CPU of callers and upstream was busy for {_AT_ITS_LIMIT:.0%} or more, and its own was not: it could answer more.
"""


def _latency(measured: Measured, plan: Plan) -> str:
    def cells(name: str) -> Iterable[str]:
        for route in PACED:
            for percent in (50, 99):
                found = spread(measured.paced, Key(name, PACED_CALLERS, route), _percentile(percent))
                yield _spread(found, 2)
                yield _NONE if name == BOTO3 else _spread(_added(measured.paced, name, route, percent), 2)

    titles = [f"{_transport(route)}: {text}" for route in PACED for text in ("p50, ms", "added", "p99, ms", "added")]
    rows = [_row(name, *cells(name)) for name in _ALL]
    return f"""## c. Latency added

{RATE:g} calls a second at an even pace, whether or not those before are answered, to an upstream that takes \
{PACED[0].delay_ms} ms. boto3's
are measured in its own process, around the call, those of servers in the callers. \
{_rounds(plan.paced_rounds, plan.paced_seconds)}

{_row("called", *titles)}
{_row(*["---"] * (1 + len(titles)))}
{_without_empty(rows)}
"""


def _flights(measured: Measured, plan: Plan) -> str:
    def row(name: str, route: Route, calls: int) -> str:
        found = _of(measured.flights, name, route, calls)
        if not found:
            return _row(name, *[_NONE] * 5)
        return _row(
            name,
            _transport(route),
            str(calls),
            str(min(flight.answered for flight in found)),
            _spread(Spread.of([flight.kib for flight in found]), 0),
            _spread(Spread.of([flight.seconds for flight in found]), 1),
        )

    rows = [row(name, route, calls) for name in _SERVERS for route in SLOWEST for calls in IN_FLIGHT]
    errors = Counter[str]()
    for flight in measured.flights:
        errors += Counter({f"{flight.contender}: `{error}`": count for error, count in flight.errors.items()})
    said = "; ".join(f"{error} {count} times" for error, count in errors.items())
    failures = f"\nWhat was not answered, in all rounds: {said}.\n" if said else ""
    return f"""## d. Calls in flight

All at once, to a server that has answered none before, with an upstream that takes {SLOWEST[0].delay_ms} ms. Memory is the \
process's peak
less what it had idle. {_rounds(plan.flight_rounds)}

{_row("server", "upstream", "calls", "answered, worst round", "KiB per call", "seconds for all")}
{_row(*["---"] * 6)}
{_without_empty(rows)}
{failures}"""


def _starts(measured: Measured, plan: Plan) -> str:
    def row(name: str) -> str:
        found = [start for start in measured.starts if start.contender == name]
        if not found:
            return _row(name, _NONE, _NONE)
        seconds = Spread.of([start.seconds for start in found])
        return _row(name, _spread(seconds, 2), _spread(Spread.of([start.resident_kib / 1024 for start in found]), 0))

    return f"""## e. Start and idle memory

From exec until the health check says SERVING for every service; resident memory a second later. The first start of each,
which fills caches of the disk, does not count. {_rounds(plan.starts)}

{_row("server", "seconds", "MiB")}
{_row(*["---"] * 3)}
{_without_empty(row(name) for name in _SERVERS)}
"""


def _method(measured: Measured) -> str:
    everything = (*measured.load, *measured.paced)
    calls = sum(turn.calls for turn in everything)
    failed = sum(sum(turn.errors.values()) for turn in everything)
    peer = (
        f"""- **{PEER}**: `bench/peers/go`, the same façade for this one operation with grpc-go, aws-sdk-go-v2 and otelgrpc, to
  see what another language would save. It has one CPU, and so takes one (`GOMAXPROCS` is not set).
"""
        if PEER in {turn.contender for turn in measured.load}
        else f"- **{PEER}**: not measured, because there was no Go on the PATH.\n"
    )
    return f"""## How it is measured

- **Upstream**: nginx in the place of AWS, one worker, keep-alive, always the same answer to ProvisionProduct, at once or after
  {", ".join(str(ms) for ms in sorted({route.delay_ms for route in (*SLOW, *SLOWEST)}))} ms. TLS is with a certificate of its \
own, which everybody verifies.
- **{BOTO3}**: a process that calls plain boto3 with its defaults, in a loop or from threads. With {THREADS} threads it keeps as \
many
  connections (`max_pool_connections`); the default of ten would open one for every other call.
- **{AIOBOTOCORE}**: the same with tasks, and as many connections.
- **{FACADE}**: `servicecatalog-grpc serve` with its defaults, but `{" ".join(LOAD_FLAGS)}` for a to c and
  `{" ".join(FLIGHT_FLAGS)}` for d. It writes its log, a line for each call, to /dev/null. Without `OTEL_*`; **traced** with
  traces and metrics over OTLP, every call sampled.
{peer}- **Callers** of servers: ghz, in plaintext as from a sidecar, over up to {CONNECTIONS} connections; d has one for each 100 calls.
- In a to c everybody is there from the start, idle until its turn, and warmed up. After every {ROUNDS_OF_A_PROCESS} rounds
  all are started anew. Each round takes the turns in another order. Ratios and differences are of turns in the same round; the
  tables have their median and in brackets the quartiles, or, of fewer than five rounds, the lowest and the highest.
- {calls} calls were answered under load and at an even pace, {failed} failed.
"""


def _cpus(measured: Measured) -> str:
    def cells(name: str, callers: int) -> Iterable[str]:
        values: tuple[Callable[[Turn], float], ...] = (
            lambda turn: turn.shares["contender"],
            lambda turn: max(0.0, turn.shares["its CPU"] - turn.shares["contender"]),
            lambda turn: turn.shares["callers"],
            lambda turn: turn.shares["upstream"],
            lambda turn: turn.shares["sink"],
            lambda turn: turn.shares["other CPUs"],
        )
        for value in values:
            found = [spread(measured.load, Key(name, callers, route), value) for route in FAST]
            yield " / ".join(f"{each.median:.0%}" for each in found if each) or _NONE

    rows = [_row(name, str(callers), *cells(name, callers)) for name in _ALL for callers in CALLERS]
    others = f"CPU{'s' if len(OTHER_CPUS) > 1 else ''} {', '.join(map(str, OTHER_CPUS))}"
    titles = (
        "process",
        "callers",
        "it",
        f"all else on CPU {SERVER_CPU}",
        "ghz",
        "nginx",
        "OTLP sink",
        f"{others}, all",
    )
    return f"""## Who had which CPU

What is compared had CPU {SERVER_CPU}; ghz, nginx, the OTLP sink and the program that runs all this had {others}. How busy they \
were in the
turns of a and b, over plain HTTP / TLS:

{_row(*titles)}
{_row(*["---"] * len(titles))}
{_without_empty(rows)}
"""


def _versions(measured: Measured) -> str:
    # What a process says of itself has a name and a version already.
    said = {BOTO3: measured.versions.get(BOTO3, ""), AIOBOTOCORE: measured.versions.get(AIOBOTOCORE, "")}
    rest = {name: version for name, version in measured.versions.items() if name not in said}
    texts = [
        f"the process of {BOTO3}: {said[BOTO3]}",
        f"the process of {AIOBOTOCORE}: {said[AIOBOTOCORE]}",
        *(f"{name} {version}" for name, version in rest.items()),
    ]
    return f"""## Machine and versions

{machine()}.

{_lines(f"- {text}" for text in texts)}
"""


def _added(rows: Sequence[Turn], name: str, route: Route, percent: int) -> Spread | None:
    """How much longer than boto3's the calls took, in milliseconds."""
    ours, boto3 = (Key(each, PACED_CALLERS, route) for each in (name, BOTO3))
    return compare(rows, ours, boto3, _percentile(percent), sub)


def _percentile(percent: int) -> Callable[[Turn], float]:
    return {50: lambda turn: turn.p50_ms, 99: lambda turn: turn.p99_ms}[percent]


def _of(flights: Sequence[Flight], name: str, route: Route, calls: int) -> list[Flight]:
    return [each for each in flights if (each.contender, each.route, each.calls) == (name, route, calls)]


def _at_least(measured: Measured, key: Key, found: Spread | None) -> str:
    others = spread(measured.load, key, lambda turn: turn.shares["other CPUs"])
    own = spread(measured.load, key, lambda turn: turn.shares["contender"])
    if key.contender in _SERVERS and others and own and others.median >= _AT_ITS_LIMIT > own.median:
        return f"≥ {_spread(found, 0)}"
    return _spread(found, 0)


def _there(spreads: Iterable[Spread | None]) -> list[Spread]:
    return [each for each in spreads if each is not None]


def _spread(found: Spread | None, digits: int) -> str:
    if found is None:
        return _NONE
    return f"{found.median:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _rounds(rounds: int, seconds: float = 0.0) -> str:
    how_many = f"{rounds} round{'s' if rounds > 1 else ''}"
    return f"{how_many} of {seconds:g} s." if seconds else f"{how_many}."


def _callers(count: int) -> str:
    return f"{count} caller{'s' if count > 1 else ''}"


def _transport(route: Route) -> str:
    return "TLS" if route.tls else "plain HTTP"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _without_empty(rows: Iterable[str]) -> str:
    """Leave out those who were not measured, e.g. a peer without Go."""
    return _lines(row for row in rows if any(character.isdigit() for character in row.split("|", 3)[3]))
