"""What the processes that call AWS themselves have in common: the call, the command line, and how calls are counted.

Only the standard library is imported here: aiobotocore runs in an environment of its own.
"""

import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

REQUEST: dict[str, Any] = {"ProductId": "prod-1", "ProvisioningArtifactId": "pa-1", "ProvisionedProductName": "bench"}


@dataclass
class Load:
    """What became of calls: how many were answered, in how many seconds, how long each took, and what else came how often."""

    calls: int = 0
    seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """Return how long the calls took, in milliseconds: no longer than this in so many of a hundred."""
        return statistics.quantiles(self.milliseconds, n=100, method="inclusive")[percent - 1]


def arrivals(rate: float, seconds: float, callers: int, caller: int) -> Sequence[float]:
    """Return when one of the callers makes its calls, of so many a second at an even pace, in seconds from the start."""
    return [number / rate for number in range(caller, round(rate * seconds), callers)]


def timed(call: Callable[[], Any]) -> float:
    """Return how many milliseconds the call took."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def answer(hello: str, load: Callable[..., Load]) -> None:
    """Print a first line, and answer each line of JSON, with the arguments of `load`, by what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started it ends it, on Ctrl-C too
    print(hello, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(load(**json.loads(line)))), flush=True)
