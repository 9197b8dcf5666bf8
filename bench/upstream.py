"""In the place of AWS: Debian's nginx, which gives every call the same answer after a fixed delay, with and without TLS."""

import ipaddress
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.measured import Route
from bench.processes import cpu_seconds

_ECHO = "ngx_http_echo_module.so"
_START_SECONDS = 10.0
_BODY = (
    '{"RecordDetail":{"RecordId":"rec-1","ProvisionedProductId":"pp-1","Status":"CREATED","CreatedTime":1700000000.5}}'
)

_CONFIG = """
load_module {module};
{user}
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  # A connection lives as long as whoever made it wants.
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  default_type application/x-amz-json-1.1;
  add_header x-amzn-RequestId 11111111-2222-3333-4444-555555555555;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  ssl_certificate {directory}/server.pem;
  ssl_certificate_key {directory}/server.key;
{servers}
}}
"""
_SERVER = """
  server {{
    listen 127.0.0.1:{port} {tls} backlog=4096;
    location / {{ {location} }}
    location @answer {{ return 200 '{body}'; }}
  }}
"""


class MissingError(Exception):
    """Something that the benchmark needs is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Upstream:
    """A running nginx."""

    version: str
    pid: int
    ca: Path
    ports: dict[Route, int]

    def url(self, route: Route) -> str:
        """Where the answer comes from by this route."""
        return f"http{'s' if route.tls else ''}://127.0.0.1:{self.ports[route]}"

    @property
    def cpu_seconds(self) -> float:
        """CPU that its worker has used."""
        return cpu_seconds(self.pid)


@contextmanager
def upstream(directory: Path, routes: Sequence[Route]) -> Iterator[Upstream]:
    """Run nginx with its files in this directory. Raises MissingError where it is not installed."""
    nginx, version, module = _find()
    ca = _write_certificate(directory)
    ports = dict(zip(routes, _free_ports(len(routes)), strict=True))
    config = directory / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            module=module,
            # As root it would give its worker to a user who cannot read this directory.
            user="user root;" if os.geteuid() == 0 else "",
            directory=directory,
            servers="".join(_server(route, port) for route, port in ports.items()),
        )
    )
    process = subprocess.Popen((nginx, "-e", "stderr", "-p", directory, "-c", config))
    try:
        _wait_for(process, list(ports.values()))
        worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        yield Upstream(version, worker, ca, ports)
    finally:
        process.terminate()
        process.wait()


def _find() -> tuple[str, str, Path]:
    """Return nginx, its version and the module that can wait."""
    nginx = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if nginx:
        about = subprocess.run((nginx, "-V"), capture_output=True, text=True, check=True).stderr
        directory = re.search(r"--modules-path=(\S+)", about)
        version = re.search(r"nginx/(\S+)", about)
        module = Path(directory[1] if directory else "/usr/lib/nginx/modules", _ECHO)
        if module.exists():
            return nginx, version[1] if version else "unknown", module
    raise MissingError("nginx with its echo module is missing: apt-get install nginx-light libnginx-mod-http-echo")


def _server(route: Route, port: int) -> str:
    # By way of a named location the answer has a Content-Length; one that echo writes is chunked.
    location = f"echo_sleep {route.delay_ms / 1000}; echo_exec @answer;" if route.delay_ms else f"return 200 '{_BODY}';"
    return _SERVER.format(port=port, tls="ssl" if route.tls else "", location=location, body=_BODY)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(process: subprocess.Popen[bytes], ports: list[int]) -> None:
    end = time.monotonic() + _START_SECONDS
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("nginx did not start; what it said stands above") from None
                time.sleep(0.05)


def _write_certificate(directory: Path) -> Path:
    """Write a certificate for 127.0.0.1 and its key; return the file of the authority to trust, which is itself.

    The key is RSA's with 2048 bits, as those of AWS's endpoints are.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(addresses, critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path = directory / "server.pem"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return path
