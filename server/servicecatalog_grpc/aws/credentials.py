"""Keeps AWS credentials at hand, so that no call waits for them.

botocore resolves and refreshes credentials inside the call that needs them, which can take seconds. Here a thread of its
own does it ahead of time, and calls take what is there.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import botocore.session
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials

from servicecatalog_grpc.aws import failures
from servicecatalog_grpc.aws.deadline import Deadline

logger = logging.getLogger(__name__)

# botocore refreshes credentials that expire within 15 minutes whenever they are asked for: asking this often means that
# calls never see them any older.
_REFRESH_SECONDS = 60.0
_RETRY_SECONDS = 5.0


class KeySource(Protocol):
    """Where calls get the keys that sign them."""

    async def keys(self, deadline: Deadline) -> ReadOnlyCredentials:
        """Return the keys for a call, and wait for them until its deadline at most. Raises Failure."""

    def refuse(self, keys: ReadOnlyCredentials) -> bool:
        """Take note that AWS refused these keys, and return whether there may be others at once."""


class KeptCredentials:
    """The server's own credentials, of the standard chain, refreshed in the background. Asking for them never blocks.

    They work until they are missing or expired, or AWS refuses them.
    """

    def __init__(self, on_change: Callable[[bool], None], probe: Callable[[ReadOnlyCredentials], bool]) -> None:
        """`on_change` hears, from a thread, whether the credentials work. `probe` asks AWS whether it takes them."""
        self._on_change = on_change
        self._probe = probe
        self._source: Credentials | None = None
        self._frozen: ReadOnlyCredentials | None = None
        self._refused = False
        self._works: bool | None = None
        self._first = threading.Event()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._keep, name="credentials", daemon=True)

    async def keys(self, deadline: Deadline) -> ReadOnlyCredentials:  # noqa: ARG002 - there is nothing to wait for
        """Return the keys as they are now. Raises Failure."""
        frozen = self._frozen
        if frozen is None:
            raise failures.no_credentials()
        return frozen

    def seconds_left(self) -> float | None:
        """Return how long the credentials are good for, or None if they do not expire or are not there."""
        expiry = getattr(self._source, "_expiry_time", None)
        return None if expiry is None else max(0.0, (expiry - datetime.now(UTC)).total_seconds())

    def start(self, timeout: float) -> None:
        """Begin to keep them, and wait so many seconds at most for the first ones."""
        self._thread.start()
        self._first.wait(timeout)

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped = True
        self._wake.set()

    def refuse(self, keys: ReadOnlyCredentials) -> bool:  # noqa: ARG002 - newer ones are of the same source
        """Take note that AWS refused them: they do not work until it takes them again."""
        if not self._refused:
            self._refused = True
            self._wake.set()
        return False

    def _keep(self) -> None:
        while not self._stopped:
            self._wake.clear()
            self._refresh()
            works = self._frozen is not None and not self._refused
            if works is not self._works:
                self._works = works
                logger.log(logging.INFO if works else logging.ERROR, "AWS credentials %s", self._describe())
                self._on_change(works)
            self._first.set()
            self._wake.wait(_REFRESH_SECONDS if works else _RETRY_SECONDS)

    def _refresh(self) -> None:
        try:
            if self._source is None or self._refused:
                # A new session, because a session reads its files only once.
                self._source = botocore.session.Session().get_credentials()
            self._frozen = self._source.get_frozen_credentials() if self._source else None
        except Exception as error:  # noqa: BLE001 - a provider may run any program or library
            logger.warning("AWS credentials could not be refreshed: %s", type(error).__name__)
            # botocore raises when they expire within 10 minutes; until they do, they are still good.
            if not isinstance(self._source, RefreshableCredentials) or self._source.refresh_needed(refresh_in=0):
                self._frozen = None
        if self._refused and self._frozen is not None:
            self._refused = not self._probe(self._frozen)

    def _describe(self) -> str:
        if self._frozen is None:
            return "are missing"
        return "are refused by AWS" if self._refused else "work"
