"""Runs steps later, one at a time, on one thread."""

import logging
import queue
import threading
import time
from collections.abc import Callable

_logger = logging.getLogger(__name__)

Step = Callable[[], None]


class Timeline:
    """Runs each step `delay` seconds after it was added, in that order.

    One thread, because moto's CloudFormation does not bear two stack operations at once. All steps
    wait equally long, so a plain queue is already sorted by the time they are due.
    """

    def __init__(self, delay: float) -> None:
        """Start the thread; `delay` is in seconds and may be 0."""
        self._delay = delay
        self._steps: queue.SimpleQueue[tuple[float, Step | None]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-records", daemon=True)
        self._thread.start()

    def add(self, step: Step) -> None:
        """Run `step` after the delay."""
        self._steps.put((time.monotonic() + self._delay, step))

    def stop(self) -> None:
        """Drop the steps that wait, and return when the one that runs has ended."""
        self._stopped.set()
        self._steps.put((0.0, None))
        self._thread.join()

    def _run(self) -> None:
        while True:
            due, step = self._steps.get()
            if self._stopped.wait(max(0.0, due - time.monotonic())) or step is None:
                return
            try:
                step()
            except Exception:  # the thread serves every record, so no step may end it
                _logger.exception("a step of the sandbox failed")
