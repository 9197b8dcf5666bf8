"""Where the server listens, and how it treats the connections that it gets."""

import errno
import os
import socket

import grpc.aio

from servicecatalog_grpc.config import Settings, StartError, split_address
from servicecatalog_grpc.tls import ServerTls

# CloudFormation takes 200 parameters of up to 4 KiB, and Service Catalog 50 tags: less than 900 KiB in all.
_MAX_MESSAGE_BYTES = 1024 * 1024

# Room for a token and for what proxies add, x-forwarded-client-cert with whole certificates among it.
_MAX_METADATA_BYTES = 16 * 1024

# How many calls may have come that nobody has looked at yet. From 1,000 on gRPC would end some of them at random, as
# CANCELLED, which nobody may repeat: the server's own limits refuse what is too much, and say so.
_MAX_PENDING = 20_000

# How long a ping may go unanswered before its connection is taken for dead.
_PING_SECONDS = 20

# Clients send no more than a ping every 10 seconds (https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md),
# a little earlier or later; whoever sends more is sent away.
_LEAST_SECONDS_BETWEEN_PINGS = 5

# Read and write for the owner and the group, which a sidecar belongs to.
_NOT_FOR_OTHERS = 0o117


class Listener:
    """How a server is reached: its address, TLS and the options of its connections."""

    def __init__(self, settings: Settings) -> None:
        """Load what TLS needs. Raises SettingsError."""
        self._settings = settings
        self._tls = ServerTls(settings) if settings.tls_certificate else None

    @property
    def options(self) -> tuple[tuple[str, int], ...]:
        """What gRPC is to know: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html says what each option means."""
        settings = self._settings
        options = {
            "grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
            # Between two limits gRPC would refuse some of the calls, at random.
            "grpc.max_metadata_size": _MAX_METADATA_BYTES,
            "grpc.absolute_max_metadata_size": _MAX_METADATA_BYTES,
            "grpc.server.max_pending_requests": _MAX_PENDING,
            "grpc.server.max_pending_requests_hard_limit": _MAX_PENDING,
            # Two servers on one port would share its connections, and each would look as if it lost half of its calls.
            "grpc.so_reuseport": 0,
            "grpc.keepalive_time_ms": _milliseconds(settings.keepalive_time),
            # gRPC's own keepalive_timeout_ms has no effect in 1.83: a ping of any kind gets a minute.
            "grpc.http2.ping_timeout_ms": _milliseconds(_PING_SECONDS),
            # Clients may ping while they have no call, too: that is when a load balancer would drop the connection.
            "grpc.keepalive_permit_without_calls": 1,
            "grpc.http2.min_ping_interval_without_data_ms": _milliseconds(_LEAST_SECONDS_BETWEEN_PINGS),
        }
        if settings.max_connection_age:
            # gRPC itself makes it up to a tenth longer or shorter, so that not all callers come back at once.
            options["grpc.max_connection_age_ms"] = _milliseconds(settings.max_connection_age)
            options["grpc.max_connection_age_grace_ms"] = _milliseconds(settings.max_connection_age_grace)
        return tuple(options.items())

    def bind(self, server: grpc.aio.Server) -> str:
        """Bind the server to its address and return that with its real port. Raises StartError."""
        listen = self._settings.listen
        if listen.startswith("unix:"):
            _check_socket(listen)
            mask = os.umask(_NOT_FOR_OTHERS)
            try:
                self._add_port(server, listen)
            finally:
                os.umask(mask)
            return listen
        _check_port(listen)
        host, separator, _ = listen.rpartition(":")
        return f"{host}{separator}{self._add_port(server, listen)}"

    def close(self) -> None:
        """Stop to look after the files. gRPC closes its ports itself."""
        if self._tls is not None:
            self._tls.stop()

    def _add_port(self, server: grpc.aio.Server, listen: str) -> int:
        try:
            if self._tls is None:
                return server.add_insecure_port(listen)
            port = server.add_secure_port(listen, self._tls.credentials())
        except RuntimeError:
            raise StartError(f"cannot listen on {listen!r}: the address is in use, or cannot be bound here") from None
        self._tls.start()
        return port


def _check_socket(listen: str) -> None:
    """Raise StartError where somebody listens on a Unix socket: gRPC would take it away from its server."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the standard library's own way
        try:
            probe.connect(listen.removeprefix("unix:"))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise StartError(f"cannot listen on {listen!r}: {error.strerror}") from None
    raise StartError(f"cannot listen on {listen!r}: the socket is in use")


def _check_port(listen: str) -> None:
    """Raise StartError where somebody listens on a part of an address: gRPC would serve on the rest, and say nothing.

    `localhost` has such parts, 127.0.0.1 and ::1, and so has any name with several addresses.
    """
    host, port = split_address(listen)
    failures = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"cannot listen on {listen!r}: {error.strerror}") from None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As gRPC does, or what is left of closed connections would be in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            failures.append(error)
    for failure in failures:
        if failure.errno == errno.EADDRINUSE or len(failures) == len(found):
            raise StartError(f"cannot listen on {listen!r}: {failure.strerror}")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
