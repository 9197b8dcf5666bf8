"""The metrics where Prometheus can fetch them."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, make_server

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from servicecatalog_grpc.config import split_address

logger = logging.getLogger(__name__)


def serve_metrics(address: str) -> tuple[PrometheusMetricReader, Callable[[], None]]:
    """Serve at HOST:PORT, or where the standard variables say; return the reader that is served and what stops it.

    Raises OSError if the address cannot be had.
    """
    host, port = split_address(address) if address else _standard_address()
    registry = CollectorRegistry()
    # There is one scope, whose name on every metric would say nothing.
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

    class Server(ThreadingWSGIServer):
        address_family = family
        allow_reuse_port = False  # two servers on one port would each see half of the questions

    server = make_server(host, port, make_wsgi_app(registry), Server, _Silent)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    logger.info("metrics on http://%s:%d/metrics", shown, server.server_port)

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return reader, stop


def _standard_address() -> tuple[str, int]:
    host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "localhost")
    return host, int(os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "9464"))


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gives it
        """Say nothing: it would be a line for every scrape."""
