"""How requests go to AWS over the wire, and what answers, proxies, certificates and endings of all kinds do to a call."""

import base64
import gzip
import json
import re
import selectors
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from aws_recorder import signature_of
from calls import provision
from certificates import HOUR, Authority, Certificate
from facade import Facade, environment, refusal
from google.protobuf.json_format import MessageToDict
from grpc import StatusCode
from process import Health
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.telemetry.call import token_digest
from status import Details
from upstream import REQUEST_ID, Behaviour, Connections, Request, Upstream, silence, unread, until
from waiting import wait_for

HOST = "127.0.0.1"

# What a start logs before it fails is not what it fails with.
QUIET = ("--log-level", "error")
MAX_RESPONSE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Sent(Request):
    """A request with its lines as they came, and the number of the connection by which it came."""

    lines: tuple[str, ...]
    connection: int

    @property
    def token(self) -> str:
        return str(self.json["ProvisionToken"])


class Wire:
    """A server in the place of AWS, behind TLS if it has a context for it, that keeps every byte of what it is sent.

    `behave` as with Upstream. `accepted` counts the connections, `open` those that the other side has not closed yet.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.requests: list[Sent] = []
        self._behaviours: list[Behaviour] = [echo]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._connections = Connections()
        self._connections.behave(self._serve)
        self.port = self._connections.port
        self.close = self._connections.close

    @property
    def accepted(self) -> int:
        return self._connections.accepted

    @property
    def open(self) -> int:
        return len(self._open)

    def behave(self, *behaviours: Behaviour) -> None:
        """Forget what was and end its connections; from now on do this, the last one for ever."""
        with self._lock:
            ending = tuple(self._open)
        for connection in ending:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_WR)  # of the socket below TLS
        wait_for(lambda: not self._open)  # so that no later call meets a connection that is about to end
        self.requests.clear()
        self._behaviours = list(behaviours)
        self._connections.accepted = 0

    def _serve(self, connection: socket.socket) -> None:
        number = self.accepted
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_side=True)
        with self._lock:
            self._open.add(connection)
        try:
            with connection, connection.makefile("rb") as stream:
                while (head := read_head(stream)) is not None:
                    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in head[1:])}
                    sent = Sent(headers, stream.read(int(headers.get("content-length", 0))), head, number)
                    with self._lock:
                        self.requests.append(sent)
                        behaviour = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
                    behaviour(connection, sent)
        finally:
            with self._lock:
                self._open.discard(connection)


def read_head(stream: Any) -> tuple[str, ...] | None:
    """Return the lines before an empty one, or None if there is nothing any more."""
    lines: list[str] = []
    while line := stream.readline():
        if line == b"\r\n":
            return tuple(lines)
        lines.append(line.decode("latin-1").removesuffix("\r\n"))
    return None


def record(token: str) -> bytes:
    """Return the body of an answer to the call with this token, whose record has it for its id."""
    return json.dumps({"RecordDetail": {"RecordId": token}}).encode()


def whole(body: bytes, *lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Return an answer with this body, its length and these header lines."""
    return head(b"Content-Length: %d" % len(body), *lines, start=start) + body


def head(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, b"x-amzn-RequestId: " + REQUEST_ID.encode(), *lines, b"", b""])


def chunked(body: bytes, *lines: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """Return an answer whose body comes in two chunks."""
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in (body[:9], body[9:]))
    return head(b"Transfer-Encoding: chunked", *lines) + chunks + b"0\r\n" + trailers + b"\r\n"


def answer(
    make: Callable[[bytes], bytes], *, ends: bool = False, pause: float | None = None, after: bytes = b""
) -> Behaviour:
    """Answer each call with what is made of its own body, byte by byte if there is a pause after each.

    `ends`: and leave, over TLS without a farewell.
    """

    def behaviour(connection: socket.socket, request: Request) -> None:
        content = make(record(request.json["ProvisionToken"])) + after
        for part in [content] if pause is None else [content[at : at + 1] for at in range(len(content))]:
            connection.sendall(part)
            time.sleep(pause or 0)
        if ends:
            raise ConnectionError

    return behaviour


echo = answer(whole)


@contextmanager
def facade_with(env: Mapping[str, str], *flags: str) -> Iterator[tuple[Facade, ProvisioningServiceStub]]:
    with (
        Facade("serve", "--listen", f"{HOST}:0", "--max-attempts", "1", *flags, env=dict(env)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield facade, ProvisioningServiceStub(channel)


def begin(stub: ProvisioningServiceStub, token: str, timeout: float = 20) -> Any:
    return stub.ProvisionProduct.future(provision(provision_token=token), timeout=timeout)


def succeed(stub: ProvisioningServiceStub, token: str) -> dict[str, str]:
    """Make the call, see it answered with the answer to itself, and return its trailing metadata."""
    call = begin(stub, token)
    assert call.code() == StatusCode.OK, call.details()
    assert MessageToDict(call.result()) == {"recordDetail": {"recordId": token}}
    return dict(call.trailing_metadata())


def fail(stub: ProvisioningServiceStub, token: str, timeout: float = 20) -> Details:
    """Make the call, see it fail, and return the details, which have its token."""
    with pytest.raises(grpc.RpcError) as raised:
        begin(stub, token, timeout).result()
    details = Details(raised.value)
    assert details.info.metadata["aws_operation"] == "ProvisionProduct"
    assert details.info.metadata["idempotency_token"] == token
    assert details.initial["idempotency-token"] == token
    return details


def check_unknown(details: Details) -> None:
    assert (details.code, details.info.reason) == (StatusCode.UNKNOWN, "OUTCOME_UNKNOWN")


def check_nothing_happened(details: Details) -> None:
    assert (details.code, details.info.reason) == (StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    assert "nothing happened" in details.message


def check_nothing_sent(details: Details) -> None:
    assert (details.code, details.info.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert "nothing was sent" in details.message


def environment_with(endpoint: str, **variables: str) -> dict[str, str]:
    """Return the variables of a façade in front of the endpoint, without proxies but for these."""
    env = {name: value for name, value in environment(endpoint).items() if not name.lower().endswith("_proxy")}
    return {**env, **variables}


# Over plain TCP


@pytest.fixture(scope="module")
def _plain() -> Iterator[tuple[Wire, Facade, ProvisioningServiceStub]]:
    with closing(Wire()) as wire, facade_with(environment(f"http://{HOST}:{wire.port}")) as (facade, stub):
        yield wire, facade, stub


@pytest.fixture
def wire(_plain: tuple[Wire, Facade, ProvisioningServiceStub]) -> Wire:
    """In the place of AWS, with no connection open."""
    _plain[0].behave(echo)
    return _plain[0]


@pytest.fixture
def facade(_plain: tuple[Wire, Facade, ProvisioningServiceStub]) -> Facade:
    """In front of `wire`."""
    return _plain[1]


@pytest.fixture
def stub(_plain: tuple[Wire, Facade, ProvisioningServiceStub]) -> ProvisioningServiceStub:
    """Of the façade in front of `wire`."""
    return _plain[2]


# The request


def test_the_request_is_what_was_signed_and_says_who_sends_it(wire: Wire, stub: ProvisioningServiceStub) -> None:
    succeed(stub, "order-17")
    (request,) = wire.requests
    assert request.lines[0] == "POST / HTTP/1.1"
    names = [line.partition(":")[0].lower() for line in request.lines[1:]]
    assert len(set(names)) == len(names)
    assert request.headers["host"] == f"{HOST}:{wire.port}"
    assert request.headers["content-length"] == str(len(request.body))
    assert request.headers["content-type"] == "application/x-amz-json-1.1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.target == "AWS242ServiceCatalogService.ProvisionProduct"
    agent = request.headers["user-agent"].split()
    assert agent[0].startswith("Boto3/")
    assert f"servicecatalog-grpc/{version('servicecatalog-grpc')}" in agent
    assert not {"expect", "transfer-encoding", "connection", "proxy-authorization"} & set(names)
    # The signature covers the host, and is right for the bytes that came.
    authorization = request.headers["authorization"]
    assert "host" in authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert authorization.endswith(f"Signature={signature_of(request, 'test')}")
    assert request.token == "order-17"


@pytest.mark.parametrize("path", ["", "/base"])
def test_an_endpoint_with_a_path_is_asked_there(path: str) -> None:
    with closing(Wire()) as wire, facade_with(environment(f"HTTP://LOCALHOST:{wire.port}{path}")) as (_, stub):
        succeed(stub, "token")
        (request,) = wire.requests
    assert request.lines[0] == f"POST {path or '/'} HTTP/1.1"
    assert request.headers["host"] == f"localhost:{wire.port}"


@pytest.mark.parametrize(
    "endpoint", ["https://aws.test/?stage=1", "https://aws.test/#stage", "ftp://aws.test", "https://"]
)
def test_an_endpoint_that_cannot_be_one_stops_the_start(endpoint: str) -> None:
    assert "no AWS client" in refusal(1, *QUIET, env=environment_with(endpoint))


def test_calls_one_after_the_other_share_a_connection(wire: Wire, stub: ProvisioningServiceStub) -> None:
    for number in range(10):
        succeed(stub, f"token-{number}")
    assert (wire.accepted, wire.open, len(wire.requests)) == (1, 1, 10)


def test_calls_at_the_same_time_have_connections_of_their_own_which_later_ones_use(
    wire: Wire, stub: ProvisioningServiceStub
) -> None:
    count = 20
    release = threading.Event()
    wire.behave(*[until(release, echo)] * count, echo)
    calls = [begin(stub, f"token-{number}") for number in range(count)]
    wait_for(lambda: len(wire.requests) == count)
    release.set()
    assert [call.result().record_detail.record_id for call in calls] == [f"token-{number}" for number in range(count)]
    for number in range(5):
        succeed(stub, f"later-{number}")
    calls = [begin(stub, f"again-{number}") for number in range(count)]
    assert [call.result().record_detail.record_id for call in calls] == [f"again-{number}" for number in range(count)]
    assert (wire.accepted, wire.open) == (count, count)
    assert len({request.connection for request in wire.requests[count : count + 5]}) == 1


# Answers


class Form(NamedTuple):
    """A form that an answer may have, and what becomes of its connection.

    `ends`: AWS closes it. `kept`: another request may come by it; otherwise the façade has to close it.
    """

    make: Callable[[bytes], bytes]
    kept: bool = True
    ends: bool = False


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nx-amzn-RequestId: of-the-hints\r\n\r\n"

FORMS = {
    "a length": Form(whole),
    "a length and Connection: keep-alive": Form(lambda body: whole(body, b"Connection: keep-alive")),
    "a length and Connection: close": Form(lambda body: whole(body, b"Connection: close"), kept=False),
    "HTTP/1.0": Form(lambda body: whole(body, start=b"HTTP/1.0 200 OK"), kept=False),
    "HTTP/1.0 and Connection: keep-alive": Form(
        lambda body: whole(body, b"Connection: keep-alive", start=b"HTTP/1.0 200 OK")
    ),
    "until the connection ends": Form(lambda body: head() + body, kept=False, ends=True),
    "HTTP/1.0 until the connection ends": Form(
        lambda body: head(start=b"HTTP/1.0 200 OK") + body, kept=False, ends=True
    ),
    "chunks": Form(chunked),
    "chunks and Connection: close": Form(lambda body: chunked(body, b"Connection: close"), kept=False),
    "chunks with extensions": Form(lambda body: chunked(body, extension=b';name="value"')),
    "chunks with trailers": Form(lambda body: chunked(body, trailers=b"x-checksum: 1\r\nx-other: 2\r\n")),
    "100 before it": Form(lambda body: INTERIM + whole(body)),
    "103 before it": Form(lambda body: HINTS + whole(body)),
    "100 and 103, twice each, before it": Form(lambda body: (INTERIM + HINTS) * 2 + chunked(body)),
    "no reason": Form(lambda body: whole(body, start=b"HTTP/1.1 200")),
    "names in capitals": Form(lambda body: whole(body).replace(b"Content-Length", b"CONTENT-LENGTH")),
    "no space after the colons": Form(lambda body: head(b"Content-Length:%d" % len(body)) + body),
    "an upgrade on offer": Form(lambda body: whole(body, b"Upgrade: h2c", b"Connection: Upgrade")),
}


@pytest.mark.parametrize("pause", [None, 0.0002], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_an_answer_is_understood(
    wire: Wire, stub: ProvisioningServiceStub, form: Form, pause: float | None
) -> None:
    wire.behave(answer(form.make, ends=form.ends, pause=pause))
    for token in ("first", "second"):
        assert succeed(stub, token)["x-amzn-requestid"] == REQUEST_ID
    assert len(wire.requests) == 2
    assert wire.accepted == (1 if form.kept else 2)
    wait_for(lambda: wire.open == (1 if form.kept else 0))


def test_a_long_header_costs_nothing_else(wire: Wire, stub: ProvisioningServiceStub) -> None:
    wire.behave(answer(lambda body: whole(body, b"x-long: " + b"a" * 1_000_000)))
    for token in ("first", "second"):
        assert succeed(stub, token)["x-amzn-requestid"] == REQUEST_ID


def test_a_trailer_does_not_change_a_header(wire: Wire, stub: ProvisioningServiceStub) -> None:
    """See https://www.rfc-editor.org/rfc/rfc9110#section-6.5.1."""
    wire.behave(answer(lambda body: chunked(body, trailers=b"x-amzn-RequestId: of-the-trailer\r\n")))
    assert succeed(stub, "token")["x-amzn-requestid"] == REQUEST_ID


def test_two_request_ids_cost_nothing_else(wire: Wire, stub: ProvisioningServiceStub) -> None:
    wire.behave(answer(lambda body: whole(body, b"X-Amzn-RequestId: another")))
    assert succeed(stub, "token").get("x-amzn-requestid") in (None, REQUEST_ID)


NO_ANSWERS = {
    "101": lambda _: head(b"Upgrade: h2c", b"Connection: Upgrade", start=b"HTTP/1.1 101 Switching Protocols"),
    "101 and what follows": lambda body: (
        head(b"Upgrade: x", b"Connection: Upgrade", start=b"HTTP/1.1 101 Switching Protocols") + whole(body)
    ),
    "204": lambda _: head(start=b"HTTP/1.1 204 No Content"),
    "gzip": lambda body: whole(gzip.compress(body), b"Content-Encoding: gzip"),
    "gzip in chunks": lambda body: chunked(gzip.compress(body), b"Content-Encoding: gzip"),
    "a coding that was not asked for": lambda body: head(b"Transfer-Encoding: gzip, chunked") + body,
    "a length and chunks": lambda body: chunked(body, b"Content-Length: 5"),
    "chunks in HTTP/1.0": lambda body: chunked(body).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"9\r\n", b"zz\r\n"),
    "HTTP/2": lambda _: b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
}


@pytest.mark.parametrize("pause", [None, 0.0002], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("make", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_after_what_is_no_answer_the_outcome_is_unknown(
    wire: Wire, stub: ProvisioningServiceStub, make: Callable[[bytes], bytes], pause: float | None
) -> None:
    wire.behave(answer(make, pause=pause), echo)
    check_unknown(fail(stub, "token"))
    succeed(stub, "next")
    assert [request.token for request in wire.requests] == ["token", "next"]


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"303 See Other", b"307 Temporary", b"308 Permanent"])
def test_a_redirect_is_not_followed(wire: Wire, stub: ProvisioningServiceStub, status: bytes) -> None:
    with closing(Wire()) as elsewhere:
        location = b"Location: http://%b:%d/" % (HOST.encode(), elsewhere.port)
        wire.behave(answer(lambda _: whole(b"", location, start=b"HTTP/1.1 " + status)))
        check_unknown(fail(stub, "token"))
        assert len(wire.requests) == 1
        assert elsewhere.accepted == 0


UNASKED = {
    "another answer": whole(record("nobody's")),
    "a timeout": whole(b"", b"Connection: close", start=b"HTTP/1.1 408 Request Timeout"),
    "an interim answer": INTERIM,
    "a byte": b"x",
}


@pytest.mark.parametrize("more", UNASKED.values(), ids=UNASKED)
def test_what_comes_with_an_answer_is_no_answer_to_the_next_call(
    wire: Wire, stub: ProvisioningServiceStub, more: bytes
) -> None:
    wire.behave(answer(whole, after=more))
    for number in range(3):
        succeed(stub, f"token-{number}")
    assert [request.connection for request in wire.requests] == [1, 2, 3]
    wait_for(lambda: wire.open == 0)


@pytest.mark.parametrize("more", UNASKED.values(), ids=UNASKED)
def test_what_comes_while_nothing_is_asked_is_no_answer_to_the_next_call(
    wire: Wire, stub: ProvisioningServiceStub, more: bytes
) -> None:
    idle = threading.Event()

    def and_later(connection: socket.socket, request: Request) -> None:
        echo(connection, request)
        idle.wait(10)
        connection.sendall(more)

    wire.behave(and_later, echo)
    succeed(stub, "first")
    idle.set()
    wait_for(lambda: wire.open == 0)
    succeed(stub, "second")
    assert [request.connection for request in wire.requests] == [1, 2]


@pytest.mark.parametrize("more", [b"", *UNASKED.values()], ids=["the end", *UNASKED])
def test_what_came_while_the_process_stood_still_is_no_answer_to_the_next_call(
    wire: Wire, facade: Facade, stub: ProvisioningServiceStub, more: bytes
) -> None:
    stands, said = threading.Event(), threading.Event()

    def and_later(connection: socket.socket, request: Request) -> None:
        echo(connection, request)
        stands.wait(10)
        connection.sendall(more)
        connection.shutdown(socket.SHUT_WR)
        said.set()

    wire.behave(and_later, echo)
    succeed(stub, "first")
    facade.process.send_signal(signal.SIGSTOP)
    try:
        stands.set()
        assert said.wait(10)
        call = begin(stub, "second")
        time.sleep(0.1)  # until the call has got there
    finally:
        facade.process.send_signal(signal.SIGCONT)
    assert call.result().record_detail.record_id == "second"
    assert [request.connection for request in wire.requests] == [1, 2]


# Answers without end


def _endless(start: bytes, part: bytes) -> Behaviour:
    def behaviour(connection: socket.socket, _: Request) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(part)

    return behaviour


def _distinct_headers(connection: socket.socket, _: Request) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    number = 0
    while True:
        connection.sendall(b"".join(b"%x:\r\n" % each for each in range(number, number + 10_000)))
        number += 10_000


ENDLESS = {
    "a header": _endless(b"HTTP/1.1 200 OK\r\nx-long: ", b"a" * 65536),
    "headers of one name": _endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 10_000),
    "headers of many names": _distinct_headers,
    "interim answers": _endless(b"", INTERIM * 2000),
    "a body": _endless(head(b"Content-Length: 1000000000000"), b" " * 65536),
    "a body without a length": _endless(head(), b" " * 65536),
    "large chunks": _endless(head(b"Transfer-Encoding: chunked"), b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "small chunks": _endless(head(b"Transfer-Encoding: chunked"), b"2\r\n  \r\n" * 10_000),
    "trailers": _endless(head(b"Transfer-Encoding: chunked") + b"0\r\n", b"a: b\r\n" * 10_000),
    "a line": _endless(b"HTTP/1.1 200 ", b"a" * 65536),
}


def _peak_kibibytes(pid: int) -> int:
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


@pytest.mark.parametrize("behaviour", ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_end_ends_in_bounds_and_holds_nobody_else(
    wire: Wire, facade: Facade, stub: ProvisioningServiceStub, behaviour: Behaviour
) -> None:
    succeed(stub, "before")
    before = _peak_kibibytes(facade.process.pid)
    wire.behave(behaviour, echo)
    endless = begin(stub, "endless", timeout=3)
    wait_for(lambda: wire.requests)
    seconds = []
    while not endless.done():
        began = time.monotonic()
        succeed(stub, "other")
        seconds.append(time.monotonic() - began)
    slowest = max(seconds, default=0)
    assert slowest < 1.5, f"another call took {slowest:.1f} s"
    details = Details(endless)
    assert details.info.reason in ("OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED")
    assert "AWS may have acted" in details.message
    assert details.info.metadata["idempotency_token"] == "endless"
    grown = _peak_kibibytes(facade.process.pid) - before
    assert grown < 10 * MAX_RESPONSE_BYTES / 1024, f"{grown} KiB more"
    wait_for(lambda: wire.open <= 1)


# Proxies


class Proxy:
    """A proxy, behind TLS if it has a context for it, that leads wherever it is asked to one server.

    `heads` has what it was asked, `behave` what it does instead of leading there.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, *, at_a_time: int = 1 << 16) -> None:
        """`at_a_time` is how many bytes it carries on at most before it looks for more."""
        self.heads: list[tuple[str, ...]] = []
        self._to = port
        self._tls = tls
        self._at_a_time = at_a_time
        self._behaviour: Callable[[socket.socket], None] = self.lead
        self._connections = Connections()
        self._connections.behave(self._serve)
        self.address = f"{HOST}:{self._connections.port}"
        self.close = self._connections.close

    @property
    def accepted(self) -> int:
        return self._connections.accepted

    def behave(self, behaviour: Callable[[socket.socket], None]) -> None:
        """Do this with each connection, once it has asked for something."""
        self._behaviour = behaviour
        self.heads.clear()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            # Unbuffered, so that what follows the head is left where it is.
            with connection.makefile("rb", buffering=0) as stream:
                lines = read_head(stream)
            if lines is not None:
                self.heads.append(lines)
                self._behaviour(connection)

    def lead(self, connection: socket.socket) -> None:
        lines = self.heads[-1]
        with socket.create_connection((HOST, self._to)) as there:
            if lines[0].startswith("CONNECT "):
                connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
            else:
                there.sendall("\r\n".join([*lines, "", ""]).encode())
            for each in (connection, there):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _pump(connection, there, self._at_a_time)


def _pump(one: socket.socket, other: socket.socket, at_a_time: int) -> None:
    """Carry what comes from each to the other, until one of them ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ)
        selector.register(other, selectors.EVENT_READ)
        while True:
            # What TLS has decrypted already makes no socket readable.
            ready: list[Any] = [each for each in (one, other) if isinstance(each, ssl.SSLSocket) and each.pending()]
            for source in ready or [key.fileobj for key, _ in selector.select()]:
                content = source.recv(at_a_time)
                if not content:
                    return
                (other if source is one else one).sendall(content)


def server_context(directory: Path, certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate.write(directory, "server"))
    return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def tls(tmp_path: Path, authority: Authority) -> ssl.SSLContext:
    """With a certificate for AWS and for this host."""
    return server_context(tmp_path, authority.issue("aws.test", "localhost", HOST))


@pytest.fixture
def bundle(tmp_path: Path, authority: Authority) -> str:
    return str(authority.write(tmp_path / "bundle.pem"))


class Way(NamedTuple):
    """A proxy's variable, the URL's start in it, the endpoint, and what the proxy is to be asked."""

    variable: str
    prefix: str
    endpoint: str
    asked: str
    authorization: str | None = None

    @property
    def host(self) -> str:
        return self.endpoint.partition("://")[2].removesuffix("/")


PASSWORD = "Basic " + base64.b64encode(b"us@er:p:/s s").decode()

# Only the proxy knows where AWS is.
TUNNELS = [
    Way("HTTPS_PROXY", "http://us%40er:p%3A%2Fs%20s@", "https://aws.test", "aws.test:443", PASSWORD),
    Way("https_proxy", "", "https://aws.test:8443", "aws.test:8443"),
    Way("https_proxy", "https://us%40er:p%3A%2Fs%20s@", "https://aws.test:8443", "aws.test:8443", PASSWORD),
]
RELAYS = [
    Way("HTTP_PROXY", "http://", "http://aws.test", "http://aws.test/"),
    Way("http_proxy", "http://us%40er:p%3A%2Fs%20s@", "http://aws.test:81/", "http://aws.test:81/", PASSWORD),
    Way("HTTP_PROXY", "https://", "http://aws.test/a", "http://aws.test/a"),
]


def _way_name(way: Way) -> str:
    return f"{way.variable}={way.prefix}PROXY {way.endpoint}"


@pytest.mark.parametrize("way", TUNNELS, ids=_way_name)
def test_an_endpoint_behind_tls_is_reached_by_a_tunnel_that_knows_no_more_than_its_address(
    way: Way, tls: ssl.SSLContext, bundle: str
) -> None:
    with closing(Wire(tls)) as wire, closing(Proxy(wire.port, tls if "https" in way.prefix else None)) as proxy:
        env = environment_with(
            way.endpoint, AWS_CA_BUNDLE=bundle, **{way.variable: f"{way.prefix}{proxy.address}", "NO_PROXY": ""}
        )
        with facade_with(env) as (_, stub):
            for number in range(3):
                succeed(stub, f"token-{number}")
        (asked,) = proxy.heads
        assert asked[0] == f"CONNECT {way.asked} HTTP/1.1"
        authorization = [f"Proxy-Authorization: {way.authorization}"] if way.authorization else []
        assert list(asked[1:]) == [f"Host: {way.asked}", *authorization]
        assert wire.accepted == 1
    assert len(wire.requests) == 3
    for request in wire.requests:
        assert request.lines[0] == "POST / HTTP/1.1"
        assert request.headers["host"] == way.host
        assert "proxy-authorization" not in request.headers
        assert request.headers["authorization"].endswith(f"Signature={signature_of(request, 'test')}")


@pytest.mark.parametrize("way", RELAYS, ids=_way_name)
def test_an_endpoint_without_tls_is_asked_for_in_full(way: Way, tls: ssl.SSLContext, bundle: str) -> None:
    with closing(Wire()) as wire, closing(Proxy(wire.port, tls if "https" in way.prefix else None)) as proxy:
        env = environment_with(
            way.endpoint, AWS_CA_BUNDLE=bundle, **{way.variable: f"{way.prefix}{proxy.address}", "NO_PROXY": ""}
        )
        with facade_with(env) as (_, stub):
            for number in range(3):
                succeed(stub, f"token-{number}")
        assert (len(proxy.heads), wire.accepted) == (1, 1)
    for request in wire.requests:
        assert request.lines[0] == f"POST {way.asked} HTTP/1.1"
        assert request.headers["host"] == way.asked.split("/")[2]
        assert request.headers.get("proxy-authorization") == way.authorization


@pytest.mark.parametrize(
    "variables",
    [
        {"HTTP_PROXY": "PROXY", "NO_PROXY": HOST},
        {"http_proxy": "PROXY", "no_proxy": "*"},
        {"http_proxy": "PROXY", "no_proxy": HOST, "NO_PROXY": "example.org"},
        {"HTTPS_PROXY": "PROXY", "ALL_PROXY": "PROXY"},
        {"HTTP_PROXY": "PROXY", "http_proxy": ""},
    ],
    ids=str,
)
def test_no_proxy_is_asked_where_none_is_meant(variables: dict[str, str]) -> None:
    with closing(Wire()) as wire, closing(Proxy(wire.port)) as proxy:
        variables = {name: value.replace("PROXY", f"http://{proxy.address}") for name, value in variables.items()}
        with facade_with(environment_with(f"http://{HOST}:{wire.port}", **variables)) as (_, stub):
            succeed(stub, "token")
        assert proxy.accepted == 0
    assert wire.requests[0].lines[0] == "POST / HTTP/1.1"


def _says(*parts: bytes) -> Callable[[socket.socket], None]:
    def behaviour(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1 << 16)

    return behaviour


def _for_ever(start: bytes, part: bytes, pause: float = 0) -> Callable[[socket.socket], None]:
    def behaviour(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(part)
            time.sleep(pause)

    return behaviour


OPENED = b"HTTP/1.1 200 OK\r\n\r\n"

REFUSING_PROXIES = {
    "407": _says(b'HTTP/1.1 407 Who are you?\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'),
    "403 with a page": _says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\n<p/>"),
    "500 in HTTP/1.0": _says(b"HTTP/1.0 500 Sorry\r\n\r\n"),
    "a redirect": _says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
    "the end": _says(),
    "half an answer": _says(b"HTTP/1.1 200 OK\r\nVia: x"),
    "garbage": _says(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "garbage with an end": _says(bytes(range(256)) + b"\r\n\r\n"),
    "2000": _says(b"HTTP/1.1 2000 OK\r\n\r\n"),
    "more than it may": _says(OPENED + whole(record("the proxy's"))),
    "a tunnel to nowhere": _says(OPENED),
    "a tunnel to no TLS": _says(OPENED, whole(record("the proxy's"))),
    "an endless header": _for_ever(b"HTTP/1.1 200 OK\r\nx-long: ", b"a" * 4096),
    "endless headers": _for_ever(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000),
}


def _open_and_say_nothing(connection: socket.socket) -> None:
    connection.sendall(OPENED)
    unread(connection)


HANGING_PROXIES = {
    "nothing": unread,
    "a byte now and then": _for_ever(b"HTTP/1.1 200 OK\r\nx-long: ", b"a", 0.05),
    "a tunnel that says nothing": _open_and_say_nothing,
}


@pytest.fixture(scope="module")
def _behind_proxy(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[tuple[Wire, Proxy, Facade, ProvisioningServiceStub]]:
    directory = tmp_path_factory.mktemp("proxy")
    bundle = authority.write(directory / "bundle.pem")
    with (
        closing(Wire(server_context(directory, authority.issue("aws.test")))) as wire,
        closing(Proxy(wire.port)) as proxy,
        facade_with(
            environment_with(
                "https://aws.test", AWS_CA_BUNDLE=str(bundle), https_proxy=f"http://u:hunter2@{proxy.address}"
            ),
            "--max-writes",
            "1",
        ) as (facade, stub),
    ):
        yield wire, proxy, facade, stub


@pytest.fixture
def behind_proxy(
    _behind_proxy: tuple[Wire, Proxy, Facade, ProvisioningServiceStub],
) -> tuple[Wire, Proxy, ProvisioningServiceStub]:
    """AWS with no connection open, a proxy before it, and a stub of a façade before that, with a place for one call."""
    wire, proxy, _, stub = _behind_proxy
    wire.behave(echo)
    return wire, proxy, stub


@pytest.fixture
def behind_proxy_log(_behind_proxy: tuple[Wire, Proxy, Facade, ProvisioningServiceStub]) -> list[str]:
    return _behind_proxy[2].log


@pytest.mark.parametrize("behaviour", REFUSING_PROXIES.values(), ids=REFUSING_PROXIES)
def test_nothing_happened_where_the_proxy_says(
    behind_proxy: tuple[Wire, Proxy, ProvisioningServiceStub], behaviour: Callable[[socket.socket], None]
) -> None:
    wire, proxy, stub = behind_proxy
    proxy.behave(behaviour)
    began = time.monotonic()
    check_nothing_happened(fail(stub, "token"))
    assert time.monotonic() - began < 3
    assert (len(proxy.heads), wire.accepted) == (1, 0)


@pytest.mark.parametrize("behaviour", HANGING_PROXIES.values(), ids=HANGING_PROXIES)
def test_nothing_is_sent_by_the_deadline_where_the_proxy_says(
    behind_proxy: tuple[Wire, Proxy, ProvisioningServiceStub], behaviour: Callable[[socket.socket], None]
) -> None:
    wire, proxy, stub = behind_proxy
    proxy.behave(behaviour)
    began = time.monotonic()
    check_nothing_sent(fail(stub, "token", timeout=0.7))
    assert time.monotonic() - began < 2
    assert (len(proxy.heads), wire.accepted) == (1, 0)


def test_the_password_of_a_proxy_is_told_to_nobody(
    behind_proxy: tuple[Wire, Proxy, ProvisioningServiceStub], behind_proxy_log: list[str]
) -> None:
    _, proxy, stub = behind_proxy
    proxy.behave(REFUSING_PROXIES["407"])
    details = fail(stub, "refused-for-its-password")
    wait_for(lambda: any(token_digest("refused-for-its-password") in line for line in behind_proxy_log))
    said = "".join([*behind_proxy_log, details.message, *map(str, details.trailing.values())])
    assert "hunter2" not in said
    assert base64.b64encode(b"u:hunter2").decode() not in said


@pytest.mark.parametrize("proxy", ["http://u:hunter2@127.0.0.1:99999", "http://u:hunter2@", "http://u:hunter2@h:x"])
def test_a_proxy_that_cannot_be_one_stops_the_start(proxy: str) -> None:
    assert "hunter2" not in refusal(1, *QUIET, env=environment_with("https://aws.test", HTTPS_PROXY=proxy))


# TLS


@pytest.fixture(scope="module")
def _over_tls(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[tuple[Wire, ProvisioningServiceStub]]:
    bundle = authority.write(tmp_path_factory.mktemp("tls") / "bundle.pem")
    # The context comes with each test.
    with (
        closing(Wire()) as wire,
        facade_with(environment(f"https://localhost:{wire.port}", NO_PROXY="*", AWS_CA_BUNDLE=str(bundle))) as (
            _,
            stub,
        ),
    ):
        yield wire, stub


@pytest.fixture
def over_tls(
    _over_tls: tuple[Wire, ProvisioningServiceStub], tls: ssl.SSLContext
) -> tuple[Wire, ProvisioningServiceStub]:
    """AWS with a good certificate and no connection open, and a stub of a façade that asks it by the name localhost."""
    wire, stub = _over_tls
    wire.behave(echo)
    wire.tls = tls
    return wire, stub


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda each: each.name)
def test_a_connection_over_tls_stays_open(
    over_tls: tuple[Wire, ProvisioningServiceStub], newest: ssl.TLSVersion
) -> None:
    wire, stub = over_tls
    assert wire.tls
    wire.tls.maximum_version = newest
    for number in range(3):
        succeed(stub, f"token-{number}")
    assert (wire.accepted, wire.open) == (1, 1)
    assert wire.requests[0].headers["host"] == f"localhost:{wire.port}"


@pytest.mark.parametrize(
    "certificate",
    [
        lambda good: good.issue("aws.test", HOST),
        lambda good: good.issue(),
        lambda good: good.issue("*.localhost", "local*"),
        lambda good: good.issue("localhost", ends=-HOUR),
        lambda good: good.issue("localhost", starts=HOUR),
        lambda _: Authority().issue("localhost"),
        lambda good: Authority("Authority", parent=Authority("Another")).issue("localhost"),
    ],
    ids=[
        "another name",
        "no name",
        "names that look alike",
        "expired",
        "of tomorrow",
        "unknown",
        "unknown with a chain",
    ],
)
def test_nothing_is_sent_to_a_host_whose_certificate_is(
    over_tls: tuple[Wire, ProvisioningServiceStub],
    tmp_path: Path,
    authority: Authority,
    certificate: Callable[[Authority], Certificate],
) -> None:
    wire, stub = over_tls
    wire.tls = server_context(tmp_path, certificate(authority))
    check_nothing_happened(fail(stub, "token"))
    assert (wire.accepted, wire.requests) == (1, [])


@pytest.mark.parametrize(
    "start",
    [
        lambda body: whole(body)[:-1],
        lambda body: whole(body)[: -len(body)],
        lambda body: whole(body)[:30],
        lambda body: head() + body[:-1],
        lambda body: chunked(body).partition(b"\r\n9\r\n")[0],
        lambda _: head(),
        lambda _: b"",
    ],
    ids=["byte", "body", "headers", "byte of no known length", "chunk", "body of no known length", "answer"],
)
def test_the_outcome_is_unknown_where_tls_ends_without_a_farewell_before_the_last(
    over_tls: tuple[Wire, ProvisioningServiceStub], start: Callable[[bytes], bytes]
) -> None:
    wire, stub = over_tls
    wire.behave(answer(start, ends=True), echo)
    check_unknown(fail(stub, "token"))
    succeed(stub, "next")
    assert [request.token for request in wire.requests] == ["token", "next"]


@pytest.mark.parametrize("name", ["a length", "a length and Connection: close", "until the connection ends"])
def test_a_whole_answer_over_tls_is_taken(over_tls: tuple[Wire, ProvisioningServiceStub], name: str) -> None:
    wire, stub = over_tls
    form = FORMS[name]
    wire.behave(answer(form.make, ends=form.ends))
    for token in ("first", "second"):
        succeed(stub, token)
    wait_for(lambda: wire.open == (1 if form.kept else 0))


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda each: each.name)
def test_tls_may_come_byte_by_byte(tls: ssl.SSLContext, bundle: str, newest: ssl.TLSVersion) -> None:
    tls.maximum_version = newest
    with closing(Wire(tls)) as wire, closing(Proxy(wire.port, at_a_time=1)) as proxy:
        env = environment("https://aws.test", HTTPS_PROXY=f"http://{proxy.address}", AWS_CA_BUNDLE=bundle)
        with facade_with(env) as (_, stub):
            for token in ("first", "second"):
                succeed(stub, token)
        assert wire.accepted == 1


def test_what_is_sent_and_answered_over_tls_may_take_many_records(
    over_tls: tuple[Wire, ProvisioningServiceStub],
) -> None:
    wire, stub = over_tls
    wire.behave(answer(lambda body: whole(body + b" " * 1_000_000)))
    parameters = [{"key": f"Key{number}", "value": "é" * 4000} for number in range(100)]
    for token in ("first", "second"):
        response = stub.ProvisionProduct(
            provision(provision_token=token, provisioning_parameters=parameters), timeout=20
        )
        assert response.record_detail.record_id == token
    assert [len(request.json["ProvisioningParameters"]) for request in wire.requests] == [100, 100]
    assert wire.accepted == 1


def test_an_answer_may_come_in_a_record_for_each_byte(over_tls: tuple[Wire, ProvisioningServiceStub]) -> None:
    wire, stub = over_tls
    wire.behave(answer(whole, pause=0.0))
    for token in ("first", "second"):
        succeed(stub, token)
    assert wire.accepted == 1


def test_the_outcome_is_unknown_where_what_comes_by_tls_is_none(
    over_tls: tuple[Wire, ProvisioningServiceStub],
) -> None:
    wire, stub = over_tls

    def below_tls(connection: socket.socket, request: Request) -> None:
        socket.socket.sendall(connection, whole(record(request.json["ProvisionToken"])))

    wire.behave(below_tls, echo)
    check_unknown(fail(stub, "token"))
    succeed(stub, "next")


@pytest.mark.parametrize(
    "behave",
    [
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda connection: connection.recv(1),
        lambda connection: connection.shutdown(socket.SHUT_WR),
    ],
    ids=["no TLS", "a reset", "an end"],
)
def test_nothing_happened_where_aws_answers_the_handshake_with(
    bundle: str, behave: Callable[[socket.socket], None]
) -> None:
    with closing(Connections()) as aws:
        aws.behave(behave)
        with facade_with(environment(aws.url.replace("http:", "https:"), AWS_CA_BUNDLE=bundle)) as (_, stub):
            check_nothing_happened(fail(stub, "token"))


def test_aws_is_told_why_it_is_not_trusted(tmp_path: Path, bundle: str) -> None:
    context, told = server_context(tmp_path, Authority("Another").issue(HOST)), threading.Event()

    def shake_hands(connection: socket.socket) -> None:
        try:
            context.wrap_socket(connection, server_side=True).recv(1)
        except ssl.SSLError as error:
            if "UNKNOWN_CA" in str(error.reason):
                told.set()

    with closing(Connections()) as aws:
        aws.behave(shake_hands)
        with facade_with(environment(aws.url.replace("http:", "https:"), AWS_CA_BUNDLE=bundle)) as (_, stub):
            check_nothing_happened(fail(stub, "token"))
            assert told.wait(5)


def test_a_connection_over_tls_that_aws_has_closed_is_not_used(over_tls: tuple[Wire, ProvisioningServiceStub]) -> None:
    wire, stub = over_tls

    def and_say_farewell(connection: socket.socket, request: Request) -> None:
        echo(connection, request)
        assert isinstance(connection, ssl.SSLSocket)
        connection.unwrap()

    wire.behave(and_say_farewell)
    for number in range(3):
        succeed(stub, f"token-{number}")
        wait_for(lambda: wire.open == 0)
    assert wire.accepted == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("AWS_CA_BUNDLE", None),
        ("AWS_CA_BUNDLE", b""),
        ("AWS_CA_BUNDLE", b"\x00\xff" * 100),
        ("REQUESTS_CA_BUNDLE", None),
    ],
    ids=["missing", "empty", "no certificate", "missing by the other name"],
)
def test_authorities_that_cannot_be_read_stop_the_start(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_bytes(content)
    assert str(path) in refusal(1, *QUIET, env=environment(**{name: str(path)}))


# Endings


@pytest.fixture
def names(tmp_path: Path) -> Mapping[str, str]:
    """Variables with which a façade finds what a name server would say: `two.test` has two addresses, `slow.test` none yet."""
    (tmp_path / "sitecustomize.py").write_text(
        """
import socket, time
ask = socket.getaddrinfo
def answer(host, *args, **kwargs):
    if host == "slow.test":
        time.sleep(8)
    hosts = ("127.0.0.2", "127.0.0.1") if host == "two.test" else (host,)
    return [info for each in hosts for info in ask(each, *args, **kwargs)]
socket.getaddrinfo = answer
"""
    )
    return {"PYTHONPATH": str(tmp_path), "NO_PROXY": "*"}


@contextmanager
def full(address: tuple[str, int]) -> Iterator[int]:
    """Listen there without ever taking a connection, and give the port."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(address, backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            with suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield listening.getsockname()[1]


def test_the_second_address_is_tried_where_the_first_refuses(names: Mapping[str, str]) -> None:
    with closing(Wire()) as wire, facade_with(environment(f"http://two.test:{wire.port}", **names)) as (_, stub):
        succeed(stub, "token")
        assert wire.requests[0].headers["host"] == f"two.test:{wire.port}"


def test_the_second_address_is_tried_where_the_first_says_nothing(names: Mapping[str, str]) -> None:
    with (
        closing(Wire()) as wire,
        full(("127.0.0.2", wire.port)),
        facade_with(environment(f"http://two.test:{wire.port}", **names)) as (_, stub),
    ):
        began = time.monotonic()
        succeed(stub, "token")
        assert time.monotonic() - began < 3
        succeed(stub, "next")
        assert wire.accepted == 1


def test_a_call_that_is_cancelled_while_it_connects_leaves_its_place_at_once(
    behind_proxy: tuple[Wire, Proxy, ProvisioningServiceStub],
) -> None:
    wire, proxy, stub = behind_proxy
    for hang in HANGING_PROXIES.values():
        ended = threading.Event()

        def hanging(connection: socket.socket, hang: Any = hang, ended: threading.Event = ended) -> None:
            try:
                hang(connection)
            finally:
                ended.set()

        proxy.behave(hanging)
        call = begin(stub, "gone")
        wait_for(lambda: proxy.heads)
        time.sleep(0.1)
        proxy.behave(proxy.lead)
        call.cancel()
        began = time.monotonic()
        succeed(stub, "next")  # there is one place
        assert time.monotonic() - began < 2
        assert ended.wait(2)
        assert [request.token for request in wire.requests] == ["next"]
        wire.behave(echo)


def test_an_answer_that_is_under_way_when_its_caller_leaves_is_read_to_its_end(
    wire: Wire, facade: Facade, stub: ProvisioningServiceStub
) -> None:
    halfway, gone = threading.Event(), threading.Event()

    def in_halves(connection: socket.socket, request: Request) -> None:
        content = chunked(record(request.json["ProvisionToken"]))
        connection.sendall(content[:-20])
        halfway.set()
        gone.wait(10)
        connection.sendall(content[-20:])

    wire.behave(in_halves, echo)
    call = begin(stub, "left-halfway")
    assert halfway.wait(10)
    assert call.cancel()
    time.sleep(0.1)
    assert not _left(facade, "left-halfway")
    gone.set()
    wait_for(lambda: _left(facade, "left-halfway"))
    assert _left(facade, "left-halfway") == ["OK"]
    succeed(stub, "next")
    assert (wire.accepted, [request.token for request in wire.requests]) == (1, ["left-halfway", "next"])


def test_an_answer_that_never_comes_is_waited_for_by_the_deadline_though_its_caller_has_left(
    wire: Wire, facade: Facade, stub: ProvisioningServiceStub
) -> None:
    wire.behave(silence)
    call = begin(stub, "left-alone", timeout=1.5)
    wait_for(lambda: wire.requests)
    assert call.cancel()
    assert 0.5 < wait_for(lambda: wire.open == 0) < 3
    wait_for(lambda: _left(facade, "left-alone"))
    assert _left(facade, "left-alone") == ["DEADLINE_EXCEEDED"]


def _left(facade: Facade, token: str) -> list[str]:
    """Return the outcomes that the log has for the token of a caller that left."""
    entries = [json.loads(line) for line in list(facade.log) if "after its caller had gone" in line]
    return [entry["outcome"] for entry in entries if entry["token_digest"] == token_digest(token)]


@pytest.mark.parametrize("hangs", ["connect", "handshake", "name"])
def test_a_stop_while_it_connects_ends_within_the_grace_and_nothing_happened(
    names: Mapping[str, str], hangs: str
) -> None:
    with ExitStack() as stack:
        never = stack.enter_context(closing(Connections()))
        never.behave(unread)
        url = {
            "connect": lambda: f"http://{HOST}:{stack.enter_context(full((HOST, 0)))}",
            "handshake": lambda: f"https://{HOST}:{never.port}",
            "name": lambda: f"http://slow.test:{never.port}",
        }[hangs]()
        facade, stub = stack.enter_context(facade_with(environment(url, **names), "--grace", "1"))
        call = begin(stub, "token")
        time.sleep(0.3)
        assert not call.done()
        began = time.monotonic()
        facade.process.terminate()
        with pytest.raises(grpc.RpcError) as raised:
            call.result()
        check_nothing_happened(Details(raised.value))
        assert facade.process.wait(30) == 0
        seconds = time.monotonic() - began
        assert seconds < 1 + 2, f"{seconds:.1f} s"


def test_a_stop_while_an_answer_is_awaited_over_tls_leaves_the_outcome_unknown(
    tls: ssl.SSLContext, bundle: str
) -> None:
    with closing(Wire(tls)) as wire:
        wire.behave(silence)
        env = environment(f"https://{HOST}:{wire.port}", AWS_CA_BUNDLE=bundle)
        with facade_with(env, "--grace", "1") as (facade, stub):
            call = begin(stub, "token")
            wait_for(lambda: wire.requests)
            began = time.monotonic()
            facade.process.terminate()
            with pytest.raises(grpc.RpcError) as raised:
                call.result()
            check_unknown(Details(raised.value))
            assert facade.process.wait(20) == 0
            assert time.monotonic() - began < 1 + 2
        wait_for(lambda: wire.open == 0)


# Many at once


def test_calls_that_are_cancelled_while_they_connect_leave_no_connection(tls: ssl.SSLContext, bundle: str) -> None:
    with (
        closing(Wire(tls)) as wire,
        facade_with(environment(f"https://{HOST}:{wire.port}", AWS_CA_BUNDLE=bundle), "--max-writes", "8") as (
            facade,
            stub,
        ),
    ):
        succeed(stub, "before")
        sockets = Health.of(facade.process.pid).sockets
        for number in range(160):
            calls = [begin(stub, f"gone-{number}-{each}") for each in range(2)]
            time.sleep(number % 32 / 2000)
            for call in calls:
                call.cancel()
        # As many as can be of use at a time, or less.
        wait_for(lambda: Health.of(facade.process.pid).sockets <= sockets + 8 - 1)
        assert wire.open <= 8
        succeed(stub, "after")


def test_five_hundred_calls_at_a_time_take_no_threads_and_little_memory() -> None:
    count = 500
    release = threading.Event()
    with (
        closing(Upstream()) as upstream,
        facade_with(environment(upstream.url), "--max-writes", str(count), "--max-waiting", "0") as (facade, stub),
    ):
        upstream.behave(echo)
        succeed(stub, "before")
        before = Health.of(facade.process.pid)
        upstream.behave(until(release, echo))
        calls = [begin(stub, f"token-{number}") for number in range(count)]
        wait_for(lambda: len(upstream.requests) == count, 20)
        during = Health.of(facade.process.pid)
        release.set()
        answered = [call.result().record_detail.record_id for call in calls]
        assert answered == [f"token-{number}" for number in range(count)]
        assert during.threads <= before.threads + 4
        assert during.sockets >= before.sockets + count - 1
        assert (during.kibibytes - before.kibibytes) / count < 100
