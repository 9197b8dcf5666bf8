"""TLS: who gets in, with which versions, and what happens when the files change while the server runs."""

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from calls import ANSWER, provision
from certificates import HOUR, Authority, Certificate
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from facade import Facade, environment, peers, refusal
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream
from waiting import wait_for

HOST = "127.0.0.1"
NO_RETRIES = (("grpc.enable_retries", 0),)

ORDERS = "spiffe://example.org/ns/shop/sa/orders"


class Files(NamedTuple):
    """Where a server has its certificate, its key and the authorities of its callers."""

    certificate: Path
    key: Path
    client_ca: Path

    @classmethod
    def make(cls, directory: Path, server: Certificate, client_ca: bytes = b"") -> "Files":
        files = cls(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")
        files.write(server, client_ca)
        return files

    def write(self, server: Certificate, client_ca: bytes) -> None:
        """Replace each file at once, as tools do that care; the files as a whole change one after the other."""
        for path, content in zip(self, (*server, client_ca), strict=True):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").replace(path)

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--tls-certificate", str(self.certificate), "--tls-key", str(self.key))

    @property
    def mutual(self) -> tuple[str, ...]:
        return (*self.flags, "--tls-client-ca", str(self.client_ca))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, for the servers of this module."""
    with closing(Upstream()) as server:
        server.behave(ANSWER)
        yield server


def serve(upstream: Upstream, *flags: str) -> Facade:
    return Facade("serve", "--listen", f"{HOST}:0", *flags, env=environment(upstream.url))


@contextmanager
def calling(address: str, roots: bytes, own: Certificate | None = None) -> Iterator[Callable[[], str]]:
    """Yield what makes a call over one channel and returns the name of its status."""
    credentials = grpc.ssl_channel_credentials(roots, own and own.key, own and own.chain)
    with grpc.secure_channel(address, credentials, NO_RETRIES) as channel:
        stub = ProvisioningServiceStub(channel)

        def call() -> str:
            try:
                stub.ProvisionProduct(provision(), timeout=20)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        yield call


def outcome(address: str, roots: bytes, own: Certificate | None = None) -> str:
    """Make a call over a channel of its own and return the name of its status."""
    with calling(address, roots, own) as call:
        return call()


def served(address: str, roots: bytes) -> bytes:
    """Return the certificate, as DER, that a new caller gets to see."""
    context = ssl.create_default_context(cadata=roots.decode())
    context.set_alpn_protocols(["h2"])
    with closing(tls(address, context)) as connection:
        return connection.getpeercert(binary_form=True) or b""


def tls(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, _, port = address.rpartition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=20), server_hostname=host)


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.chain.decode())


def reloads(facade: Facade) -> int:
    return sum("TLS certificates: reloaded" in line for line in facade.log)


def complaints(facade: Facade) -> list[str]:
    return [line for line in facade.log if "kept the old one" in line]


@contextmanager
def reloading(facade: Facade) -> Iterator[None]:
    """Change files in the block; what follows it is after the server has taken note."""
    before = reloads(facade)
    yield
    wait_for(lambda: reloads(facade) > before)


# Who gets in


def test_without_a_client_ca_anybody_gets_in_who_trusts_the_server(upstream: Upstream, tmp_path: Path) -> None:
    authority = Authority()
    files = Files.make(tmp_path, authority.issue(HOST))
    with serve(upstream, *files.flags) as facade:
        assert outcome(facade.address, authority.pem) == "OK"
        assert outcome(facade.address, Authority().pem) == "UNAVAILABLE"
        with grpc.insecure_channel(facade.address) as channel, pytest.raises(grpc.RpcError) as raised:
            ProvisioningServiceStub(channel).ProvisionProduct(provision(), timeout=20)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


class Mutual(NamedTuple):
    """A server that wants certificates of `callers`."""

    facade: Facade
    roots: bytes
    callers: Authority


@pytest.fixture(scope="module")
def mutual(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutual]:
    servers, callers = Authority("Servers"), Authority("Callers")
    files = Files.make(tmp_path_factory.mktemp("mutual"), servers.issue(HOST), callers.pem)
    # A bundle as they come: with comments.
    files.client_ca.write_bytes("# Autoritäten\n".encode() + callers.pem)
    with serve(upstream, *files.mutual) as facade:
        yield Mutual(facade, servers.pem, callers)


@pytest.mark.parametrize(
    "issue",
    [
        lambda callers: callers.issue(ORDERS),
        lambda callers: callers.issue("orders.shop.example.org"),
        lambda callers: Authority("Intermediate", callers).issue(ORDERS),
    ],
    ids=["spiffe", "dns", "by an intermediate authority"],
)
def test_a_caller_with_a_certificate_is_served(mutual: Mutual, issue: Callable[[Authority], Certificate]) -> None:
    assert outcome(mutual.facade.address, mutual.roots, issue(mutual.callers)) == "OK"


@pytest.mark.parametrize(
    "issue",
    [
        lambda _: None,
        lambda _: Authority().issue(ORDERS),
        lambda _: Authority("Callers").issue(ORDERS),
        lambda callers: callers.issue(ORDERS, ends=-HOUR),
        lambda callers: callers.issue(ORDERS, starts=HOUR),
    ],
    ids=["none", "of another authority", "of another one of the same name", "expired", "not yet valid"],
)
def test_a_caller_without_a_good_certificate_is_refused(
    mutual: Mutual, upstream: Upstream, issue: Callable[[Authority], Certificate | None]
) -> None:
    upstream.behave(ANSWER)
    assert outcome(mutual.facade.address, mutual.roots, issue(mutual.callers)) == "UNAVAILABLE"
    assert upstream.requests == []


def test_a_certificate_without_its_intermediate_is_refused(mutual: Mutual) -> None:
    whole = Authority("Intermediate", mutual.callers).issue(ORDERS)
    leaf = whole.chain[: whole.chain.index(b"-----END") + len("-----END CERTIFICATE-----\n")]
    assert outcome(mutual.facade.address, mutual.roots, Certificate(leaf, whole.key)) == "UNAVAILABLE"


# Versions


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_versions_are_spoken(mutual: Mutual, tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = at(version, mutual.roots)
    context.load_cert_chain(*mutual.callers.issue(ORDERS).write(tmp_path, "caller"))
    with closing(tls(mutual.facade.address, context)) as connection:
        assert connection.version() == version.name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.recv(1)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused_by_the_server(mutual: Mutual, version: str) -> None:
    context = at(ssl.TLSVersion[version], mutual.roots)
    # Or the client would refuse them itself.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(OSError, match=r"EOF|reset"):
        tls(mutual.facade.address, context)


def at(version: ssl.TLSVersion, roots: bytes) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=roots.decode())
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    return context


# Files that change


def test_new_callers_see_the_new_certificate_and_connections_live_on(upstream: Upstream, tmp_path: Path) -> None:
    authority = Authority()
    old, new = authority.issue(HOST), authority.issue(HOST)
    files = Files.make(tmp_path, old)
    with serve(upstream, *files.flags) as facade, calling(facade.address, authority.pem) as call:
        assert call() == "OK"
        assert served(facade.address, authority.pem) == der(old)
        with reloading(facade):
            files.write(new, b"")
        assert served(facade.address, authority.pem) == der(new)
        assert call() == "OK"
        wait_for(lambda: sum("ProvisionProduct OK" in line for line in facade.log) == 2)
        assert len(peers(facade)) == 1


def test_a_swap_of_links_as_kubernetes_does_it_is_a_change(upstream: Upstream, tmp_path: Path) -> None:
    authority = Authority()
    old, new = authority.issue(HOST), authority.issue(HOST)
    for name, certificate in (("..old", old), ("..new", new)):
        (tmp_path / name).mkdir()
        Files.make(tmp_path / name, certificate)
    (tmp_path / "..data").symlink_to("..old")
    files = Files(*(tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")))
    for path in files:
        path.symlink_to(Path("..data") / path.name)
    with serve(upstream, *files.flags) as facade:
        assert served(facade.address, authority.pem) == der(old)
        with reloading(facade):
            (tmp_path / "..data_tmp").symlink_to("..new")
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        assert served(facade.address, authority.pem) == der(new)
        assert complaints(facade) == []


def test_callers_of_an_authority_that_is_taken_out_are_refused_and_those_of_a_new_one_are_served(
    upstream: Upstream, tmp_path: Path
) -> None:
    servers, old, new = Authority(), Authority("Old"), Authority("New")
    server = servers.issue(HOST)
    files = Files.make(tmp_path, server, old.pem)
    callers = [old.issue(ORDERS), new.issue(ORDERS)]
    with serve(upstream, *files.mutual) as facade:

        def outcomes() -> list[str]:
            return [outcome(facade.address, servers.pem, caller) for caller in callers]

        assert outcomes() == ["OK", "UNAVAILABLE"]
        with reloading(facade):
            files.write(server, old.pem + new.pem)
        assert outcomes() == ["OK", "OK"]
        with reloading(facade):
            files.write(server, new.pem)
        assert outcomes() == ["UNAVAILABLE", "OK"]


def test_certificates_and_authorities_are_rotated_under_load_without_a_failed_call(
    upstream: Upstream, tmp_path: Path
) -> None:
    old, new = Authority("Old"), Authority("New")
    both = old.pem + new.pem
    files = Files.make(tmp_path, old.issue(HOST), old.pem)
    caller = old.issue(ORDERS)
    outcomes: list[str] = []
    with serve(upstream, *files.mutual) as facade, ThreadPoolExecutor(4) as pool:
        rotated = threading.Event()

        def load() -> None:
            while not rotated.is_set():
                # Each time with a handshake, by what callers have at this moment, who trust both.
                outcomes.append(outcome(facade.address, both, caller))

        loads = [pool.submit(load) for _ in range(4)]
        steps = [
            (old.issue(HOST), old.pem),
            (old.issue(HOST), both),
            (new.issue(HOST), both),
            (new.issue(HOST), new.pem),
            (new.issue(HOST), new.pem),
        ]
        for server, client_ca in steps:
            if client_ca == new.pem:
                caller = new.issue(ORDERS)
                # What began with the old one comes to its end.
                seen = len(outcomes)
                wait_for(lambda seen=seen: len(outcomes) > seen + 8)  # type: ignore[misc]
            with reloading(facade):
                files.write(server, client_ca)
            assert served_to(facade.address, both, caller, tmp_path) == der(server)
        wait_for(lambda: len(outcomes) >= 200, seconds=60)
        rotated.set()
        for each in loads:
            each.result()
    assert set(outcomes) == {"OK"}, outcomes


def served_to(address: str, roots: bytes, caller: Certificate, directory: Path) -> bytes:
    """Return the certificate, as DER, that this caller gets to see."""
    context = ssl.create_default_context(cadata=roots.decode())
    context.load_cert_chain(*caller.write(directory, "caller"))
    context.set_alpn_protocols(["h2"])
    with closing(tls(address, context)) as connection:
        return connection.getpeercert(binary_form=True) or b""


# Files that are bad


def encrypted(authority: Authority) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    return authority.issue(HOST, key=key)._replace(key=locked)


GOOD = Authority("Good")
SERVER = GOOD.issue(HOST)

BAD: dict[str, tuple[Certificate, bytes, str]] = {
    "no certificate": (SERVER._replace(chain=b""), GOOD.pem, "--tls-certificate: .*no certificates in PEM"),
    "garbage": (SERVER._replace(chain=bytes(range(256))), GOOD.pem, "--tls-certificate: .*no certificates in PEM"),
    "half a certificate": (SERVER._replace(chain=SERVER.chain[:-40]), GOOD.pem, "--tls-certificate: .*in PEM"),
    "a chain with half a certificate": (
        SERVER._replace(chain=SERVER.chain + GOOD.pem[:-40]),
        GOOD.pem,
        "--tls-certificate: .*a broken one",
    ),
    "a key for a certificate": (SERVER._replace(chain=SERVER.key), GOOD.pem, "--tls-certificate: .*in PEM"),
    "no key": (SERVER._replace(key=b""), GOOD.pem, "--tls-key: .*no usable private key in PEM"),
    "half a key": (SERVER._replace(key=SERVER.key[:-40]), GOOD.pem, "--tls-key: .*no usable private key in PEM"),
    "a key with a passphrase": (encrypted(GOOD), GOOD.pem, "--tls-key: .*without a passphrase"),
    "the key of another": (GOOD.issue(HOST)._replace(key=SERVER.key), GOOD.pem, "--tls-key: .*is not the key of"),
    "a key of another kind": (
        SERVER._replace(key=GOOD.issue(HOST, key=rsa.generate_private_key(65537, 2048)).key),
        GOOD.pem,
        "--tls-key: .*is not the key of",
    ),
    "expired": (GOOD.issue(HOST, ends=-HOUR), GOOD.pem, "--tls-certificate: .*certificate has expired"),
    "a curve that TLS lacks": (
        GOOD.issue(HOST, key=ec.generate_private_key(ec.SECP256K1())),
        GOOD.pem,
        "--tls-certificate: .*not fit for TLS",
    ),
    "a weak key": (
        GOOD.issue(HOST, key=rsa.generate_private_key(65537, 1024)),
        GOOD.pem,
        "--tls-certificate: .*not fit for TLS",
    ),
    "no authority": (SERVER, b"", "--tls-client-ca: .*no certificates in PEM"),
    "half an authority": (SERVER, GOOD.pem + GOOD.pem[:-40], "--tls-client-ca: .*a broken one"),
    "umlauts": (SERVER, "Autorität".encode(), "--tls-client-ca: .*no certificates in PEM"),
}


@pytest.mark.parametrize(("server", "client_ca", "said"), BAD.values(), ids=BAD)
def test_files_that_are_bad_stop_the_start(tmp_path: Path, server: Certificate, client_ca: bytes, said: str) -> None:
    assert re.search(said, refusal(2, *Files.make(tmp_path, server, client_ca).mutual))


@pytest.mark.parametrize("flag", ["--tls-certificate", "--tls-key", "--tls-client-ca"])
def test_files_that_cannot_be_read_stop_the_start(tmp_path: Path, flag: str) -> None:
    flags = list(Files.make(tmp_path, SERVER, GOOD.pem).mutual)
    place = flags.index(flag) + 1
    flags[place] = str(tmp_path / "nothing")
    assert f"{flag}: {tmp_path / 'nothing'}: No such file or directory" in refusal(2, *flags)
    flags[place] = str(tmp_path)
    assert f"{flag}: {tmp_path}: Is a directory" in refusal(2, *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tls-certificate", "a"), "one needs the other"),
        (("--tls-key", "a"), "one needs the other"),
        (("--tls-client-ca", "a"), "--tls-client-ca: needs --tls-certificate"),
        (("--tls-certificate", "a\nb", "--tls-key", "c"), "--tls-certificate: must be a path"),
    ],
)
def test_half_of_the_settings_stops_the_start(flags: tuple[str, ...], said: str) -> None:
    assert said in refusal(2, *flags)


@pytest.fixture(scope="module")
def kept(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Facade, Files]]:
    """One server for all bad files."""
    files = Files.make(tmp_path_factory.mktemp("kept"), SERVER, GOOD.pem)
    with serve(upstream, *files.mutual, "--log-level", "debug") as facade:
        yield facade, files


@pytest.mark.parametrize("name", ["garbage", "no key", "the key of another", "expired", "half an authority"])
def test_new_files_that_are_bad_leave_the_old_ones_in_force_and_are_told(kept: tuple[Facade, Files], name: str) -> None:
    facade, files = kept
    server, client_ca, said = BAD[name]
    before = len(complaints(facade))
    files.write(server, client_ca)
    wait_for(lambda: any(re.search(said, line) for line in complaints(facade)[before:]))
    assert outcome(facade.address, GOOD.pem, GOOD.issue(ORDERS)) == "OK"
    with reloading(facade):
        files.write(SERVER, GOOD.pem)
    assert not any("PRIVATE KEY" in line or key_text(SERVER) in line for line in facade.log)


def key_text(certificate: Certificate) -> str:
    """Return a piece of the key that nothing else holds."""
    return certificate.key.decode().splitlines()[1]


def test_files_that_vanish_leave_the_old_ones_in_force_and_are_told_once(kept: tuple[Facade, Files]) -> None:
    facade, files = kept
    before = len(complaints(facade))
    files.key.unlink()
    wait_for(lambda: len(complaints(facade)) > before)
    time.sleep(3)  # a few looks later
    assert len(complaints(facade)) == before + 1
    assert "No such file or directory" in complaints(facade)[-1]
    assert outcome(facade.address, GOOD.pem, GOOD.issue(ORDERS)) == "OK"
    with reloading(facade):
        files.write(SERVER, GOOD.pem)


# What is told


def test_the_settings_in_the_log_are_paths_and_no_keys(kept: tuple[Facade, Files]) -> None:
    facade, files = kept
    settings = next(json.loads(line) for line in facade.log if '"tls_key"' in line)
    assert [settings[name] for name in ("tls_certificate", "tls_key", "tls_client_ca")] == [str(path) for path in files]
