"""Asks a running server whether it serves, as its container and whoever looks after it do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicecatalog_grpc.certificates import check_pair, read, read_authorities
from servicecatalog_grpc.config import HealthSettings, SettingsError

SERVING = "SERVING"

_TIMEOUT_SECONDS = 5.0

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - whom nobody can ask there


def reachable(listen: str) -> str:
    """Return an address of this host at which a server can be asked that listens there."""
    host, separator, port = listen.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}{separator}{port}"


def ask(address: str, settings: HealthSettings) -> str:
    """Return the status of the service. Raises SettingsError for bad files, grpc.RpcError where nobody answers.

    See https://grpc.io/docs/guides/health-checking/
    """
    with _channel(address, settings) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]  # the stubs lack it
            health_pb2.HealthCheckRequest(service=settings.service), timeout=_TIMEOUT_SECONDS
        )
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _channel(address: str, settings: HealthSettings) -> grpc.Channel:
    if not (settings.tls_ca or settings.tls_certificate):
        return grpc.insecure_channel(address)
    chain, key, name = None, None, settings.tls_name
    if settings.tls_certificate:
        certificate = check_pair(Path(settings.tls_certificate), Path(settings.tls_key))
        chain = read(Path(settings.tls_certificate), "--tls-certificate")
        key = read(Path(settings.tls_key), "--tls-key")
        if not settings.tls_ca and not name:
            name = _host_in(certificate, settings.tls_certificate)
    # Without authorities, whoever asks has the files of the server itself, which is to have this very certificate.
    roots = read_authorities(Path(settings.tls_ca), "--tls-ca") if settings.tls_ca else chain
    options = (("grpc.ssl_target_name_override", name),) if name else ()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots, key, chain), options)


def _host_in(certificate: Mapping[str, Any], path: str) -> str:
    """Return a name in the certificate that gRPC can ask for. Raises SettingsError."""
    hosts = [name for kind, name in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    if not hosts:
        raise SettingsError(f"--tls-certificate: {path}: names no host, and gRPC asks for one")
    return str(hosts[0])
