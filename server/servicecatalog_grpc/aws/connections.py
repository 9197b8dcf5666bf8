"""The connections of a boto3 client, which an attempt can watch and cut.

botocore's timeouts bound each read, so that a server which sends a byte now and then holds a thread for ever, and they
do not say whether a failed request had left. Both are known at the socket.
"""

import contextvars
import socket
import threading
from contextlib import suppress
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.client import BaseClient
from botocore.credentials import ReadOnlyCredentials

from servicecatalog_grpc.aws.deadline import Deadline


class Attempt:
    """One HTTP request, from the connection that it opens or takes to the last byte of its reply.

    `keys` sign it. `sent` says whether any of it may have left this host. `expired` says whether the deadline ended it.
    """

    def __init__(self, deadline: Deadline, keys: ReadOnlyCredentials) -> None:
        self.deadline = deadline
        self.keys = keys
        self.sent = False
        self.expired = False
        self._connection: _Watched | None = None

    def take(self, connection: "_Watched", connected: socket.socket) -> None:
        """Use the connection from now on: it is no longer that of the attempt before."""
        with _owners:
            self._connection = connection
            connection.owner, connection.owned = self, connected
        if self.expired:
            self.expire()

    def expire(self) -> None:
        """End the attempt, because its deadline has come."""
        self.expired = True
        self.cut()

    def cut(self) -> None:
        """End the attempt: whoever waits on its socket, in whichever thread, gets an end of file at once."""
        with _owners:
            if self._connection is not None and self._connection.owner is self:
                with suppress(OSError):  # the other side may have closed it
                    # Not the method of an SSL socket, which would drop its TLS state under the thread that reads it.
                    socket.socket.shutdown(self._connection.owned, socket.SHUT_RDWR)

    def finish(self) -> None:
        """Let go of the connection."""
        with _owners:
            if self._connection is not None and self._connection.owner is self:
                self._connection.owner = None


# Guards which attempt a connection belongs to: urllib3 may hand it to the next one before the last has let go of it.
_owners = threading.Lock()

_current: contextvars.ContextVar[Attempt | None] = contextvars.ContextVar("attempt", default=None)


class _Watched:
    """A mixin for botocore's connections that tells the current attempt what happens."""

    owner: Attempt | None = None
    owned: socket.socket
    sock: Any
    timeout: Any
    _connecting = False

    def connect(self) -> None:
        attempt = _current.get()
        if attempt is not None:
            # urllib3 takes a timeout of 0 for a non-blocking socket.
            self.timeout = max(0.001, min(self.timeout or attempt.deadline.remaining(), attempt.deadline.remaining()))
        self._connecting = True
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self._connecting = False

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        attempt = _current.get()
        if attempt is not None:
            attempt.take(self, connected)
        return connected

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        attempt = _current.get()
        # While it connects, what is sent is for a proxy.
        if attempt is not None and not self._connecting:
            attempt.take(self, self.sock)
            attempt.sent = True
        super().send(data)  # type: ignore[misc]


class _WatchedHTTPConnection(_Watched, AWSHTTPConnection):  # type: ignore[misc]  # as botocore does
    pass


class _WatchedHTTPSConnection(_Watched, AWSHTTPSConnection):  # type: ignore[misc]  # as botocore does
    pass


class _WatchedHTTPConnectionPool(AWSHTTPConnectionPool):
    ConnectionCls = _WatchedHTTPConnection


class _WatchedHTTPSConnectionPool(AWSHTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPSConnection


def watch_connections(client: BaseClient) -> None:
    """Make the client's connections report to the attempt of the calling context, and its reads end with the deadline.

    botocore offers no way to choose the connection class, hence the reach into its session; tests over real sockets see
    whether it still works.
    """
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    session._pool_classes_by_scheme = {  # noqa: SLF001
        "http": _WatchedHTTPConnectionPool,
        "https": _WatchedHTTPSConnectionPool,
    }
    session._manager.pool_classes_by_scheme = session._pool_classes_by_scheme  # noqa: SLF001
    client.meta.events.register("request-created", _bound_read)


def current_attempt() -> Attempt | None:
    """Return the attempt of the calling context."""
    return _current.get()


def attempting(attempt: Attempt) -> contextvars.Context:
    """Return a copy of the present context, in which the attempt is the current one."""
    context = contextvars.copy_context()
    context.run(_current.set, attempt)
    return context


def _bound_read(request: Any, **_: Any) -> None:
    attempt = _current.get()
    if attempt is not None:
        request.context["read_timeout"] = max(0.001, attempt.deadline.remaining())
