"""Addresses: a Unix socket for its owner and group alone, and a port that no other server has a part of."""

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from facade import COMMAND, Facade, environment
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tools import need_ipv6

MODE = 0o140660  # a socket, read and write for owner and group


def serve_at(address: str) -> Facade:
    return Facade("serve", "--listen", address, env=environment())


def serves(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        answer: health_pb2.HealthCheckResponse = check(health_pb2.HealthCheckRequest(), timeout=10)
        return answer.status == health_pb2.HealthCheckResponse.SERVING


def refusal(address: str) -> str:
    """See a server not start at the address, and return its one line."""
    command = [str(COMMAND), "serve", "--listen", address]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert re.fullmatch(r"servicecatalog-grpc: cannot listen on .*\n", ended.stderr), ended.stderr
    return ended.stderr


# Unix sockets


@contextmanager
def modes_of(path: Path) -> Iterator[set[int]]:
    """Yield the modes that the path has while the block runs, from its first moment on."""
    modes: set[int] = set()
    stopped = threading.Event()

    def look() -> None:
        while not stopped.is_set():
            with suppress(FileNotFoundError):
                modes.add(path.stat().st_mode)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield modes
    finally:
        stopped.set()
        thread.join()


def test_a_unix_socket_is_for_its_owner_and_group_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with modes_of(path) as modes, serve_at(f"unix:{path}"):
        assert serves(f"unix:{path}")
    assert modes == {MODE}


def test_a_socket_that_somebody_left_gets_the_mode_of_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    path.chmod(0o777)
    with serve_at(f"unix:{path}"):
        assert path.stat().st_mode == MODE
        assert serves(f"unix:{path}")


def test_a_socket_in_use_is_left_to_its_server(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    with serve_at(address):
        assert "in use" in refusal(address)
        assert serves(address)


def test_a_socket_of_a_server_too_busy_to_accept_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        assert "in use" in refusal(f"unix:{path}")
        assert path.is_socket()


# Ports


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("127.0.0.1", "[::]"),
        ("[::]", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("localhost", "127.0.0.1"),
    ],
)
def test_a_port_belongs_to_one_server(first: str, second: str) -> None:
    if "[::]" in (first, second):
        need_ipv6()
    with serve_at(f"{first}:0") as facade:
        port = facade.address.rpartition(":")[2]
        assert "in use" in refusal(f"{second}:{port}")
        assert serves(f"127.0.0.1:{port}")


def test_all_addresses_are_those_of_ipv6_too() -> None:
    need_ipv6()
    with serve_at("0.0.0.0:0") as facade:
        assert serves(f"[::1]:{facade.address.rpartition(':')[2]}")


@pytest.mark.parametrize("part", ["127.0.0.1", "::1"])
def test_a_name_of_which_another_server_has_one_address_is_in_use(part: str) -> None:
    """Though gRPC would be content with the other one, if the name has two."""
    if part not in {info[4][0] for info in socket.getaddrinfo("localhost", 0)}:
        pytest.skip(f"localhost is not {part} here")
    family = socket.AF_INET6 if ":" in part else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((part, 0))
        taken.listen()
        assert "in use" in refusal(f"localhost:{taken.getsockname()[1]}")


def test_a_port_whose_last_connections_linger_is_free() -> None:
    with serve_at("127.0.0.1:0") as facade, grpc.insecure_channel(facade.address) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        # The server hangs up first, so the connection lingers on its side.
        assert facade.stop() == 0
        with serve_at(facade.address):
            assert serves(facade.address)


@pytest.mark.parametrize(
    ("address", "reason"),
    [("nobody.invalid:50051", "name"), ("192.0.2.1:50051", "requested address")],
)
def test_an_address_that_is_not_of_this_host_is_told_with_the_reason(address: str, reason: str) -> None:
    line = refusal(address)
    assert address in line
    assert reason in line.lower()
