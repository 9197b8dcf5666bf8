"""TLS: what the server proves itself with, and whom it lets in, by files that may change while it runs.

gRPC speaks TLS 1.2 and 1.3, and nothing older.
"""

import ssl
import time
from pathlib import Path
from typing import NamedTuple

import grpc

from servicecatalog_grpc.certificates import check_pair, read, read_authorities
from servicecatalog_grpc.config import Settings
from servicecatalog_grpc.files import Reloaded
from servicecatalog_grpc.telemetry.instruments import observe_certificate


class _Loaded(NamedTuple):
    configuration: grpc.ServerCertificateConfiguration
    expiry: float


class ServerTls:
    """The server's side of TLS. New connections get what the files hold by now, those that are open stay as they are."""

    def __init__(self, settings: Settings) -> None:
        """Load the files. Raises SettingsError."""
        self._certificate = Path(settings.tls_certificate)
        self._key = Path(settings.tls_key)
        self._client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
        paths = [self._certificate, self._key, *filter(None, [self._client_ca])]
        self._files = Reloaded("TLS certificates", paths, self._load)
        self._handed_out = self._files.value.configuration

    def start(self) -> None:
        """Look after the files from now on."""
        observe_certificate(lambda: max(0.0, self._files.value.expiry - time.time()))
        self._files.start()

    def stop(self) -> None:
        """Let the files be."""
        self._files.stop()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is bound with."""
        return grpc.dynamic_ssl_server_credentials(
            self._handed_out,
            self._newer,  # type: ignore[arg-type]  # the stubs lack None
            require_client_authentication=self._client_ca is not None,
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is new since the last time, if anything is. gRPC asks before each handshake, one after the other."""
        configuration = self._files.value.configuration
        if configuration is self._handed_out:
            return None
        self._handed_out = configuration
        return configuration

    def _load(self) -> _Loaded:
        certificate = check_pair(self._certificate, self._key)
        authorities = read_authorities(self._client_ca, "--tls-client-ca") if self._client_ca else None
        pair = read(self._key, "--tls-key"), read(self._certificate, "--tls-certificate")
        return _Loaded(
            grpc.ssl_server_certificate_configuration([pair], authorities),
            ssl.cert_time_to_seconds(certificate["notAfter"]),
        )
