"""The five measurements: load, load with a slow upstream, latency at an even pace, calls in flight, and starts."""

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog.v1 import (
    catalog_service_pb2,
    provisioned_product_service_pb2,
    provisioning_service_pb2,
    record_service_pb2,
)

from bench.contenders import FLIGHT_FLAGS, LOAD_FLAGS, Contender, Ring
from bench.loop import Load
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
    Start,
    Turn,
)
from bench.processes import OTHER_CPUS, SERVER_CPU, TICK_SECONDS, Process, busy_seconds

_Item = TypeVar("_Item")

CALLERS = (1, 16, 64, 256)
RATE, PACED_CALLERS = 100.0, 32
IN_FLIGHT = (100, 1000, 2000)

FAST = tuple(Route(0, tls) for tls in (False, True))
PACED = tuple(Route(50, tls) for tls in (False, True))
SLOW = (*PACED, *(Route(300, tls) for tls in (False, True)))
SLOWEST = tuple(Route(1000, tls) for tls in (False, True))
ROUTES = (*FAST, *SLOW, *SLOWEST)

# Who has how many callers where the upstream answers at once, and where it takes its time. What is compared is side by side:
# how fast a machine is that others share may change within a minute.
_LOAD = (
    *((name, 1) for name in (BOTO3, FACADE, FACADE_TRACED)),
    *((name, THREADS) for name in (FACADE_TRACED, FACADE, BOTO3)),
    *((name, callers) for name in (AIOBOTOCORE, PEER, PEER_TRACED) for callers in (1, THREADS)),
    *((name, callers) for name in (FACADE, PEER) for callers in CALLERS if callers not in {1, THREADS}),
)
_SLOW_LOAD = ((BOTO3, THREADS), *((FACADE, callers) for callers in CALLERS), (PEER, CALLERS[-1]))
_PACED = ((BOTO3, PACED_CALLERS), *((name, PACED_CALLERS) for name in (FACADE, FACADE_TRACED, PEER)))

_PROVISIONING = provisioning_service_pb2.DESCRIPTOR.services_by_name["ProvisioningService"].full_name
_SERVICES = [
    service.full_name
    for file in (provisioning_service_pb2, record_service_pb2, catalog_service_pb2, provisioned_product_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]

# Two processes of the same program differ by some percent for as long as they run.
ROUNDS_OF_A_PROCESS = 3

_SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.002
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """How often, and for how long."""

    seconds: float = 2.0
    rounds: int = 9
    slow_rounds: int = 2
    paced_seconds: float = 5.0
    paced_rounds: int = 4
    flight_rounds: int = 3
    starts: int = 5


QUICK = Plan(seconds=0.5, rounds=2, slow_rounds=1, paced_seconds=1.0, paced_rounds=2, flight_rounds=1, starts=1)


def measure(ring: Ring, plan: Plan) -> Measured:
    """Measure everything, and say on the way how far it is."""
    course = Course(ring, plan)
    course.load("load", _LOAD, FAST, plan.rounds)
    course.load("slow upstream", _SLOW_LOAD, SLOW, plan.slow_rounds)
    course.pace()
    course.flights()
    course.starts()
    course.measured.versions |= ring.versions()
    return course.measured


class Course:
    """The turns of contenders, one after the other, and what has come of them so far."""

    def __init__(self, ring: Ring, plan: Plan) -> None:
        self.measured = Measured()
        self._ring = ring
        self._plan = plan

    def load(self, title: str, who: Sequence[tuple[str, int]], routes: Sequence[Route], rounds: int) -> None:
        """Load each in turn, as fast as its callers can."""
        seconds = self._plan.seconds
        self.measured.load += self._take_turns(
            title,
            [Key(name, callers, route) for route in routes for name, callers in who if self._is_there(name)],
            rounds,
            lambda contender, key: contender.keep(key.callers, seconds),
            lambda turn: f"{turn.rate:.0f}/s, {turn.cpu_ms:.2f} ms of CPU each",
        )

    def pace(self) -> None:
        """Call each at an even pace and look at how long the calls take."""
        seconds = self._plan.paced_seconds
        self.measured.paced += self._take_turns(
            "pace",
            [Key(name, callers, route) for route in PACED for name, callers in _PACED if self._is_there(name)],
            self._plan.paced_rounds,
            lambda contender, key: contender.pace(key.callers, seconds, RATE),
            lambda turn: f"p50 {turn.p50_ms:.2f} ms, p99 {turn.p99_ms:.2f} ms",
        )

    def flights(self) -> None:
        """Make many calls at once of a server that has just begun."""
        keys = [Key(name, calls, route) for route in SLOWEST for name in self._ring.untraced for calls in IN_FLIGHT]
        for number, key, step in _steps(keys, self._plan.flight_rounds):
            with self._ring.server(key.contender, key.route, *FLIGHT_FLAGS) as server:
                _await_serving(server.process, key.contender)
                time.sleep(_SETTLE_SECONDS)
                server.process.forget_peak()
                idle = server.process.resident_kib
                load = self._ring.ghz.burst(server.process.address, key.callers)
                peak = server.process.peak_kib
            flight = Flight(
                number, key.route, key.contender, key.callers, load.calls, load.seconds, idle, peak, load.errors
            )
            self.measured.flights.append(flight)
            print(
                f"in flight {step}: {_name(key)}: {load.calls} answered in {load.seconds:.1f} s, "
                f"{flight.kib:.0f} KiB each{_failures(load.errors)}",
                flush=True,
            )

    def starts(self) -> None:
        """Start servers and wait until they serve; the first start of each, which fills caches, does not count."""
        for number in range(self._plan.starts + 1):
            for name in _turned(self._ring.servers, number):
                began = time.monotonic()
                with self._ring.server(name, FAST[0]) as server:
                    _await_serving(server.process, name)
                    seconds = time.monotonic() - began
                    time.sleep(_SETTLE_SECONDS)
                    start = Start(number, name, seconds, server.process.resident_kib)
                if number:
                    self.measured.starts.append(start)
                    print(
                        f"start {number}/{self._plan.starts}: {name}: {seconds:.2f} s, "
                        f"{start.resident_kib / 1024:.0f} MiB",
                        flush=True,
                    )

    def _is_there(self, name: str) -> bool:
        return name in {BOTO3, AIOBOTOCORE, *self._ring.servers}

    def _start(self, stack: ExitStack, keys: Sequence[Key]) -> dict[tuple[str, Route], Contender]:
        """Start all who will take turns, and warm them up."""
        contenders: dict[tuple[str, Route], Contender] = {}
        for name in dict.fromkeys(key.contender for key in keys):
            routes = sorted({key.route for key in keys})
            # boto3 has a client for each number of threads; a server that had many callers is ready for fewer.
            callers = sorted({key.callers for key in keys if key.contender == name})
            warming = callers if name in {BOTO3, AIOBOTOCORE} else callers[-1:]
            if name in {BOTO3, AIOBOTOCORE}:
                at = stack.enter_context(self._ring.loop(name))
                contenders |= {(name, route): at(route) for route in routes}
                self.measured.versions[name] = at(routes[0]).process.hello
            else:
                for route in routes:
                    server = stack.enter_context(self._ring.server(name, route, *LOAD_FLAGS))
                    _await_serving(server.process, name)
                    contenders[name, route] = server
            print(f"warming up: {name}", flush=True)
            for route in routes:
                for count in warming:
                    contenders[name, route].keep(count, self._plan.seconds)
        return contenders

    def _take_turns(
        self,
        title: str,
        keys: Sequence[Key],
        rounds: int,
        load: Callable[[Contender, Key], Load],
        say: Callable[[Turn], str],
    ) -> list[Turn]:
        done = []
        for _, steps in groupby(_steps(keys, rounds), key=lambda step: step[0] // ROUNDS_OF_A_PROCESS):
            with ExitStack() as stack:
                contenders = self._start(stack, keys)
                for number, key, step in steps:
                    contender = contenders[key.contender, key.route]
                    turn = self._turn(contender, key, number, partial(load, contender, key))
                    done.append(turn)
                    print(f"{title} {step}: {_name(key)}: {say(turn)}{_failures(turn.errors)}", flush=True)
        return done

    def _turn(self, contender: Contender, key: Key, number: int, run: Callable[[], Load]) -> Turn:
        meters: dict[str, Callable[[], float]] = {
            "contender": lambda: contender.process.cpu_seconds,
            "callers": _seconds_of_children,
            "upstream": lambda: self._ring.upstream.cpu_seconds,
            "sink": lambda: self._ring.sink.cpu_seconds,
            "its CPU": lambda: busy_seconds([SERVER_CPU]),
            "other CPUs": lambda: busy_seconds(OTHER_CPUS),
        }
        before = {name: meter() for name, meter in meters.items()}
        began = time.monotonic()
        load = run()
        elapsed = time.monotonic() - began
        used = {name: meter() - before[name] for name, meter in meters.items()}
        if not load.calls:
            raise RuntimeError(f"{_name(key)}: no call was answered")
        return Turn(
            round=number,
            route=key.route,
            contender=key.contender,
            callers=key.callers,
            calls=load.calls,
            seconds=load.seconds,
            cpu_seconds=max(TICK_SECONDS, used["contender"]),
            shares={name: seconds / elapsed for name, seconds in used.items()},
            errors=load.errors,
            p50_ms=load.percentile(50) if load.milliseconds else 0.0,
            p99_ms=load.percentile(99) if load.milliseconds else 0.0,
        )


def _steps(keys: Sequence[Key], rounds: int) -> Iterator[tuple[int, Key, str]]:
    """Give each round's number, and whose turn it is, with words for that."""
    for number in range(rounds):
        for position, key in enumerate(_turned(keys, number)):
            yield number, key, f"{number + 1}/{rounds}, {position + 1}/{len(keys)}"


def _turned(items: Sequence[_Item], number: int) -> Sequence[_Item]:
    """Return them in another order each round: every other one goes backwards, and each pair begins elsewhere."""
    first = number // 2 * (len(items) // 2 + 1) % len(items)
    turned = [*items[first:], *items[:first]]
    return turned if number % 2 == 0 else turned[::-1]


def _name(key: Key) -> str:
    return f"{key.contender}, {key.callers}, {key.route}"


def _failures(errors: Mapping[str, int]) -> str:
    return "".join(f"; {count} failed: {error}" for error, count in errors.items())


def _seconds_of_children() -> float:
    """CPU of those who have ended: of the callers, because all others go on."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _await_serving(process: Process, name: str) -> None:
    """Ask until every service serves. Raises RuntimeError if one does not."""
    services = [_PROVISIONING] if name in {PEER, PEER_TRACED} else _SERVICES
    end = time.monotonic() + _START_SECONDS
    with grpc.insecure_channel(process.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        for service in services:
            while not _serves(check, service):
                if time.monotonic() > end:
                    raise RuntimeError(f"{name} does not serve {service}")
                time.sleep(_POLL_SECONDS)


def _serves(check: Any, service: str) -> bool:
    try:
        answer = check(health_pb2.HealthCheckRequest(service=service), timeout=1, wait_for_ready=True)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
