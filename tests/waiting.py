"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], seconds: float = 10) -> float:
    """Wait for the condition, which must come true in time, and return how many seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it never came to be"
        time.sleep(0.005)
    return time.monotonic() - began
