"""The HTTP side of the sandbox: moto's WSGI application with our handler, on a threaded server.

werkzeug's own development server logs each request, prints a banner, leaves the process when the
port is in use and closes every connection; hence this one.
"""

import io
import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

from flask import Flask
from moto.core.common_types import TYPE_RESPONSE
from moto.core.utils import convert_to_flask_response
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.wrappers import Response

_logger = logging.getLogger(__name__)

Handle = Callable[..., TYPE_RESPONSE]
"""Answers one request of Service Catalog, in the way of moto's `BaseResponse.dispatch`."""


def application(handle: Handle) -> DomainDispatcherApplication:
    """Return moto's application with `handle` in the place of its Service Catalog."""

    def create_app(service: Any) -> Flask:
        app = create_backend_app(service)
        if service == "servicecatalog":
            endpoint = "ServiceCatalogResponse.dispatch"
            if endpoint not in app.view_functions:
                message = f"this version of moto has no {endpoint} to replace"
                raise LookupError(message)
            app.view_functions[endpoint] = convert_to_flask_response(handle)
        return app

    return DomainDispatcherApplication(create_app)


class _Handler(MotoRequestHandler):
    """Answers requests from whole bodies to whole bodies, which keeps the connection usable."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body are two writes

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        length = int(self.headers.get("Content-Length") or (-1 if "wsgi.input_terminated" in environ else 0))
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        try:
            response = Response.from_app(self.server.app, environ, buffered=True)
        except Exception as error:  # noqa: BLE001 - moto lets a template's faults escape as any exception
            # Without its text, which may quote a parameter's value.
            _logger.warning("moto failed on %s %s: %s", self.command, self.path, type(error).__name__)
            text = escape(f"moto could not do that: {error}")
            response = Response(
                f"<ErrorResponse><Error><Code>InternalFailure</Code><Message>{text}</Message></Error></ErrorResponse>",
                status=500,
                content_type="text/xml",
            )
        self._send(response)

    def _send(self, response: Response) -> None:
        body = response.get_data()
        self.send_response_only(response.status_code)
        if self.command != "HEAD" and response.status_code not in (204, 304):
            response.headers["Content-Length"] = str(len(body))
        response.headers.setdefault("Date", self.date_time_string())
        response.headers.setdefault("x-amzn-RequestId", str(uuid4()))
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002, ARG002 -- werkzeug's signature
        _logger.debug(message, *args)


class HttpServer(socketserver.ThreadingTCPServer):
    """Serves a WSGI application, a daemon thread for each connection."""

    allow_reuse_address = True  # a restart need not wait for old connections to expire
    allow_reuse_port = False
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    # What werkzeug's handler reads to describe its server.
    ssl_context = None
    multithread = True
    multiprocess = False
    _server_version = "sandbox"

    def __init__(self, host: str, port: int) -> None:
        """Bind the port; raises OSError if that cannot be."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.app: DomainDispatcherApplication | None = None
        self._open: set[Any] = set()
        super().__init__((host, port), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="sandbox-http",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """The address for clients."""
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes) else str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def start(self, app: DomainDispatcherApplication) -> None:
        """Begin to serve."""
        self.app = app
        self._thread.start()

    def stop(self) -> None:
        """Free the port and cut open connections."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()
        for connection in list(self._open):
            # Left open, a connection would go on being served, from a state that is gone.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Remember each connection, to be able to cut it."""
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection at its end."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 -- socketserver's signature
        """Keep stderr clean where a client hung up or we cut it off."""
        _logger.debug("connection from %s ended", client_address, exc_info=True)  # noqa: LOG014 -- socketserver calls this inside its except
