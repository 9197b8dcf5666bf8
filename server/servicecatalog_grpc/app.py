"""Wires the server together and runs it: start, serve until a signal, drain, stop."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence

import grpc.aio
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, NoRegionError
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from servicecatalog.v1 import provisioning_service_pb2, provisioning_service_pb2_grpc

from servicecatalog_grpc.aws.client import BotoServiceCatalog, make_client, takes_credentials
from servicecatalog_grpc.aws.credentials import KeptCredentials
from servicecatalog_grpc.aws.pace import Pace
from servicecatalog_grpc.config import Settings, SettingsError
from servicecatalog_grpc.interceptors.failures import FailureInterceptor
from servicecatalog_grpc.services.admission import Admission
from servicecatalog_grpc.services.forwarding import Forwarder
from servicecatalog_grpc.services.provisioning import ProvisioningService
from servicecatalog_grpc.translation.pairing import Operation, pair_services

logger = logging.getLogger(__name__)

SERVICES: Sequence[ServiceDescriptor] = (provisioning_service_pb2.DESCRIPTOR.services_by_name["ProvisioningService"],)

_NAMES = [service.full_name for service in SERVICES]

# How long the start waits for credentials, which another host may have to give; then it goes on without them.
_CREDENTIALS_SECONDS = 1.0

_OPTIONS = (
    # CloudFormation takes 200 parameters of up to 4 KiB, and Service Catalog 50 tags: less than 900 KiB in all.
    ("grpc.max_receive_message_length", 1024 * 1024),
    # Two servers on one port would share its connections, and each would look as if it lost half of its calls.
    ("grpc.so_reuseport", 0),
)


class StartError(Exception):
    """The server cannot start. The text is one line."""


async def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain within the grace and return.

    `on_ready` gets the address served, with the port that the system chose where the setting says 0. A second signal
    ends the process at once. Raises StartError or SettingsError.
    """
    stop = _stop_on_signals()
    health_servicer = health.aio.HealthServicer()
    credentials, client = _connect(settings, _Readiness(health_servicer))
    operations, drift = pair_services(SERVICES, client.meta.service_model)
    for member in drift:
        logger.warning("AWS has %s, which the contract lacks", member)
    service_catalog = BotoServiceCatalog(
        client,
        credentials,
        _pace(settings, operations.values()),
        threads=settings.max_writes + settings.max_reads,
        max_attempts=settings.max_attempts,
    )
    forward = Forwarder(
        operations,
        service_catalog,
        writes=Admission(settings.max_writes, settings.max_waiting),
        reads=Admission(settings.max_reads, settings.max_waiting),
        default_deadline=settings.default_deadline,
    )

    server = grpc.aio.server(interceptors=(FailureInterceptor(),), options=_OPTIONS)
    provisioning_service_pb2_grpc.add_ProvisioningServiceServicer_to_server(ProvisioningService(forward), server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection([*_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    address = _bind(server, settings.listen)
    await health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    await asyncio.to_thread(credentials.start, timeout=_CREDENTIALS_SECONDS)
    logger.info("serving on %s", address)
    on_ready(address)

    await stop.wait()
    logger.info("draining, for at most %g s", settings.grace)
    credentials.stop()
    await health_servicer.enter_graceful_shutdown()
    await server.stop(settings.grace)
    service_catalog.close()
    logger.info("stopped")


class _Readiness:
    """Says by the health protocol whether the services can do their work. Liveness, the service `""`, is not theirs."""

    def __init__(self, servicer: health.aio.HealthServicer) -> None:
        self._servicer = servicer
        self._loop = asyncio.get_running_loop()

    def __call__(self, ready: bool) -> None:  # noqa: FBT001 - the one thing that it hears
        asyncio.run_coroutine_threadsafe(self._set(ready=ready), self._loop)

    async def _set(self, *, ready: bool) -> None:
        response = health_pb2.HealthCheckResponse
        for name in _NAMES:
            await self._servicer.set(name, response.SERVING if ready else response.NOT_SERVING)


def _stop_on_signals() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets. The second one ends the process."""
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            logger.warning("a second signal: stopping at once")
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stop


def _connect(settings: Settings, on_change: Callable[[bool], None]) -> tuple[KeptCredentials, BaseClient]:
    """Return the boto3 client of the standard chain, and its credentials. Raises StartError."""
    credentials = KeptCredentials(on_change, lambda: takes_credentials(client))
    try:
        client = make_client(credentials, max_connections=settings.max_writes + settings.max_reads)
    except NoRegionError:
        raise StartError("no AWS region: set AWS_REGION, or region in the AWS profile") from None
    except (BotoCoreError, ValueError) as error:
        raise StartError(f"no AWS client: {error}") from error
    return credentials, client


def _pace(settings: Settings, operations: Iterable[Operation]) -> Pace:
    """Return the pace of the settings. Raises SettingsError for an operation that is not served."""
    names = {operation.name for operation in operations}
    for name in settings.aws_rates:
        if name not in names:
            raise SettingsError(f"--aws-rate: must name {', '.join(sorted(names))}, is {settings.aws_rate!r}")
    return Pace(settings.aws_rates)


def _bind(server: grpc.aio.Server, listen: str) -> str:
    """Bind the server to the address and return it with its real port. Raises StartError."""
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        raise StartError(f"cannot listen on {listen}: the address is in use, or not this host's") from None
    host, separator, _ = listen.rpartition(":")
    return listen if listen.startswith("unix:") else f"{host}{separator}{port}"
