"""The way from here to an endpoint of AWS: its address, whom to trust there, and the proxy in between if there is one."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from botocore.exceptions import EndpointConnectionError, ProxyConnectionError, SSLError
from botocore.httpsession import ProxyConfiguration, create_urllib3_context, get_cert_path, mask_proxy_url
from botocore.utils import get_environ_proxies

from servicecatalog_grpc.aws.connection import Connection, Tunnel
from servicecatalog_grpc.aws.encryption import Encryption

# How long the first of a host's addresses may take before the next one is tried beside it
# (https://www.rfc-editor.org/rfc/rfc8305#section-8).
_HAPPY_EYEBALLS_SECONDS = 0.25

# What stands for itself in a path (https://www.rfc-editor.org/rfc/rfc3986#section-3.3), and what quotes the rest.
_PATH_CHARACTERS = "/:@!$&'()*+,;=~%"

_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Hop(NamedTuple):
    """A host to connect to, by TLS if there is a context for it."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Route:
    """The way to one endpoint. Proxies and certificates are what botocore would take, from the same variables."""

    def __init__(self, endpoint: str, verify: str | bool) -> None:  # noqa: FBT001 - botocore's name and values
        """`verify` is the path of the CAs to trust, or True for those that botocore brings.

        Raises ValueError for an endpoint, a proxy or CAs that cannot be used.
        """
        self.endpoint = endpoint
        parts = urlsplit(endpoint)
        if parts.query or parts.fragment:
            raise ValueError(f"{_without_password(parts)} must be an endpoint without ? and #")
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._there = _hop(parts, verify)
        # As botocore.auth signs it.
        host = f"[{self._there.host}]" if ":" in self._there.host else self._there.host
        address = f"{host}:{self._there.port}"
        self.authority = host if self._there.port == _DEFAULT_PORTS[parts.scheme] else address

        proxies = ProxyConfiguration(get_environ_proxies(endpoint))
        self._proxy: str = proxies.proxy_url_for(endpoint) or ""
        self._first, self._tunnel, self._prefix, proxy_lines = self._there, b"", "", ""
        if self._proxy:
            self._first = _hop(urlsplit(self._proxy), verify)
            headers = proxies.proxy_headers_for(self._proxy)
            proxy_lines = header_lines(headers)
            if self._there.tls is not None:
                self._tunnel = f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{proxy_lines}\r\n".encode("latin-1")
                proxy_lines = ""
            else:
                self._prefix = f"http://{self.authority}"
        self._head = f"HTTP/1.1\r\nHost: {self.authority}\r\nAccept-Encoding: identity\r\n{proxy_lines}"

    def head(self, url: str) -> str:
        """Return the first line and the headers of every request to the URL. Raises ValueError if that is elsewhere."""
        if not url.startswith(self._origin):
            raise ValueError("a request for another endpoint than the client's")
        target = quote(url[len(self._origin) :], safe=_PATH_CHARACTERS)
        return f"POST {self._prefix}{target if target.startswith('/') else f'/{target}'} {self._head}"

    async def open(self) -> Connection:
        """Open a connection on which requests can be sent. Raises botocore's ConnectionError."""
        try:
            connection = await (self._open_tunnel() if self._tunnel else self._open())
            try:
                await connection.ready()
            except BaseException:
                connection.abort()
                raise
        except ssl.SSLError as error:
            raise SSLError(endpoint_url=self.endpoint, error=error) from None
        # A name that IDNA cannot encode is a UnicodeError.
        except (OSError, UnicodeError) as error:
            if self._proxy:
                raise ProxyConnectionError(proxy_url=mask_proxy_url(self._proxy), error=error) from None
            raise EndpointConnectionError(endpoint_url=self.endpoint, error=error) from None
        return connection

    async def _open(self) -> Connection:
        connection = Connection(_encryption(self._first))
        await _connect(self._first, connection)
        return connection

    async def _open_tunnel(self) -> Connection:
        """Ask the proxy for the way to the endpoint, and speak TLS with the endpoint through it."""
        tunnel, connection = Tunnel(), Connection(_encryption(self._there))
        # One TLS within another one is rare enough to leave the outer one to asyncio.
        await _connect(self._first, tunnel, self._first.tls)
        try:
            transport = await tunnel.ask(self._tunnel)
        except BaseException:
            tunnel.abort()
            raise
        transport.set_protocol(connection)
        connection.connection_made(transport)
        return connection


def header_lines(headers: Mapping[str, str]) -> str:
    """Return the headers as they go over the wire. Raises ValueError for one that no request can have."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") + lines.count("\r") != 2 * len(headers):
        raise ValueError("a line break in a header")
    return lines


def _encryption(hop: _Hop) -> Encryption | None:
    return Encryption(hop.tls, hop.host) if hop.tls else None


async def _connect(hop: _Hop, protocol: asyncio.BaseProtocol, tls: ssl.SSLContext | None = None) -> None:
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: protocol,
        hop.host,
        hop.port,
        ssl=tls,
        server_hostname=hop.host if tls else None,
        happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS,
    )
    # What forgets a connection that is idle for long, a NAT for instance, is to be noticed before a request is.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _hop(url: SplitResult, verify: str | bool) -> _Hop:  # noqa: FBT001 - as above
    if url.scheme not in _DEFAULT_PORTS or not url.hostname or url.port == 0:
        raise ValueError(f"{_without_password(url)} must be http://HOST[:PORT] or https://…")
    return _Hop(url.hostname, url.port or _DEFAULT_PORTS[url.scheme], _tls(verify) if url.scheme == "https" else None)


def _without_password(url: SplitResult) -> str:
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"


def _tls(verify: str | bool) -> ssl.SSLContext:  # noqa: FBT001 - as above
    context: ssl.SSLContext = create_urllib3_context()
    # botocore leaves these to urllib3, which checks names by itself.
    context.check_hostname = True
    context.hostname_checks_common_name = False
    # TLS 1.2 could ask for another handshake in the middle of a request; AWS does not.
    context.options |= ssl.OP_NO_RENEGOTIATION
    path: Any = get_cert_path(verify)  # type: ignore[arg-type]  # the stubs know of no paths
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ValueError(f"the CA bundle {path} cannot be used: {error.strerror or error}") from None
    return context
