"""Wires the server together and runs it: start, serve until a signal, drain, stop."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from servicecatalog.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    provisioned_product_service_pb2,
    provisioned_product_service_pb2_grpc,
    provisioning_service_pb2,
    provisioning_service_pb2_grpc,
    record_service_pb2,
    record_service_pb2_grpc,
)

from servicecatalog_grpc.aws.connecting import connect, make_service_catalog
from servicecatalog_grpc.aws.pace import Pace
from servicecatalog_grpc.aws.protocol import ServiceCatalog
from servicecatalog_grpc.aws.roles import Roles
from servicecatalog_grpc.config import Settings, SettingsError, StartError, unknown_variables
from servicecatalog_grpc.event_loop import courteous_poller
from servicecatalog_grpc.interceptors.draining import Draining
from servicecatalog_grpc.interceptors.identity import Identification
from servicecatalog_grpc.interceptors.interceptor import Interceptor
from servicecatalog_grpc.interceptors.telemetry import Observation
from servicecatalog_grpc.listening import Listener
from servicecatalog_grpc.policy.documents import DocumentError
from servicecatalog_grpc.policy.following import PolicyInForce
from servicecatalog_grpc.services.admission import Admission
from servicecatalog_grpc.services.authorizing import Authorization
from servicecatalog_grpc.services.catalog import CatalogService
from servicecatalog_grpc.services.fetching import Fetch
from servicecatalog_grpc.services.forwarding import Forwarder
from servicecatalog_grpc.services.provisioned_products import ProvisionedProductService
from servicecatalog_grpc.services.provisioning import ProvisioningService
from servicecatalog_grpc.services.records import RecordService
from servicecatalog_grpc.services.watching import Watches
from servicecatalog_grpc.telemetry.effective import effective_settings
from servicecatalog_grpc.telemetry.instruments import observe_credentials, observe_load
from servicecatalog_grpc.telemetry.setup import start_telemetry
from servicecatalog_grpc.translation.pairing import Operation, pair_services

logger = logging.getLogger(__name__)

SERVICES: Sequence[ServiceDescriptor] = (
    provisioning_service_pb2.DESCRIPTOR.services_by_name["ProvisioningService"],
    record_service_pb2.DESCRIPTOR.services_by_name["RecordService"],
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
    provisioned_product_service_pb2.DESCRIPTOR.services_by_name["ProvisionedProductService"],
)

_NAMES = [service.full_name for service in SERVICES]

# How many looks at watched records may be at work at a time.
_POLLS = 8

# How long the start waits for credentials, which another host may have to give; then it goes on without them.
_CREDENTIALS_SECONDS = 1.0

# The end of the grace, in which calls still in flight are told that their outcome is unknown.
_LAST_MOMENT_SECONDS = 0.5

# Who has been refused so long ago calls elsewhere by now; gRPC would cancel a call that arrives while it stops.
_QUIET_SECONDS = 0.1


async def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain within the grace and return.

    `on_ready` gets the address served, with the port that the system chose where the setting says 0. A second signal
    ends the process at once. Raises StartError or SettingsError.
    """
    stop = _stop_on_signals()
    listener = Listener(settings)
    policy = _policy(settings)
    stop_telemetry = _start_telemetry(settings)
    health_servicer = health.aio.HealthServicer()
    readiness = _Readiness(health_servicer)
    aws = connect(readiness, _max_calls(settings))
    operations, drift = pair_services(SERVICES, aws.service_catalog.meta.service_model)
    for member in drift:
        logger.warning("AWS has %s, which the contract lacks", member)
    pace = _pace(settings, operations.values())
    service_catalog = make_service_catalog(
        aws, pace, max_calls=_max_calls(settings), max_attempts=settings.max_attempts
    )
    observe_credentials(aws.credentials.seconds_left, service_catalog.seconds_left)

    observation, draining = Observation(), Draining()
    interceptor = Interceptor(observation, Identification(trust_forwarded=settings.trusts_forwarded), draining)
    with courteous_poller():
        server = grpc.aio.server(interceptors=(interceptor,), options=listener.options)
    watches = _add_services(server, settings, operations, service_catalog, policy)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    _add_reflection(server)
    address = listener.bind(server)
    observation.serve_on(address)
    await health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await readiness.set(ready=False)
    await server.start()
    await asyncio.to_thread(aws.credentials.start, timeout=_CREDENTIALS_SECONDS)
    _log_settings(settings)
    logger.info("serving on %s", address)
    on_ready(address)

    # Not cancelled when the stop comes first: that would cancel what gRPC's own stop waits for.
    end = asyncio.create_task(server.wait_for_termination())
    await asyncio.wait([end, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        logger.info("draining, for at most %g s", settings.grace)
        await health_servicer.enter_graceful_shutdown()
        watches.close()
        await _drain(draining, service_catalog, settings.grace)
        draining.end_streams()
        await server.stop(0)
    listener.close()
    policy.stop()
    aws.credentials.stop()
    service_catalog.close()
    logger.info("stopped")
    stop_telemetry()
    if not stop.is_set():
        raise StartError("the gRPC server ended by itself")


def _log_settings(settings: Settings) -> None:
    logger.info("settings", extra={"fields": effective_settings(settings, os.environ)})
    for variable in unknown_variables(os.environ):
        logger.warning("%s is not a setting of this version and has no effect", variable)


def _add_services(
    server: grpc.aio.Server,
    settings: Settings,
    operations: Mapping[str, Operation],
    service_catalog: ServiceCatalog,
    policy: PolicyInForce,
) -> Watches:
    """Add the services to the server, and return the watches that one of them keeps."""
    writes = Admission(settings.max_writes, settings.max_waiting)
    reads = Admission(settings.max_reads, settings.max_waiting)
    # As many polls as wait for a turn: there is one for each record that is watched.
    polls = Admission(_POLLS, settings.max_watches)
    observe_load({"write": writes, "read": reads, "poll": polls})
    fetch = Fetch(service_catalog)
    watches = Watches(
        fetch,
        operations[record_service_pb2.WatchRecordRequest.DESCRIPTOR.full_name],
        polls=polls,
        limit=settings.max_watches,
        first=settings.poll_first,
        longest=settings.poll_longest,
        rate=settings.poll_rate,
    )
    describe = operations[provisioned_product_service_pb2.DescribeProvisionedProductRequest.DESCRIPTOR.full_name]
    authorization = Authorization(policy, fetch, describe, reads)
    forward = Forwarder(
        operations,
        fetch,
        authorization,
        writes=writes,
        reads=reads,
        default_deadline=settings.default_deadline,
    )

    provisioning_service_pb2_grpc.add_ProvisioningServiceServicer_to_server(ProvisioningService(forward), server)
    record_service_pb2_grpc.add_RecordServiceServicer_to_server(RecordService(forward, authorization, watches), server)
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogService(forward), server)
    provisioned_product_service_pb2_grpc.add_ProvisionedProductServiceServicer_to_server(
        ProvisionedProductService(forward), server
    )
    return watches


def _add_reflection(server: grpc.aio.Server) -> None:
    """Serve reflection as v1alpha, which grpcio-reflection has, and as v1, which tools ask for first: both are the same.

    See https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
    """
    servicer = reflection.aio.ReflectionServicer([*_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection"):
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}),)
        )


async def _drain(draining: Draining, service_catalog: Roles, grace: float) -> None:
    """Refuse new calls and wait for those in flight, for so many seconds at most."""
    draining.drain()
    last_moment = min(_LAST_MOMENT_SECONDS, grace / 2)
    if not await draining.idle(grace - last_moment):
        # Their callers get to know that the outcome is unknown, and the token to find it out with.
        service_catalog.stop()
        await draining.idle(last_moment)
    await draining.quiet(_QUIET_SECONDS, at_most=last_moment)


def _start_telemetry(settings: Settings) -> Callable[[], None]:
    """Start telemetry and return what stops it. Raises StartError or SettingsError."""
    try:
        return start_telemetry(settings.metrics_listen)
    except OSError as error:
        raise StartError(f"cannot serve metrics on {settings.metrics_listen}: {error.strerror or error}") from None


class _Readiness:
    """Says by the health protocol whether the services can do their work. Liveness, the service `""`, is not theirs."""

    def __init__(self, servicer: health.aio.HealthServicer) -> None:
        self._servicer = servicer
        self._loop = asyncio.get_running_loop()

    def __call__(self, ready: bool) -> None:  # noqa: FBT001 - the one thing that it hears
        asyncio.run_coroutine_threadsafe(self.set(ready=ready), self._loop)

    async def set(self, *, ready: bool) -> None:
        """Say it of every service."""
        response = health_pb2.HealthCheckResponse
        for name in _NAMES:
            await self._servicer.set(name, response.SERVING if ready else response.NOT_SERVING)


def _policy(settings: Settings) -> PolicyInForce:
    """Return the policy of the settings. Raises SettingsError."""
    try:
        return PolicyInForce(settings.policy)
    except DocumentError as error:
        raise SettingsError(f"--policy: {error}") from None


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


def _max_calls(settings: Settings) -> int:
    """Return how many calls to AWS may be at work at a time; each has a connection."""
    return settings.max_writes + settings.max_reads + _POLLS


def _pace(settings: Settings, operations: Iterable[Operation]) -> Pace:
    """Return the pace of the settings. Raises SettingsError for an operation that is not served."""
    names = {operation.name for operation in operations}
    for name in settings.aws_rates:
        if name not in names:
            raise SettingsError(f"--aws-rate: must name {', '.join(sorted(names))}, is {settings.aws_rate!r}")
    return Pace(settings.aws_rates)
