"""Reads certificates and keys, and says what is wrong with them: gRPC says little, and keeps to what it had."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servicecatalog_grpc.config import SettingsError

# The second one is of a key of another kind, which OpenSSL keeps apart.
_MISMATCHES = frozenset({"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


def read(path: Path, flag: str) -> bytes:
    """Return what the file holds. Raises SettingsError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{flag}: {path}: {error.strerror}") from None


def check_pair(certificate: Path, key: Path) -> Mapping[str, Any]:
    """Shake hands with a server that has the pair, in memory, as a strict caller would, and return what it sees.

    That is the certificate as `ssl.SSLSocket.getpeercert` describes it. Raises SettingsError for what cannot be read, does
    not fit together, has expired, or is not for TLS 1.3.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    # The certificate is trusted as it is, whoever has signed it.
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    _trust(client, read(certificate, "--tls-certificate"), certificate, "--tls-certificate")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    read(key, "--tls-key")
    try:
        # A key with a passphrase fails at an empty one, where OpenSSL would ask at the terminal.
        server.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if not error.reason:
            raise SettingsError(f"--tls-key: {key}: holds no usable private key in PEM without a passphrase") from None
        if error.reason in _MISMATCHES:
            raise SettingsError(f"--tls-key: {key}: is not the key of {certificate}") from None
        raise SettingsError(_unfit(certificate, error)) from None
    try:
        return _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        raise SettingsError(f"--tls-certificate: {certificate}: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise SettingsError(_unfit(certificate, error)) from None


def _unfit(certificate: Path, error: ssl.SSLError) -> str:
    return f"--tls-certificate: {certificate}: is not fit for TLS: {error.reason}"


def read_authorities(path: Path, flag: str) -> bytes:
    """Return the certificates in the file, each of which is sound. Raises SettingsError."""
    pem = read(path, flag)
    _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pem, path, flag)
    return pem


def _trust(context: ssl.SSLContext, pem: bytes, path: Path, flag: str) -> None:
    """Let the context trust the certificates, each of which has to be sound: gRPC leaves out what follows a broken one."""
    try:
        # Comments may be in any language; what is no ASCII within a certificate breaks it.
        context.load_verify_locations(cadata=pem.decode("ascii", errors="backslashreplace"))
    except (ssl.SSLError, ValueError):
        raise SettingsError(f"{flag}: {path}: holds no certificates in PEM, or a broken one") from None


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> Mapping[str, Any]:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server)
    called = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (caller, called, caller):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return caller.getpeercert() or {}
