"""`servicecatalog-grpc health` against servers of all kinds, from beside them and from within their containers."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import HOUR, Authority
from facade import COMMAND, Facade, environment
from tools import need_ipv6

SERVERS, CALLERS = Authority("Servers"), Authority("Callers")
SPIFFE = "spiffe://example.org/ns/shop/sa/facade"
OK, FAILED, USAGE = 0, 1, 2


def health(*flags: str, **variables: str) -> tuple[int, str]:
    """Return the exit status, and the one line that was said."""
    command = [str(COMMAND), "health", *flags]
    ended = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=30, check=False
    )
    said = ended.stdout + ended.stderr
    assert re.fullmatch(r".+\n", said), said
    return ended.returncode, said


def variables(**settings: object) -> dict[str, str]:
    return {f"SERVICECATALOG_GRPC_{name.upper()}": str(value) for name, value in settings.items()}


# Where to ask


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"])
def test_it_asks_where_the_server_of_its_container_listens(listen: str) -> None:
    if listen.startswith("["):
        need_ipv6()
    with Facade("serve", "--listen", listen, env=environment()) as facade:
        assert health(**variables(listen=facade.address)) == (OK, "SERVING\n")
    assert health(**variables(listen=facade.address))[0] == FAILED


def test_an_address_that_is_given_wins(tmp_path: Path) -> None:
    with Facade("serve", "--listen", f"unix:{tmp_path / 'socket'}", env=environment()) as facade:
        assert health("--address", facade.address, **variables(listen="127.0.0.1:1")) == (OK, "SERVING\n")


# TLS


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of these tests are."""
    directory = tmp_path_factory.mktemp("certificates")
    SERVERS.write(directory / "servers.pem")
    CALLERS.write(directory / "callers.pem")
    (directory / "empty.pem").touch()
    SERVERS.issue("facade.example.org", "127.0.0.1").write(directory, "server")
    SERVERS.issue("facade.example.org").write(directory, "named")
    CALLERS.issue(SPIFFE, "facade.example.org").write(directory, "workload")
    CALLERS.issue(SPIFFE).write(directory, "nameless")
    CALLERS.issue("health").write(directory, "caller")
    CALLERS.issue("health", ends=-HOUR).write(directory, "expired")
    return directory


def pair(directory: Path, name: str) -> tuple[str, ...]:
    return ("--tls-certificate", str(directory / f"{name}.pem"), "--tls-key", str(directory / f"{name}.key"))


@pytest.fixture(scope="module")
def tls(directory: Path) -> Iterator[Facade]:
    """A server that lets anybody in."""
    with Facade("serve", "--listen", "0.0.0.0:0", *pair(directory, "server"), env=environment()) as facade:
        yield facade


@pytest.fixture(scope="module")
def mutual(directory: Path) -> Iterator[Facade]:
    """A server whose own certificate is of the same authority as those of its callers."""
    flags = (*pair(directory, "workload"), "--tls-client-ca", str(directory / "callers.pem"))
    with Facade("serve", "--listen", "0.0.0.0:0", *flags, env=environment()) as facade:
        yield facade


def test_a_server_with_tls_is_asked_by_its_authority(tls: Facade, directory: Path) -> None:
    where = variables(listen=tls.address)
    assert health("--tls-ca", str(directory / "servers.pem"), **where) == (OK, "SERVING\n")
    assert health("--tls-ca", str(directory / "callers.pem"), **where)[0] == FAILED
    assert health(**where)[0] == FAILED
    assert health("--tls-ca", str(directory / "servers.pem"), "--service", "no.Such", **where)[0] == FAILED


def test_a_server_is_asked_by_the_name_in_its_certificate(directory: Path) -> None:
    with Facade("serve", "--listen", "127.0.0.1:0", *pair(directory, "named"), env=environment()) as facade:
        flags = ("--address", facade.address, "--tls-ca", str(directory / "servers.pem"))
        assert health(*flags)[0] == FAILED
        assert health(*flags, "--tls-name", "facade.example.org") == (OK, "SERVING\n")


def test_a_server_with_tls_on_a_unix_socket_is_asked_by_the_name_in_its_certificate(
    directory: Path, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    with Facade("serve", "--listen", address, *pair(directory, "named"), env=environment()):
        flags = ("--tls-ca", str(directory / "servers.pem"), "--tls-name", "facade.example.org")
        assert health(*flags, **variables(listen=address)) == (OK, "SERVING\n")


def test_a_server_that_wants_certificates_is_asked_with_one(mutual: Facade, directory: Path) -> None:
    flags = ("--tls-ca", str(directory / "callers.pem"), "--tls-name", "facade.example.org")
    where = variables(listen=mutual.address)
    assert health(*flags, **where)[0] == FAILED
    assert health(*flags, *pair(directory, "server"), **where)[0] == FAILED
    assert health(*flags, *pair(directory, "caller"), **where) == (OK, "SERVING\n")


@pytest.mark.parametrize("name", ["server", "workload"])
def test_within_its_container_a_server_is_asked_with_its_own_files_and_no_flags(
    request: pytest.FixtureRequest, directory: Path, name: str
) -> None:
    facade = request.getfixturevalue({"server": "tls", "workload": "mutual"}[name])
    own = variables(listen=facade.address, tls_certificate=directory / f"{name}.pem", tls_key=directory / f"{name}.key")
    assert health(**own) == (OK, "SERVING\n")
    other = variables(tls_certificate=directory / "named.pem", tls_key=directory / "named.key")
    assert health(**own | other)[0] == FAILED


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tls-certificate", "server.pem"), "one needs the other"),
        (("--tls-key", "server.key"), "one needs the other"),
        (("--tls-ca", "nothing.pem"), "--tls-ca: .*No such file"),
        (("--tls-ca", "empty.pem"), "--tls-ca: .*no certificates in PEM"),
        (("--tls-certificate", "server.pem", "--tls-key", "named.key"), "--tls-key: .*is not the key of"),
        (("--tls-certificate", "expired.pem", "--tls-key", "expired.key"), "--tls-certificate: .*has expired"),
        (("--tls-certificate", "nameless.pem", "--tls-key", "nameless.key"), "--tls-certificate: .*names no host"),
    ],
)
def test_files_that_are_bad_are_a_usage_error(directory: Path, flags: tuple[str, ...], said: str) -> None:
    there = [flag if flag.startswith("--") else str(directory / flag) for flag in flags]
    status, line = health(*there)
    assert status == USAGE
    assert re.search(said, line)
