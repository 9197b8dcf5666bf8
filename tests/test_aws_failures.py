"""What each failure of AWS, or of the way there, means to the caller: a row per line of the failure table."""

import datetime as dt
import ipaddress
import json
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
    TokenRetrievalError,
)
from calls import provision
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from facade import Facade, environment
from grpc import StatusCode
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.aws.failures import failure_of
from status import Details
from upstream import REQUEST_ID, Behaviour, Connections, Request, Upstream, abort, error, hang_up, raw, reply, truncated

TOKEN = "order-17"
REQUEST = provision(provision_token=TOKEN)
RECORD = {"RecordDetail": {"RecordId": "rec-1"}}

GRPC_CODES = {
    "INVALID_PARAMETERS": StatusCode.INVALID_ARGUMENT,
    "ALREADY_EXISTS": StatusCode.ALREADY_EXISTS,
    "NOT_YET_CONSISTENT": StatusCode.UNAVAILABLE,
    "OPERATION_IN_PROGRESS": StatusCode.ABORTED,
    "INVALID_STATE": StatusCode.FAILED_PRECONDITION,
    "RESOURCE_NOT_FOUND": StatusCode.NOT_FOUND,
    "NO_LAUNCH_PATH": StatusCode.FAILED_PRECONDITION,
    "OPERATION_NOT_SUPPORTED": StatusCode.UNIMPLEMENTED,
    "QUOTA_EXCEEDED": StatusCode.RESOURCE_EXHAUSTED,
    "ACCESS_DENIED": StatusCode.PERMISSION_DENIED,
    "THROTTLED": StatusCode.RESOURCE_EXHAUSTED,
    "UPSTREAM_UNREACHABLE": StatusCode.UNAVAILABLE,
    "UPSTREAM_CREDENTIALS": StatusCode.UNAVAILABLE,
    "OUTCOME_UNKNOWN": StatusCode.UNKNOWN,
    "UNMAPPED_AWS_ERROR": StatusCode.UNKNOWN,
}

# Words and addresses of ours, none of which AWS says in the rows below.
INSIDES = re.compile(
    r"python|boto|urllib3|traceback|errno|\.py\b|object at|<class|0x[0-9a-f]{4}|127\.0\.0\.1|localhost|https?://|:\d{4}"
    r"|\.invalid|socket|certificate|ssl|json|decode|codec|NoneType|(?-i:[a-z]Error\b)|HTTPS?Connection|proxy",
    re.IGNORECASE,
)


def failed(stub: ProvisioningServiceStub, timeout: float = 10) -> Details:
    """Make the call, see it fail with details that say nothing of the server's insides, and return them."""
    with pytest.raises(grpc.RpcError) as raised:
        stub.ProvisionProduct(REQUEST, timeout=timeout)
    details = Details(raised.value)
    said = [details.message, *details.info.metadata.values(), *map(str, details.trailing.values())]
    # The codes of AWS may have any name.
    said = [text.replace(details.info.metadata.get("aws_error_code", ""), "") for text in said]
    assert not [text for text in said if INSIDES.search(text)]
    assert details.size < 4096
    return details


def check(details: Details, reason: str, **metadata: str) -> None:
    """See that the details are those of the reason, with this metadata beside the operation and the token."""
    assert (details.info.reason, details.code) == (reason, GRPC_CODES[reason])
    assert details.info.domain == "servicecatalog-grpc"
    assert details.info.metadata == {"aws_operation": "ProvisionProduct", "idempotency_token": TOKEN, **metadata}
    assert details.initial["idempotency-token"] == TOKEN
    assert (details.retry_delay is not None) == (reason == "THROTTLED")
    assert details.retry_delay is None or 0 < details.retry_delay < 60
    assert details.trailing.get("x-amzn-requestid") == metadata.get("aws_request_id")
    assert not details.violations


class Row(NamedTuple):
    """An error of AWS and what becomes of it."""

    code: str
    message: str
    reason: str
    status: int = 400


INVALID = ("InvalidParametersException", "ValidationException")
THROTTLING = (
    "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException "
    "RequestLimitExceeded TooManyRequestsException SlowDown BandwidthLimitExceeded PriorRequestNotComplete"
)
CREDENTIALS = (
    "ExpiredToken ExpiredTokenException RequestExpired UnrecognizedClientException InvalidClientTokenId "
    "InvalidSignatureException SignatureDoesNotMatch IncompleteSignature MissingAuthenticationToken "
    "MissingAuthenticationTokenException"
)
TABLE = [
    *(
        Row(code, message, reason)
        for code in INVALID
        for message, reason in (
            ("1 validation error detected: Value at 'pathId' is wrong", "INVALID_PARAMETERS"),
            ("mine already exists", "ALREADY_EXISTS"),
            ("A provisioned product named mine Already Exists in account 1. Choose another name.", "ALREADY_EXISTS"),
            ("profile does not exist", "NOT_YET_CONSISTENT"),
            ("Invalid launch role: Profile DOES NOT exist (Service: Iam; Request ID: 7)", "NOT_YET_CONSISTENT"),
            ("Another UPDATE operation is in progress", "OPERATION_IN_PROGRESS"),
            ("another operation is in progress", "OPERATION_IN_PROGRESS"),
            ("Cannot change pp-1: ANOTHER operation IS IN PROGRESS, see rec-2.", "OPERATION_IN_PROGRESS"),
            ("The account is not enrolled", "INVALID_STATE"),
            ("Account 123456789012 Is Not Enrolled in AWS Control Tower; enroll it first.", "INVALID_STATE"),
            ("Anotheroperation is in progress", "INVALID_PARAMETERS"),
            ("", "INVALID_PARAMETERS"),
        )
    ),
    Row("DuplicateResourceException", "The resource is a duplicate", "ALREADY_EXISTS"),
    Row("ResourceNotFoundException", "Product prod-1 not found", "RESOURCE_NOT_FOUND"),
    Row("ResourceNotFoundException", "The path already exists elsewhere", "RESOURCE_NOT_FOUND"),
    Row("ResourceNotFoundException", "No launch paths found for resource: prod-1", "NO_LAUNCH_PATH"),
    Row("ResourceNotFoundException", "prod-1: NO LAUNCH PATHS found; ask its owner.", "NO_LAUNCH_PATH"),
    Row("InvalidParametersException", "No launch paths found for resource: prod-1", "INVALID_PARAMETERS"),
    Row("InvalidStateException", "The product is TAINTED", "INVALID_STATE"),
    Row("ResourceInUseException", "The resource is in use", "INVALID_STATE"),
    Row("ResourceInUseException", "Another operation is in progress", "INVALID_STATE"),
    Row("TagOptionNotMigratedException", "TagOptions are not migrated", "INVALID_STATE"),
    Row("OperationNotSupportedException", "Not for this product", "OPERATION_NOT_SUPPORTED"),
    Row("LimitExceededException", "Too many provisioned products", "QUOTA_EXCEEDED"),
    *(
        Row(code, "User: arn:aws:sts::1:assumed-role/x is not authorized to perform it", "ACCESS_DENIED", 403)
        for code in ("AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized", "OptInRequired")
    ),
    *(Row(code, "Slow down", "THROTTLED") for code in THROTTLING.split()),
    Row("ThrottlingException", "", "THROTTLED"),
    Row("ThrottlingException", "Rate exceeded", "THROTTLED", 503),
    *(
        Row(code, "Rate exceeded", "THROTTLED")
        for code in (*INVALID, "LimitExceededException", "AccessDeniedException")
    ),
    Row("SomethingNewException", "rate EXCEEDED", "THROTTLED"),
    Row("ServiceUnavailableException", "ProvisionProduct: Rate exceeded for this account; wait", "THROTTLED", 503),
    Row("InvalidParametersException", "Accelerate exceeded", "INVALID_PARAMETERS"),
    Row("SomethingNewException", "Something new", "UNMAPPED_AWS_ERROR"),
    Row("SomethingNewException", "mine already exists, profile does not exist", "UNMAPPED_AWS_ERROR"),
    Row("SomethingNewException", "Forbidden", "UNMAPPED_AWS_ERROR", 403),
    # Codes are AWS's own names, letter by letter.
    Row("limitexceededexception", "Too many", "UNMAPPED_AWS_ERROR"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.code}-{row.message[:32]}-{row.status}")
def test_an_error_of_aws_says_what_happened(stub: ProvisioningServiceStub, upstream: Upstream, row: Row) -> None:
    upstream.behave(error(row.code, row.message, row.status))
    details = failed(stub)
    check(details, row.reason, aws_error_code=row.code, aws_request_id=REQUEST_ID)
    assert row.message in details.message
    assert details.message
    assert [request.json["ProvisionToken"] for request in upstream.requests] == [TOKEN]


@pytest.mark.parametrize(
    ("code", "status"),
    [("InternalFailure", 500), ("ServiceUnavailable", 503), ("SomethingNewException", 500), ("GatewayTimeout", 504)],
)
def test_after_a_fault_of_aws_the_outcome_of_a_write_is_unknown(
    stub: ProvisioningServiceStub, upstream: Upstream, code: str, status: int
) -> None:
    upstream.behave(error(code, "We are sorry", status))
    check(failed(stub), "OUTCOME_UNKNOWN", aws_error_code=code, aws_request_id=REQUEST_ID)


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "com.amazonaws.servicecatalog#{}",
        "{}:http://internal.amazon.com/coral/com.amazonaws.servicecatalog/",
        "com.amazonaws.servicecatalog#{}:http://internal.amazon.com/coral/",
    ],
)
@pytest.mark.parametrize("member", ["message", "Message"])
def test_every_form_of_an_error_of_aws_is_understood(
    stub: ProvisioningServiceStub, upstream: Upstream, form: str, member: str
) -> None:
    upstream.behave(reply(400, {"__type": form.format("InvalidStateException"), member: "It is TAINTED"}))
    details = failed(stub)
    check(details, "INVALID_STATE", aws_error_code="InvalidStateException", aws_request_id=REQUEST_ID)
    assert details.message == "It is TAINTED"


def test_an_error_without_a_request_id_has_none_in_its_details(
    stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    upstream.behave(http(400, b'{"__type": "InvalidStateException", "message": "It is TAINTED"}'))
    check(failed(stub), "INVALID_STATE", aws_error_code="InvalidStateException")


@pytest.mark.parametrize(
    "message", ["x" * 10_000, "Größe ≠ 0 🙈 " * 100, "日本語" * 2000, "%" * 2000, 'tab\t line\n quote" \\ end']
)
def test_any_message_of_aws_arrives_shortened_if_need_be(
    stub: ProvisioningServiceStub, upstream: Upstream, message: str
) -> None:
    upstream.behave(error("InvalidParametersException", message))
    details = failed(stub)
    check(details, "INVALID_PARAMETERS", aws_error_code="InvalidParametersException", aws_request_id=REQUEST_ID)
    assert message.startswith(details.message.removesuffix("…"))
    assert len(details.message.encode()) > min(100, len(message.encode()) - 1)
    assert (details.message == message) != details.message.endswith("…")


def http(
    status: int, body: bytes, length: int | str | None = None, kind: str = "application/x-amz-json-1.1"
) -> Behaviour:
    """Answer without AWS's headers and hang up."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    return raw(head.encode() + body)


def html(status: int) -> Behaviour:
    """Answer as a proxy between here and AWS would."""
    page = f"<html><head><title>{status}</title></head><body>urllib3 at https://10.0.0.1/ says no</body></html>"
    return http(status, page.encode(), kind="text/html")


def record(**members: object) -> Behaviour:
    return http(200, json.dumps({"RecordDetail": {"RecordId": "rec-1", **members}}).encode())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# What no caller can take for an answer of AWS, though AWS may have acted.
GARBLED = {
    "200 and nothing": http(200, b""),
    "500 and nothing": http(500, b""),
    "204": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "302 to elsewhere": raw(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
    "404 and nothing": http(404, b""),
    "400 without a code": http(400, b'{"message": "no"}'),
    "403 without a code": http(403, b"{}"),
    "400 with an empty code": http(400, b'{"__type": "", "message": "no"}'),
    "400 with a null for code": http(400, b'{"__type": null, "message": "no"}'),
    "400 with a number for code": http(400, b'{"__type": 7, "message": "no"}'),
    "400 with a list": http(400, b"[]"),
    "400 with text": http(400, b"no"),
    "400 in invalid UTF-8": http(400, b'{"__type": "InvalidStateException", "message": "\xff"}'),
    "400 cut off": http(400, b'{"__type": "InvalidStateExc', length=60),
    "200 cut off": http(200, b'{"RecordDetail": {"Rec', length=40),
    "200 cut off before the body": http(200, b"", length=40),
    "200 cut off in a chunk": raw(CHUNKED + b'80\r\n{"RecordDetail": {"Rec'),
    "200 cut off after a chunk": raw(CHUNKED + b'10\r\n{"RecordDetail":\r\n'),
    "200 with a bad chunk": raw(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"),
    "HTML with 200": html(200),
    "HTML with 403": html(403),
    "HTML with 407": html(407),
    "HTML with 502": html(502),
    "HTML with 503": html(503),
    "a list": http(200, b"[]"),
    "a string": http(200, b'"x"'),
    "a null": http(200, b"null"),
    "a number": http(200, b"7"),
    "an empty object": http(200, b"{}"),
    "a deep list": http(200, b"[" * 100_000),
    "a string for the record": http(200, b'{"RecordDetail": "x"}'),
    "a list for the record": http(200, b'{"RecordDetail": []}'),
    "a null for the record": http(200, b'{"RecordDetail": null}'),
    "a record without its id": http(200, b'{"RecordDetail": {"Status": "CREATED"}}'),
    "a number for the id": record(RecordId=7),
    "an empty id": record(RecordId=""),
    "half a surrogate in the id": http(200, b'{"RecordDetail": {"RecordId": "\\ud800"}}'),
    "a list for the status": record(Status=["CREATED"]),
    "a string for the errors": record(RecordErrors="x"),
    "an object for the errors": record(RecordErrors={"Code": "x"}),
    "a null among the errors": record(RecordErrors=[None]),
    "a number among the tags": record(RecordTags=[7]),
    "no time": record(CreatedTime="garbage"),
    "a time out of range": record(CreatedTime=1e300),
    "a list for the time": record(CreatedTime=[]),
    "invalid UTF-8": http(200, b'{"RecordDetail": {"RecordId": "\xff"}}'),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n{}"),
    "a length that is too short": http(200, json.dumps(RECORD).encode(), length=9),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "noise": raw(bytes(range(256))),
    "HTTP of no version": raw(b"HTTP/x.y 200 OK\r\n\r\n{}"),
    "a status that is no number": raw(b"HTTP/1.1 abc OK\r\n\r\n{}"),
    "nothing at all": hang_up,
    "a reset": abort,
}


@pytest.mark.parametrize("answer", GARBLED.values(), ids=GARBLED)
def test_after_a_reply_that_is_none_the_outcome_of_a_write_is_unknown(
    stub: ProvisioningServiceStub, upstream: Upstream, answer: Behaviour
) -> None:
    upstream.behave(answer)
    details = failed(stub)
    # The HTTP status may stand there for the code that AWS did not give.
    details.info.metadata.pop("aws_error_code", None)
    check(details, "OUTCOME_UNKNOWN")
    assert [request.json["ProvisionToken"] for request in upstream.requests] == [TOKEN]


@pytest.mark.parametrize(
    ("body", "at"), [(RECORD, 20), (RECORD, 0), ({"RecordDetail": {"RecordId": "rec-1", "PathId": "lp-1"}}, 41)]
)
def test_the_request_id_of_a_reply_that_was_cut_off_is_kept(
    stub: ProvisioningServiceStub, upstream: Upstream, body: object, at: int
) -> None:
    upstream.behave(truncated(body, at))
    check(failed(stub), "OUTCOME_UNKNOWN", aws_request_id=REQUEST_ID)


@pytest.mark.parametrize("length", ["abc", "-5", ""])
def test_a_reply_whose_length_is_none_is_no_reply(
    stub: ProvisioningServiceStub, upstream: Upstream, length: str
) -> None:
    """https://www.rfc-editor.org/rfc/rfc9112#section-6.3 has it discarded: nobody knows where it ends."""
    upstream.behave(http(200, json.dumps(RECORD).encode(), length=length))
    check(failed(stub), "OUTCOME_UNKNOWN")


def test_a_connection_that_aws_closed_while_idle_is_not_used(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    def answer_and_close(connection: socket.socket, request: Request) -> None:
        reply(200, RECORD)(connection, request)
        hang_up(connection, request)

    upstream.behave(answer_and_close)
    for _ in range(3):
        assert stub.ProvisionProduct(REQUEST, timeout=10).record_detail.record_id == "rec-1"
        time.sleep(0.05)
    assert len(upstream.requests) == 3


def test_429_without_a_code_is_a_throttle(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(http(429, b""))
    details = failed(stub)
    details.info.metadata.pop("aws_error_code", None)
    check(details, "THROTTLED")


@pytest.fixture(scope="module")
def connections() -> Iterator[Connections]:
    server = Connections()
    yield server
    server.close()


@pytest.fixture(scope="module")
def below_http(connections: Connections) -> Iterator[ProvisioningServiceStub]:
    """A stub of a façade in front of `connections`."""
    yield from _stub_of(environment(connections.url))


def _stub_of(env: dict[str, str], *flags: str) -> Iterator[ProvisioningServiceStub]:
    with (
        Facade("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1", *flags, env=env) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        yield ProvisioningServiceStub(channel)


def _reset_unread(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _reset_early(connection: socket.socket) -> None:
    connection.recv(1)
    _reset_unread(connection)


def test_after_a_connection_that_ends_unread_the_outcome_of_a_write_is_unknown(
    below_http: ProvisioningServiceStub, connections: Connections
) -> None:
    connections.behave(_reset_early)
    check(failed(below_http), "OUTCOME_UNKNOWN")
    assert connections.accepted == 1


@pytest.mark.parametrize("behaviour", [_reset_unread, lambda _: None], ids=["reset", "closed"])
def test_a_connection_that_ends_right_after_the_connect_says_whether_anything_was_sent(
    below_http: ProvisioningServiceStub, connections: Connections, behaviour: Any
) -> None:
    connections.behave(behaviour)
    for _ in range(20):
        details = failed(below_http)
        # Nobody has read anything, so that both are true; which of them depends on who is faster.
        assert details.info.reason in ("OUTCOME_UNKNOWN", "UPSTREAM_UNREACHABLE")
        check(details, details.info.reason)
    assert connections.accepted == 20


# Nobody listens on port 1.
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://aws.invalid", "https://aws.invalid"])
def test_without_a_connection_nothing_happened(url: str) -> None:
    for stub in _stub_of(environment(url)):
        details = failed(stub)
        check(details, "UPSTREAM_UNREACHABLE")
        assert "nothing happened" in details.message


def _self_signed(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return context


def _answer_over_tls(context: ssl.SSLContext, received: list[bytes], connection: socket.socket) -> None:
    body = json.dumps(RECORD).encode()
    with context.wrap_socket(connection, server_side=True) as secure:
        received.append(secure.recv(65536))
        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while secure.recv(65536):  # closing before all is read would reset the connection
            pass


def test_nothing_is_sent_to_a_server_whose_certificate_is_not_trusted(tmp_path: Path, connections: Connections) -> None:
    received: list[bytes] = []
    connections.behave(partial(_answer_over_tls, _self_signed(tmp_path), received))
    url = connections.url.replace("http:", "https:")
    for stub in _stub_of(environment(url)):
        check(failed(stub), "UPSTREAM_UNREACHABLE")
        assert connections.accepted == 1
        assert received == []
    # The same server, once it is trusted, shows that only the certificate was in the way.
    for stub in _stub_of(environment(url, AWS_CA_BUNDLE=str(tmp_path / "certificate.pem"))):
        assert stub.ProvisionProduct(REQUEST, timeout=10).record_detail.record_id == "rec-1"
        assert len(received) == 1


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[ProvisioningServiceStub, Upstream]]:
    """A façade of its own for refused credentials: it goes on asking AWS whether it takes them."""
    upstream = Upstream()
    for stub in _stub_of(environment(upstream.url)):
        yield stub, upstream
    upstream.close()


@pytest.mark.parametrize("code", CREDENTIALS.split())
def test_refused_credentials_are_the_server_s_affair(
    refusing: tuple[ProvisioningServiceStub, Upstream], code: str
) -> None:
    stub, upstream = refusing
    upstream.behave(error(code, "The security token included in the request is wrong", 403))
    check(failed(stub), "UPSTREAM_CREDENTIALS", aws_error_code=code, aws_request_id=REQUEST_ID)


def test_without_credentials_nothing_is_sent(upstream: Upstream) -> None:
    env = environment(upstream.url)
    del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    for stub in _stub_of(env):
        details = failed(stub)
        assert (details.code, details.info.reason) == (StatusCode.UNAVAILABLE, "UPSTREAM_CREDENTIALS")
        assert details.info.metadata == {"aws_operation": "ProvisionProduct"}
        assert "idempotency-token" not in details.initial
    assert upstream.requests == []


def _answered(status: int, code: str) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "DescribeRecord")


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ReadTimeoutError(endpoint_url="u"), "UPSTREAM_UNREACHABLE"),
        (ConnectionClosedError(endpoint_url="u"), "UPSTREAM_UNREACHABLE"),
        (ValueError("garbled"), "UPSTREAM_UNREACHABLE"),
        (_answered(500, "InternalFailure"), "UPSTREAM_UNREACHABLE"),
        (_answered(503, "503"), "UPSTREAM_UNREACHABLE"),
        (_answered(400, "400"), "UPSTREAM_UNREACHABLE"),
        (_answered(400, "ResourceNotFoundException"), "RESOURCE_NOT_FOUND"),
        (_answered(400, "ThrottlingException"), "THROTTLED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_a_read_whose_reply_is_lost_may_be_repeated(problem: Exception, reason: str) -> None:
    failure = failure_of(problem, sent=True, expired=False, write=False)
    assert (failure.reason.name, failure.reason.code) == (reason, GRPC_CODES[reason])


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ConnectTimeoutError(endpoint_url="u"), "UPSTREAM_UNREACHABLE"),
        (EndpointConnectionError(endpoint_url="u"), "UPSTREAM_UNREACHABLE"),
        (SSLError(endpoint_url="u", error=OSError()), "UPSTREAM_UNREACHABLE"),
        (NoCredentialsError(), "UPSTREAM_CREDENTIALS"),
        (CredentialRetrievalError(provider="p", error_msg=""), "UPSTREAM_CREDENTIALS"),
        (TokenRetrievalError(provider="p", error_msg=""), "UPSTREAM_CREDENTIALS"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_what_was_not_sent_did_not_happen(problem: Exception, reason: str, *, write: bool) -> None:
    failure = failure_of(problem, sent=False, expired=False, write=write)
    assert (failure.reason.name, failure.reason.code) == (reason, StatusCode.UNAVAILABLE)


def _reply_with_id(request_id: str) -> Behaviour:
    body = json.dumps(RECORD).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nx-amzn-RequestId: {request_id}\r\n\r\n"
    return raw(head.encode("latin-1") + body)


@pytest.mark.parametrize("request_id", ["\xfc", "a\x01b", "a" * 9000], ids=["not ASCII", "a control", "long"])
def test_a_request_id_that_metadata_cannot_carry_costs_nothing_else(
    request_id: str, stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    upstream.behave(_reply_with_id(request_id))
    response, call = stub.ProvisionProduct.with_call(REQUEST)
    assert response.record_detail.record_id == "rec-1"
    assert "x-amzn-requestid" not in dict(call.trailing_metadata())


def test_a_long_request_id_of_a_failure_stays_out_of_the_trailers(
    stub: ProvisioningServiceStub, upstream: Upstream
) -> None:
    upstream.behave(reply(400, {"__type": "InvalidStateException", "message": "m"}, **{"x-amzn-RequestId": "a" * 9000}))
    check(failed(stub), "INVALID_STATE", aws_error_code="InvalidStateException")


def test_a_time_that_protobuf_cannot_hold_is_a_garbled_reply(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(reply(body={"RecordDetail": {"RecordId": "rec-1", "CreatedTime": "0001-01-01T00:00:00+14:00"}}))
    check(failed(stub), "OUTCOME_UNKNOWN", aws_request_id=REQUEST_ID)


def test_a_message_that_is_no_text_does_not_reach_the_caller(stub: ProvisioningServiceStub, upstream: Upstream) -> None:
    upstream.behave(reply(400, {"__type": "InvalidStateException", "message": {"a": 1}}))
    assert "{" not in failed(stub).message


def test_nothing_reached_aws_through_a_proxy_that_refuses() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    proxy = Connections()
    proxy.behave(refuse)
    env = environment(None, HTTPS_PROXY=proxy.url, NO_PROXY="")
    with (
        Facade("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1", env=env) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        check(failed(ProvisioningServiceStub(channel)), "UPSTREAM_UNREACHABLE")
    proxy.close()


def test_a_reply_that_cannot_be_parsed_is_not_logged(
    upstream: Upstream, facade: Facade, stub: ProvisioningServiceStub
) -> None:
    upstream.behave(raw(b'HTTP/1.1 200 OK\r\nContent-Length 60\r\n{"Out": "hunter2"}\r\n\r\n'))
    check(failed(stub), "OUTCOME_UNKNOWN")
    assert "hunter2" not in "".join(facade.log)
