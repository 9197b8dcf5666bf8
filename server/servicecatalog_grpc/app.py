"""Wires the server together and runs it: start, serve until a signal, drain, stop."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence

import boto3
import grpc.aio
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from servicecatalog.v1 import provisioning_service_pb2, provisioning_service_pb2_grpc

from servicecatalog_grpc.aws.client import BotoServiceCatalog, make_client
from servicecatalog_grpc.config import Settings
from servicecatalog_grpc.interceptors.failures import FailureInterceptor
from servicecatalog_grpc.services.forwarding import Forwarder
from servicecatalog_grpc.services.provisioning import ProvisioningService
from servicecatalog_grpc.translation.pairing import pair_services

logger = logging.getLogger(__name__)

SERVICES: Sequence[ServiceDescriptor] = (provisioning_service_pb2.DESCRIPTOR.services_by_name["ProvisioningService"],)

_OPTIONS = (
    # A legal request stays below a third of this: 4 KiB for each of some 60 parameters, and 50 tags.
    ("grpc.max_receive_message_length", 1024 * 1024),
    # Two servers on one port would share its connections, and each would look as if it lost half of its calls.
    ("grpc.so_reuseport", 0),
)


class StartError(Exception):
    """The server cannot start. The text is one line."""


async def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain within the grace and return.

    `on_ready` gets the address served, with the port that the system chose where the setting says 0. A second signal
    ends the process at once. Raises StartError.
    """
    stop = _stop_on_signals()
    client = _make_client(settings)
    operations, drift = pair_services(SERVICES, client.meta.service_model)
    for member in drift:
        logger.warning("AWS has %s, which the contract lacks", member)
    service_catalog = BotoServiceCatalog(client, threads=settings.max_writes, max_attempts=settings.max_attempts)

    server = grpc.aio.server(interceptors=(FailureInterceptor(),), options=_OPTIONS)
    forward = Forwarder(operations, service_catalog, settings.default_deadline)
    provisioning_service_pb2_grpc.add_ProvisioningServiceServicer_to_server(ProvisioningService(forward), server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = [service.full_name for service in SERVICES]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)

    address = _bind(server, settings.listen)
    await server.start()
    for name in ("", *names):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    logger.info("serving on %s", address)
    on_ready(address)

    await stop.wait()
    logger.info("draining, for at most %g s", settings.grace)
    await health_servicer.enter_graceful_shutdown()
    await server.stop(settings.grace)
    service_catalog.close()
    logger.info("stopped")


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


def _make_client(settings: Settings) -> BaseClient:
    """Return the boto3 client of the standard chain. Raises StartError."""
    try:
        # boto3 reads AWS_DEFAULT_REGION only; every other SDK reads AWS_REGION
        # (https://docs.aws.amazon.com/sdkref/latest/guide/feature-region.html).
        session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
        if session.region_name is None:
            raise StartError("no AWS region: set AWS_REGION, or region in the AWS profile")
        return make_client(session, max_connections=settings.max_writes)
    except (BotoCoreError, ValueError) as error:
        raise StartError(f"no AWS client: {error}") from error


def _bind(server: grpc.aio.Server, listen: str) -> str:
    """Bind the server to the address and return it with its real port. Raises StartError."""
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        raise StartError(f"cannot listen on {listen}: the address is in use, or not this host's") from None
    host, separator, _ = listen.rpartition(":")
    return listen if listen.startswith("unix:") else f"{host}{separator}{port}"
