"""Callers prove to the sidecar who they are, and the façade behind it knows: deploy/envoy/sidecar-mtls.yaml."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from callers import callers_of
from calls import ANSWER, provision
from certificates import DAY, HOUR, Authority, Certificate
from envoy import Envoy, deployed_with_tls, manager
from facade import Facade, environment
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from tools import need
from upstream import Upstream
from waiting import wait_for

NO_RETRIES = (("grpc.enable_retries", 0),)

ORDERS = "spiffe://example.org/ns/shop/sa/orders"
BILLING = "spiffe://example.org/ns/shop/sa/billing"
XFCC = "x-forwarded-client-cert"


class Mesh(NamedTuple):
    """The sidecar, the façade behind it, and the authority whose certificates count."""

    envoy: Envoy
    facade: Facade
    authority: Authority
    tls: Path

    def channel(self, certificate: Certificate | None) -> grpc.Channel:
        """Return a channel of the caller with this certificate."""
        chain, key = (certificate.chain, certificate.key) if certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, key, chain)
        return grpc.secure_channel(self.envoy.address, credentials, NO_RETRIES)

    def call(self, certificate: Certificate | None, *metadata: tuple[str, str]) -> str:
        """Make a call, and return as whom the façade has seen its caller."""
        seen = len(callers_of(self.facade))
        with self.channel(certificate) as channel:
            ProvisioningServiceStub(channel).ProvisionProduct(provision(), metadata=metadata, timeout=10)
        wait_for(lambda: len(callers_of(self.facade)) > seen)
        return callers_of(self.facade)[-1]


@contextmanager
def started(directory: Path, **changes: str) -> Iterator[Mesh]:
    """Start a sidecar, with these changes of its configuration, and a façade behind it that believes what it says."""
    authority = Authority()
    tls = directory / "tls"
    tls.mkdir()
    place(authority, authority.issue("127.0.0.1", "localhost"), tls)
    socket = f"unix:{directory / 'grpc.sock'}"
    config = deployed_with_tls(socket, tls, directory)
    manager(config).update(changes)
    arguments = ("serve", "--listen", socket, "--forwarded-client-cert", "trust")
    with closing(Upstream()) as upstream:
        upstream.behave(ANSWER)
        with Facade(*arguments, env=environment(upstream.url)) as facade, Envoy(config, directory) as envoy:
            yield Mesh(envoy, facade, authority, tls)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The sidecar as it is."""
    with started(tmp_path_factory.mktemp("mesh")) as running:
        yield running


def place(authority: Authority, certificate: Certificate, tls: Path) -> None:
    """Put the files where Envoy looks for them, as Kubernetes does: a new directory, and a link that is moved to it."""
    version = tls / f"..{len(list(tls.iterdir()))}"
    version.mkdir()
    (version / "tls.crt").write_bytes(certificate.chain)
    (version / "tls.key").write_bytes(certificate.key)
    (version / "ca.crt").write_bytes(authority.pem)
    new = tls / "..new"
    new.symlink_to(version)
    new.replace(tls / "..data")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        if not (tls / name).is_symlink():
            (tls / name).symlink_to(Path("..data") / name)


def test_the_facade_knows_the_caller_by_the_certificate_that_the_sidecar_has_verified(mesh: Mesh) -> None:
    assert mesh.call(mesh.authority.issue(ORDERS)) == ORDERS
    assert mesh.call(mesh.authority.issue(BILLING, "billing.example.org")) == BILLING
    assert mesh.call(mesh.authority.issue("billing.example.org")) == "billing.example.org"


FORGED = {
    "plain": (f"URI={BILLING}",),
    "two": (f"By=x;Hash=y;URI={BILLING},By=x;Hash=y;URI={BILLING}",),
    "open-quote": (f'URI={BILLING};Subject="',),
    "open-quote-and-another-element": (f'Subject=",URI={BILLING}',),
    "escape": (f'URI={BILLING};Subject="\\',),
    "no-end": (f"URI={BILLING};",),
    "separator": (f"URI={BILLING},",),
    "twice": (f"URI={BILLING}", f"URI={BILLING}"),
    "empty": ("",),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_what_a_caller_says_of_its_certificate_is_replaced_by_what_the_sidecar_has_seen(
    mesh: Mesh, forged: tuple[str, ...]
) -> None:
    assert mesh.call(mesh.authority.issue(ORDERS), *((XFCC, each) for each in forged)) == ORDERS


def test_a_sidecar_that_appends_to_what_a_caller_says_of_its_certificate_makes_nobody_another_one(
    tmp_path: Path,
) -> None:
    """As Istio's do by default. What cannot be told from what the sidecar says costs the caller its own identity."""
    with started(tmp_path, forward_client_cert_details="APPEND_FORWARD") as mesh:
        certificate = mesh.authority.issue(ORDERS)
        seen = {name: mesh.call(certificate, *((XFCC, each) for each in forged)) for name, forged in FORGED.items()}
        assert set(seen.values()) == {ORDERS, "anonymous"}, seen
        assert seen["plain"] == seen["two"] == ORDERS


def test_a_certificate_without_a_name_stays_anonymous_whatever_its_owner_says(mesh: Mesh) -> None:
    assert mesh.call(mesh.authority.issue(), (XFCC, f"URI={BILLING}")) == "anonymous"


REFUSED = {
    "none": lambda mesh: None,
    "of-another-authority": lambda mesh: Authority().issue(ORDERS),
    "expired": lambda mesh: mesh.authority.issue(ORDERS, starts=-2 * DAY, ends=-HOUR),
    "not-valid-yet": lambda mesh: mesh.authority.issue(ORDERS, starts=timedelta(hours=2)),
}


@pytest.mark.parametrize("certificate", REFUSED.values(), ids=REFUSED)
def test_without_a_good_certificate_nobody_gets_to_the_facade(mesh: Mesh, certificate: object) -> None:
    seen = len(callers_of(mesh.facade))
    with mesh.channel(certificate(mesh)) as channel, pytest.raises(grpc.RpcError) as raised:  # type: ignore[operator]
        ProvisioningServiceStub(channel).ProvisionProduct(provision(), timeout=5)
    assert raised.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert len(callers_of(mesh.facade)) == seen


def test_nobody_gets_in_without_tls(mesh: Mesh) -> None:
    with grpc.insecure_channel(mesh.envoy.address, NO_RETRIES) as channel, pytest.raises(grpc.RpcError) as raised:
        ProvisioningServiceStub(channel).ProvisionProduct(provision(), timeout=5)
    assert raised.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def test_the_log_of_the_sidecar_names_the_caller(mesh: Mesh) -> None:
    trace = "fedcba9876543210" * 2
    mesh.call(mesh.authority.issue(ORDERS), ("traceparent", f"00-{trace}-00000000000000aa-01"))
    wait_for(lambda: any(line["trace_id"] == trace for line in list(mesh.envoy.access)))
    (outside,) = [line for line in mesh.envoy.access if line["trace_id"] == trace]
    (inside,) = [line for line in map(json.loads, mesh.facade.log) if line.get("trace_id") == trace]
    assert outside["caller"] == inside["caller"] == ORDERS


def test_grpcurl_gets_in_with_a_certificate(mesh: Mesh, tmp_path: Path) -> None:
    certificate, key = mesh.authority.issue(ORDERS).write(tmp_path, "orders")
    ca = mesh.authority.write(tmp_path / "ca.pem")
    files = ("-cacert", str(ca), "-cert", str(certificate), "-key", str(key))
    command = (need("grpcurl"), *files, mesh.envoy.address, "list")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "servicecatalog.v1.ProvisioningService" in done.stdout


def test_new_certificates_are_taken_as_they_come(tmp_path: Path) -> None:
    with started(tmp_path) as mesh:
        old, new = mesh.authority, Authority("Next")
        place(new, new.issue("127.0.0.1", "localhost"), mesh.tls)
        renewed = mesh._replace(authority=new)

        def served() -> bool:
            try:
                return renewed.call(new.issue(ORDERS)) == ORDERS
            except grpc.RpcError:
                return False

        wait_for(served)
        with renewed.channel(old.issue(ORDERS)) as channel, pytest.raises(grpc.RpcError):
            ProvisioningServiceStub(channel).ProvisionProduct(provision(), timeout=5)
