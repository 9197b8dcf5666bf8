"""What anybody can send to the port: the server lives, goes on answering others, and says nothing of its insides.

The broken HTTP/2 is seeded, so that a failure comes again: https://www.rfc-editor.org/rfc/rfc9113
"""

import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import grpc
import pytest
from calls import ANSWER, provision
from facade import Facade, environment, logged, serve
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream
from waiting import wait_for

SEED = 20261121
SERVICE = "/servicecatalog.v1.ProvisioningService/"
METHOD = f"{SERVICE}ProvisionProduct"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
GOOD = provision().SerializeToString()

# Paths, modules, exceptions and addresses in memory: what no caller should learn.
INSIDES = re.compile(
    r"\.py\b|\.pyx|Traceback|<class|0x[0-9a-f]{9}|site-packages|servicecatalog_grpc|botocore|cygrpc|/src/|/server/|"
    r"[A-Z]\w+(Error|Exception)\b"
)

Strings = Sequence[tuple[str, str | bytes]]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """In the place of AWS; it takes everything."""
    with closing(Upstream()) as server:
        server.behave(ANSWER)
        yield server


@pytest.fixture(scope="module")
def facade(upstream: Upstream) -> Iterator[Facade]:
    """One server for all that is sent to it."""
    env = environment(upstream.url)
    with Facade("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1", env=env) as running:
        yield running


@pytest.fixture(autouse=True)
def others(facade: Facade) -> Iterator[list[float]]:
    """Somebody else, who calls all the while and is answered; the list has how long each call took, in seconds."""
    times: list[float] = []
    failed: list[grpc.RpcError] = []
    over = threading.Event()

    def call() -> None:
        with grpc.insecure_channel(facade.address) as channel:
            stub = ProvisioningServiceStub(channel)
            while not over.wait(0.01):
                began = time.monotonic()
                try:
                    stub.ProvisionProduct(provision(), timeout=5)
                except grpc.RpcError as error:
                    failed.append(error)
                times.append(time.monotonic() - began)

    logged = len(facade.log)
    caller = threading.Thread(target=call)
    caller.start()
    yield times
    so_far = len(times)
    wait_for(lambda: len(times) > so_far + 1)
    over.set()
    caller.join()
    assert failed == []
    assert max(times) < 2
    assert facade.process.poll() is None
    assert [line for line in facade.log[logged:] if re.search(r"\b(Traceback|ERROR)\b", line)] == []


# HTTP/2 by hand


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(fields: Strings) -> bytes:
    """Return the block of HPACK: each field literally, without an index (https://www.rfc-editor.org/rfc/rfc7541)."""
    block = b""
    for name, value in fields:
        block += b"\0"
        for text in (name, value):
            data = text.encode() if isinstance(text, str) else text
            size = len(data)
            if size < 127:
                block += bytes([size])
            else:
                size -= 127
                block += b"\x7f"
                while size >= 128:
                    block += bytes([size % 128 + 128])
                    size //= 128
                block += bytes([size])
            block += data
    return block


def call_fields(*more: tuple[str, str | bytes], **changed: str | bytes | None) -> list[tuple[str, str | bytes]]:
    """Return the headers of a good call, with those named otherwise changed or, if None, left out."""
    fields: dict[str, str | bytes | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": METHOD,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    fields |= {
        name.replace("_", "-") if name in {"content_type", "te"} else f":{name}": v for name, v in changed.items()
    }
    return [*((name, value) for name, value in fields.items() if value is not None), *more]


def message(data: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return gRPC's frame of a message: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md"""
    return bytes([flag]) + (len(data) if length is None else length).to_bytes(4, "big") + data


def call(fields: Strings, body: bytes = message(GOOD), stream: int = 1) -> bytes:
    """Return the frames of one call."""
    return frame(HEADERS, END_HEADERS, stream, headers(fields)) + frame(DATA, END_STREAM, stream, body)


def hello(*frames: bytes) -> bytes:
    return PREFACE + frame(SETTINGS) + b"".join(frames)


def send(facade: Facade, data: bytes, *, seconds: float = 0.3) -> bytes:
    """Send the bytes on a connection of their own; return what comes back until it is closed or so long silent."""
    host, _, port = facade.address.rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        with suppress(OSError):
            connection.sendall(data)
        connection.settimeout(seconds)
        with suppress(OSError):
            while chunk := connection.recv(65536):
                received += chunk
                if b"grpc-status" in received and b"grpc-message" in received:
                    break
    return received


def check_silent(received: bytes) -> None:
    assert not INSIDES.search(received.decode("latin-1")), received


def test_the_call_that_the_broken_ones_are_made_from_is_a_good_one(facade: Facade, upstream: Upstream) -> None:
    upstream.behave(ANSWER)
    received = send(facade, hello(call(call_fields(("idempotency-key", "from-the-wire")))))
    assert b"idempotency-token" in received
    assert b"rec-1" in received
    assert any(request.json["ProvisionToken"].startswith("key-") for request in upstream.requests)


def random_bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 2000))


def random_bytes_after_the_preface(chance: random.Random) -> bytes:
    return hello() + random_bytes(chance)


def random_frames(chance: random.Random) -> bytes:
    return hello(
        *(
            frame(
                chance.randrange(12),
                chance.randrange(256),
                chance.choice([0, 1, 1, 2, 3, 2**31 - 1]),
                chance.randbytes(chance.choice([0, 1, 4, 5, 6, 8, 50])),
            )
            for _ in range(chance.randrange(1, 20))
        )
    )


def cut_calls(chance: random.Random) -> bytes:
    whole = hello(call(call_fields()))
    return whole[: chance.randrange(1, len(whole))]


def flipped_bits(chance: random.Random) -> bytes:
    empty = message(b"")
    whole = bytearray(hello(call(call_fields(("idempotency-key", "k")), empty), call(call_fields(), empty, stream=3)))
    for _ in range(chance.randrange(1, 8)):
        # Never the eighth bit: all of this is ASCII, and so stays text.
        whole[chance.randrange(len(PREFACE), len(whole))] ^= 1 << chance.randrange(7)
    return bytes(whole)


@pytest.mark.parametrize("kind", [random_bytes, random_bytes_after_the_preface, random_frames, cut_calls, flipped_bits])
def test_broken_http2_by_chance(facade: Facade, kind: Callable[[random.Random], bytes]) -> None:
    chance = random.Random(SEED)
    for _ in range(30):
        check_silent(send(facade, kind(chance), seconds=0.03))


FLOOD = 300
BROKEN: dict[str, bytes] = {
    "http1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100f4010000f00303") + bytes(244),
    "half-preface": PREFACE[:10],
    "wrong-preface": PREFACE.replace(b"SM", b"XX") + frame(SETTINGS),
    "no-settings": PREFACE + call(call_fields()),
    "settings-flood": hello(*[frame(SETTINGS)] * FLOOD),
    "settings-of-odd-length": hello(frame(SETTINGS, payload=b"12345")),
    "ping-flood": hello(*[frame(PING, payload=bytes(8))] * FLOOD),
    "empty-data-flood": hello(frame(HEADERS, END_HEADERS, 1, headers(call_fields())), *[frame(DATA, 0, 1)] * FLOOD),
    "rapid-reset": hello(
        *(
            frame(HEADERS, END_HEADERS, stream, headers(call_fields())) + frame(RST_STREAM, 0, stream, bytes(4))
            for stream in range(1, 2 * FLOOD, 2)
        )
    ),
    "window-overflow": hello(*[frame(WINDOW_UPDATE, payload=b"\x7f\xff\xff\xff")] * 3),
    "window-of-zero": hello(frame(WINDOW_UPDATE, payload=bytes(4))),
    "huge-frame": hello(frame(DATA, 0, 1, b"x" * 1000, length=2**24 - 1)),
    "data-without-headers": hello(frame(DATA, END_STREAM, 1, message(GOOD))),
    "even-stream": hello(call(call_fields(), stream=2)),
    "stream-again": hello(call(call_fields()), call(call_fields())),
    "continuation-alone": hello(frame(CONTINUATION, END_HEADERS, 1, headers(call_fields()))),
    "continuation-flood": hello(
        frame(HEADERS, 0, 1, headers(call_fields())), *[frame(CONTINUATION, 0, 1, headers([("x", "y")]))] * FLOOD
    ),
    "no-end-of-headers": hello(frame(HEADERS, 0, 1, headers(call_fields())), frame(DATA, END_STREAM, 1, b"")),
    "bad-hpack": hello(frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff")),
    "hpack-index-of-nothing": hello(frame(HEADERS, END_HEADERS, 1, b"\xbf")),
    "no-path": hello(call(call_fields(path=None))),
    "empty-path": hello(call(call_fields(path=""))),
    "no-method": hello(call(call_fields(method=None))),
    "get": hello(call(call_fields(method="GET"))),
    "no-scheme": hello(call(call_fields(scheme=None))),
    "no-authority": hello(call(call_fields(authority=None))),
    "no-te": hello(call(call_fields(te=None))),
    "no-content-type": hello(call(call_fields(content_type=None))),
    "text-plain": hello(call(call_fields(content_type="text/plain"))),
    "grpc-web": hello(call(call_fields(content_type="application/grpc-web+proto"))),
    "json": hello(call(call_fields(content_type="application/grpc+json"))),
    "upper-case-name": hello(call(call_fields(("X-Upper", "y")))),
    "zero-in-a-value": hello(call(call_fields(("x-zero", b"a\0b")))),
    "line-break-in-a-value": hello(call(call_fields(("x-line", b"a\r\nb: c")))),
    "bad-timeout": hello(call(call_fields(("grpc-timeout", "soon")))),
    "negative-timeout": hello(call(call_fields(("grpc-timeout", "-1S")))),
    "no-time": hello(call(call_fields(("grpc-timeout", "0n")))),
    "endless-timeout": hello(call(call_fields(("grpc-timeout", "99999999H")))),
    "huge-header": hello(
        frame(HEADERS, 0, 1, headers(call_fields())),
        *[frame(CONTINUATION, 0, 1, headers([("x-big", "y" * 16000)]))] * 8,
        frame(CONTINUATION, END_HEADERS, 1, headers([("x-last", "y")])),
        frame(DATA, END_STREAM, 1, message(GOOD)),
    ),
    "many-headers": hello(
        frame(HEADERS, END_HEADERS, 1, headers([*call_fields(), *((f"x-{n}", "y" * 20) for n in range(500))])),
        frame(DATA, END_STREAM, 1, message(GOOD)),
    ),
    "compressed-without-encoding": hello(call(call_fields(), message(GOOD, flag=1))),
    "unknown-encoding": hello(call(call_fields(("grpc-encoding", "rot13")), message(GOOD, flag=1))),
    "not-gzip": hello(call(call_fields(("grpc-encoding", "gzip")), message(GOOD, flag=1))),
    "unknown-flag": hello(call(call_fields(), message(GOOD, flag=0x7E))),
    "shorter-than-said": hello(call(call_fields(), message(GOOD, length=len(GOOD) + 9))),
    "endless-message": hello(call(call_fields(), message(GOOD, length=2**32 - 1))),
    "no-message": hello(call(call_fields(), b"")),
    "two-messages": hello(call(call_fields(), message(GOOD) * 2)),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_http2(facade: Facade, data: bytes) -> None:
    check_silent(send(facade, data))


# Well-formed gRPC


@pytest.fixture(scope="module")
def channel(facade: Facade) -> Iterator[Any]:  # the stubs of a channel know of messages alone
    """A channel that sends whatever it is told to."""
    options = (
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 2**20),
        ("grpc.absolute_max_metadata_size", 2**20),
    )
    with grpc.insecure_channel(facade.address, options) as wide:
        yield wide


def refusal(channel: Any, method: str, data: bytes, **more: Any) -> grpc.StatusCode:
    """Send the bytes as a message, see that nothing is said of the server's insides, and return the code."""
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(method)(data, timeout=10, **more)
    failed: Any = raised.value
    assert not INSIDES.search(failed.details()), failed.details()
    assert not INSIDES.search(str(failed.trailing_metadata()))
    code: grpc.StatusCode = failed.code()
    return code


@pytest.mark.parametrize("size", [2**20 + 1, 8 * 2**20])
def test_a_message_over_a_mebibyte_is_too_big(channel: Any, size: int) -> None:
    assert refusal(channel, METHOD, bytes(size)) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_that_unpacks_to_over_a_mebibyte_is_too_big(channel: Any) -> None:
    code = refusal(channel, METHOD, bytes(32 * 2**20), compression=grpc.Compression.Gzip)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size", [17 * 1024, 200 * 1024])
def test_metadata_over_16_kibibytes_are_too_big(channel: Any, size: int) -> None:
    assert refusal(channel, METHOD, GOOD, metadata=(("x-big", "y" * size),)) == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "method",
    [
        f"{SERVICE}Nope",
        "/no.such.Service/Nope",
        f"{METHOD}/More",
        SERVICE,
        "/",
        "nope",
        "/" + "x" * 4000,
        f"{METHOD}%00",
    ],
    ids=["method", "service", "longer", "no-method", "slash", "no-slash", "long", "escape"],
)
def test_a_method_that_nobody_serves_is_unimplemented(channel: Any, method: str) -> None:
    assert refusal(channel, method, GOOD) == grpc.StatusCode.UNIMPLEMENTED


def test_fields_that_the_contract_lacks_are_refused(channel: Any, upstream: Upstream) -> None:
    upstream.behave(ANSWER)
    unknown = b"\xfa\x7f\x03abc"
    assert refusal(channel, METHOD, GOOD + unknown) == grpc.StatusCode.INVALID_ARGUMENT
    assert upstream.requests == []


def test_a_key_in_binary_metadata_is_no_idempotency_key(channel: Any, upstream: Upstream) -> None:
    answer, made = channel.unary_unary(METHOD).with_call(
        GOOD, timeout=10, metadata=(("idempotency-key-bin", b"\xff\0\xfe"),)
    )
    assert b"rec-1" in answer
    assert dict(made.initial_metadata())["idempotency-token"].startswith("rnd-")


@pytest.mark.parametrize("path", [b"/\xff", b"/serv\xe9ce/Method"])
def test_a_path_that_is_no_text_does_not_end_the_server_for_everybody(upstream: Upstream, path: bytes) -> None:
    upstream.behave(ANSWER)
    with serve(upstream.url) as facade, grpc.insecure_channel(facade.address) as channel:
        stub = ProvisioningServiceStub(channel)
        stub.ProvisionProduct(provision(), timeout=5)
        send(facade, hello(call(call_fields(path=path))))
        time.sleep(0.2)
        stub.ProvisionProduct(provision(), timeout=5)


@pytest.mark.parametrize("name", ["idempotency-key", "x-request-id", "authorization"])
def test_bytes_in_metadata_are_logged_neither_with_their_value_nor_with_a_traceback(
    upstream: Upstream, name: str
) -> None:
    upstream.behave(ANSWER)
    with serve(upstream.url) as facade:
        check_silent(send(facade, hello(call(call_fields((name, b"\xff\xfe-canary"))))))
    assert not logged(facade, "canary")


def test_a_message_longer_than_said(upstream: Upstream) -> None:
    with serve(upstream.url) as facade:
        check_silent(send(facade, hello(call(call_fields(), message(GOOD, length=3)))))


NO_PROTOBUF = (b"\xff\xff\xff", b"\x0b" * 2000)


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        (METHOD, (*NO_PROTOBUF, b"\x12\x02\xff\xfe", GOOD[:3])),
        ("/servicecatalog.v1.ProvisioningService/UpdateProvisionedProduct", NO_PROTOBUF),
        ("/servicecatalog.v1.RecordService/WatchRecord", NO_PROTOBUF),
        ("/grpc.health.v1.Health/Check", NO_PROTOBUF),
        ("/grpc.health.v1.Health/Watch", NO_PROTOBUF),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", NO_PROTOBUF),
    ],
)
def test_broken_protobuf_is_a_bad_request(method: str, broken: tuple[bytes, ...]) -> None:
    upstream = Upstream()
    upstream.behave(ANSWER)
    with serve(upstream.url) as facade, grpc.insecure_channel(facade.address) as channel:
        for data in broken:
            assert refusal(channel, method, data) == grpc.StatusCode.INVALID_ARGUMENT
    assert upstream.requests == []
    assert not logged(facade, "ERROR")
    upstream.close()
