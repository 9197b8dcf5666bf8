"""Certificates, made while the tests run: authorities, and what they sign."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Certificate(NamedTuple):
    """A certificate with the intermediate ones that it needs, and its private key, both in PEM."""

    chain: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.pem and NAME.key, and return their paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.chain)
        key.write_bytes(self.key)
        return certificate, key


class Authority:
    """A certificate authority. `pem` is its certificate, for those who are to trust it."""

    def __init__(self, name: str = "Authority", parent: Self | None = None) -> None:
        """Make one that signs itself, or one that its parent signs."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._key, -HOUR, DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.pem = (parent or self).sign(builder)
        self.intermediates: bytes = self.pem + parent.intermediates if parent else b""

    def write(self, path: Path) -> Path:
        """Write its certificate, and return the path."""
        path.write_bytes(self.pem)
        return path

    def issue(
        self,
        *names: str,
        starts: timedelta = -HOUR,
        ends: timedelta = DAY,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Certificate:
        """Return a certificate for servers and clients with these alternative names: URIs, IP addresses or DNS names.

        It is valid from `starts` to `ends`, both counted from now.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "not to be looked at")])
        builder = _builder(subject, key, starts, ends).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
        chain = self.sign(builder) + self.intermediates
        return Certificate(chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def sign(self, builder: x509.CertificateBuilder) -> bytes:
        """Return the certificate that the builder describes, in PEM."""
        return builder.issuer_name(self._name).sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name, key: CertificateIssuerPrivateKeyTypes, starts: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + min(starts, ends - HOUR))
        .not_valid_after(now + ends)
    )


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
