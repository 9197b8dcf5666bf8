"""Keeps what was made of files up to date while they change, and the last good state of it while they are bad."""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

# The files are small, so it costs next to nothing to read them this often.
_CHECK_SECONDS = 1.0

T = TypeVar("T")


class Reloaded(Generic[T]):
    """What `load` makes of some files, made anew when they change. What cannot be loaded changes nothing but the log."""

    def __init__(self, what: str, paths: Sequence[Path], load: Callable[[], T]) -> None:
        """Load at once, and raise what `load` raises.

        `what` names it in the log. `load` reads the files, from a thread. The text of what it raises is logged: one line,
        without any secret.
        """
        self._what = what
        self._paths = paths
        self._load = load
        # Taken before the files are read: a change in between is seen by the next check.
        self._loaded = self._fingerprint()
        self._value = load()
        self._complaint: tuple[object, str] | None = None
        self._checking = threading.Lock()
        self._stopped = threading.Event()

    @property
    def value(self) -> T:
        """The value as of the last good files. Never blocks."""
        return self._value

    def start(self) -> None:
        """Check every second, from a thread, until `stop`."""
        threading.Thread(target=self._run, name=f"files of {self._what}", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped.set()

    def check(self) -> None:
        """Look for a change now, and load what has changed. Never raises.

        What is bad is tried again by each check, for it may become good by itself, and told once.
        """
        with self._checking:
            found = self._fingerprint()
            if found == self._loaded and not self._complaint:
                return
            try:
                self._value = self._load()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old value is still good
                complaint = (found, _text(error))
                if complaint != self._complaint:
                    self._complaint = complaint
                    logger.warning("%s: kept the old one, because the new one is bad: %s", self._what, complaint[1])
            else:
                self._loaded, self._complaint = found, None
                logger.info("%s: reloaded", self._what)

    def _run(self) -> None:
        while not self._stopped.wait(_CHECK_SECONDS):
            self.check()

    def _fingerprint(self) -> tuple[bytes | int | None, ...]:
        """Return what changes with what the files hold, wherever links lead and whatever their times say."""
        return tuple(_digest(path) for path in self._paths)


def _digest(path: Path) -> bytes | int | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return error.errno


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
