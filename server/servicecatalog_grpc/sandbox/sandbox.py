"""Wires and runs the sandbox."""

from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data

from servicecatalog_grpc.sandbox.aws import client
from servicecatalog_grpc.sandbox.catalog import Catalog
from servicecatalog_grpc.sandbox.inventory import Inventory
from servicecatalog_grpc.sandbox.provisioning import Provisioner
from servicecatalog_grpc.sandbox.responses import SandboxResponse
from servicecatalog_grpc.sandbox.seeds import seed
from servicecatalog_grpc.sandbox.server import HttpServer, application
from servicecatalog_grpc.sandbox.stacks import Stacks
from servicecatalog_grpc.sandbox.timeline import Timeline


class Sandbox:
    """An embedded AWS with a Service Catalog that provisions; also a context manager.

    moto's state is global to the process, so only one sandbox may run at a time. Its catalogue and
    its stacks are in one region, `REGION`; any credentials do.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 4566, *, record_seconds: float = 2.0) -> None:
        """Once started, listen on `host` and `port` (0: any); records take `record_seconds`."""
        self._host = host
        self._port = port
        self._record_seconds = record_seconds
        self._server: HttpServer | None = None
        self._cleanup = ExitStack()

    @property
    def url(self) -> str:
        """The endpoint for clients; raises RuntimeError unless started."""
        if not self._server:
            message = "the sandbox is not running"
            raise RuntimeError(message)
        return self._server.url

    def start(self) -> None:
        """Serve, with products to provision; raises OSError if the port cannot be had."""
        with ExitStack() as cleanup:
            server = HttpServer(self._host, self._port)
            cleanup.callback(_reset_moto)
            cleanup.callback(server.stop)
            s3 = cleanup.enter_context(closing(client("s3", server.url)))
            cloudformation = cleanup.enter_context(closing(client("cloudformation", server.url)))
            # A record passes through two waits: before its work and after it.
            timeline = Timeline(self._record_seconds / 2)
            cleanup.callback(timeline.stop)
            catalog = Catalog(s3, cloudformation)
            inventory = Inventory()
            provisioner = Provisioner(catalog, inventory, Stacks(cloudformation), timeline)
            server.start(
                application(lambda *request: SandboxResponse(catalog, inventory, provisioner).handle(*request))
            )
            seed(server.url)
            self._server = server
            self._cleanup = cleanup.pop_all()

    def stop(self) -> None:
        """Stop serving and forget everything; does nothing if not running."""
        self._server = None
        self._cleanup.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()


def _reset_moto() -> None:
    """Do what a POST to moto's own /moto-api/reset does."""
    BackendDict.reset()
    reset_model_data()
