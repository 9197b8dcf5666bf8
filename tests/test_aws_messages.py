"""What goes to AWS, and what its answers become, beside what plain boto3 makes of the same at the same moment."""

import asyncio
import json
import os
import re
import string
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import boto3
import pytest
from botocore import xform_name
from botocore.auth import SIGNED_HEADERS_BLACKLIST, SigV4Auth
from botocore.awsrequest import AWSConnection, AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, UnsupportedSignatureVersionError
from hypothesis import given, settings
from hypothesis import strategies as st
from servicecatalog_grpc.aws.attempt import Attempt
from servicecatalog_grpc.aws.boto import AwsClient, make_client
from servicecatalog_grpc.aws.connection import Response
from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.route import Route
from servicecatalog_grpc.aws.signing import Signer
from servicecatalog_grpc.aws.transport import Transport
from upstream import REQUEST_ID

LONG_TERM = ReadOnlyCredentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
SESSION = ReadOnlyCredentials("ASIAIOSFODNN7EXAMPLE", "bPxRfiCYEXAMPLEKEY/wJalrXUtnFEMI+K7MDENG", "IQoJb3//a+b/c==")

TEXT = 'Grüße, 世界 🚀 "quoted" \\ a+b&c=d;%20~*\' \t\r\n\x00'

# Lists, maps, what is empty or zero, and text that each protocol writes in its own way.
CALLS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "servicecatalog": {
        "ProvisionProduct": {
            "ProductId": "prod-1",
            "ProvisioningArtifactId": "pa-1",
            "ProvisionedProductName": TEXT,
            "ProvisioningParameters": [{"Key": "size", "Value": ""}, {"Key": "größe", "Value": TEXT}],
            "ProvisioningPreferences": {
                "StackSetAccounts": ["123456789012", "210987654321"],
                "StackSetRegions": [],
                "StackSetFailureToleranceCount": 0,
            },
            "Tags": [{"Key": "team", "Value": "Müller & Söhne"}],
            "NotificationArns": [],
            "ProvisionToken": "order-17",
        },
        "DescribeRecord": {"Id": "rec-1", "PageSize": 20},
        "SearchProvisionedProducts": {
            "AccessLevelFilter": {"Key": "User", "Value": "self"},
            "Filters": {"SearchQuery": [TEXT, "name:b*"]},
        },
        "UpdateProvisionedProductProperties": {
            "ProvisionedProductId": "pp-1",
            "ProvisionedProductProperties": {"OWNER": "arn:aws:iam::123456789012:user/ann", "LAUNCH_ROLE": TEXT},
            "IdempotencyToken": "order-18",
        },
    },
    "sts": {
        "AssumeRole": {
            "RoleArn": "arn:aws:iam::123456789012:role/path/ann+bob&c=d",
            "RoleSessionName": "ann+bob@example.com",
            "SourceIdentity": TEXT,
            "Tags": [{"Key": "a b", "Value": "c+d&e=f%20"}, {"Key": "größe", "Value": ""}],
            "PolicyArns": [],
            "DurationSeconds": 3600,
        },
    },
}
RECORD = CALLS["servicecatalog"]["DescribeRecord"]

ENDPOINT = "http://Host:8000/base"
ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {
    "nothing else": {},
    "FIPS": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "dual stack": {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
    "Frankfurt": {"AWS_REGION": "eu-central-1"},
    "China": {"AWS_REGION": "cn-north-1"},
    "GovCloud": {"AWS_REGION": "us-gov-west-1"},
    "boto3's own variable": {"AWS_REGION": "", "AWS_DEFAULT_REGION": "ap-southeast-2"},
    "the global STS": {"AWS_REGION": "us-west-2", "AWS_STS_REGIONAL_ENDPOINTS": "legacy"},
    "an endpoint with a path": {"AWS_ENDPOINT_URL_SERVICE_CATALOG": ENDPOINT, "AWS_ENDPOINT_URL_STS": ENDPOINT},
    "an endpoint with an odd path": {"AWS_ENDPOINT_URL": "http://[::1]:80/a%20b//c/../d~e/"},
    "an endpoint that has to be quoted": {"AWS_ENDPOINT_URL": "http://host/a b/é/世[|^"},
    "a proxy for HTTP": {"AWS_ENDPOINT_URL": ENDPOINT, "HTTP_PROXY": "http://user:pass@proxy:3128"},
    "a proxy for HTTPS": {"HTTPS_PROXY": "http://user:pass@proxy:3128"},
    "an application": {"AWS_SDK_UA_APP_ID": "orders"},
}


def set_environment(patch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Set these variables, and nothing else of AWS's and of proxies."""
    for name in os.environ:
        if name.startswith(("AWS_", "REQUESTS_")) or name.lower().endswith("_proxy"):
            patch.delenv(name)
    usual = {"AWS_REGION": "us-east-1", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    for name, value in {**usual, **variables}.items():
        patch.setenv(name, value)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {})


class Clients(NamedTuple):
    """The façade's client of a service, and boto3's."""

    facade: AwsClient
    boto3: BaseClient


@pytest.fixture(scope="module")
def clients() -> Mapping[str, Clients]:
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, {})
        return {service: Clients(make_client(service, 1), plain_boto3(service)) for service in CALLS}


def plain_boto3(service: str, keys: ReadOnlyCredentials = SESSION) -> BaseClient:
    session = boto3.Session(keys.access_key, keys.secret_key, keys.token, os.environ["AWS_REGION"] or None)
    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    client: BaseClient = session.client(service, config=config)  # type: ignore[call-overload]  # it knows its services by literals
    return client


# Requests


class Sent(NamedTuple):
    """A request as it goes over the wire, or would go through TLS."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def moment(self) -> datetime:
        return datetime.strptime(self.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def read(message: bytes) -> Sent:
    head, _, body = message.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    assert len(headers) == len(lines)
    return Sent(line, headers, body)


def call(
    client: AwsClient, operation: str, members: Mapping[str, Any], keys: ReadOnlyCredentials, answer: Response
) -> tuple[list[bytes], Any]:
    """Make the call and have it answered with this; return what was sent, and the reply or what was raised instead."""
    sent = []

    async def send(_: Transport, request: bytes, attempt: Attempt) -> Response:
        sent.append(request)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transport, "send", send)
        outcome = outcome_of(lambda: asyncio.run(client.call(operation, members, Attempt(Deadline(10), keys))).reply)
    return sent, outcome


def outcome_of(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - botocore lets its parser's errors through as they are
        return error


def sent_by_facade(
    client: AwsClient, operation: str, members: Mapping[str, Any], keys: ReadOnlyCredentials = SESSION
) -> Sent:
    sent, outcome = call(client, operation, members, keys, Response(500, {}, b""))
    assert len(sent) == 1, outcome
    return read(sent[0])


def sent_by_boto3(client: BaseClient, operation: str, members: Mapping[str, Any], moment: datetime) -> Sent:
    """Return what boto3 would send at the moment: all that urllib3 writes to a connection that ends."""
    written: list[bytes] = []

    def connect(connection: Any) -> None:
        connection.is_verified = True

    def end(_: Any) -> None:
        raise ConnectionResetError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: moment)
        patch.setattr(AWSConnection, "connect", connect, raising=False)
        patch.setattr(AWSConnection, "send", lambda _, data: written.append(data))
        patch.setattr(AWSConnection, "getresponse", end, raising=False)
        with pytest.raises(BotoCoreError):
            getattr(client, xform_name(operation))(**members)
    return read(b"".join(written))


def check_same(ours: Sent, theirs: Sent) -> None:
    assert abs(datetime.now(UTC) - ours.moment) < timedelta(minutes=1)
    agents, ids = [], []
    for sent in (ours, theirs):
        # `m/` is what botocore has counted of its own features.
        agents.append([word for word in sent.headers.pop("user-agent").split() if not word.startswith("m/")])
        ids.append(UUID(sent.headers.pop("amz-sdk-invocation-id")))
    assert ours == theirs
    assert agents[0] == [*agents[1], f"servicecatalog-grpc/{version('servicecatalog-grpc')}"]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_request_is_what_boto3_would_send(
    variables: Mapping[str, str], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, variables)
    ours, theirs = make_client(service, 1), plain_boto3(service)
    for operation, members in CALLS[service].items():
        sent = sent_by_facade(ours, operation, members)
        check_same(sent, sent_by_boto3(theirs, operation, members, sent.moment))


def test_each_request_is_its_own_however_many_went_before() -> None:
    client = make_client("servicecatalog", 1)
    clients = {keys: plain_boto3("servicecatalog", keys) for keys in (LONG_TERM, SESSION)}
    ids = set()
    for keys in (SESSION, LONG_TERM, LONG_TERM, SESSION):
        for members in (RECORD, {"Id": "rec-2"}):
            sent = sent_by_facade(client, "DescribeRecord", members, keys)
            ids.add(sent.headers["amz-sdk-invocation-id"])
            check_same(sent, sent_by_boto3(clients[keys], "DescribeRecord", members, sent.moment))
    assert len(ids) == 8


@pytest.mark.parametrize(
    "token",
    [
        "to+ken==",
        " token",
        "token\t",
        "to  ken",
        "tökén",
        "token€",
    ],
)
def test_a_token_goes_as_it_is_and_is_signed_as_aws_reads_it(token: str, clients: Mapping[str, Clients]) -> None:
    keys = SESSION._replace(token=token)
    sent = sent_by_facade(clients["servicecatalog"].facade, "DescribeRecord", RECORD, keys)
    check_same(sent, sent_by_boto3(plain_boto3("servicecatalog", keys), "DescribeRecord", RECORD, sent.moment))


@pytest.mark.parametrize(
    "value", ["\nPRIVATE", "PRI\rVATE", "PRI\n VATE", "PRIVATE\r\n", "PRIVATE\r\nx-amz-target: other"]
)
@pytest.mark.parametrize("part", ["access_key", "token"])
def test_keys_with_a_line_break_are_refused_and_not_told(part: str, value: str, clients: Mapping[str, Clients]) -> None:
    keys = SESSION._replace(**{part: value})
    sent, error = call(clients["servicecatalog"].facade, "DescribeRecord", RECORD, keys, Response(200, {}, b"{}"))
    assert (sent, type(error)) == ([], ValueError)
    told = "".join([repr(error), *traceback.format_exception(error)])
    assert not [word for word in ("PRI", "VATE", *filter(None, SESSION)) if word in told]


def test_an_operation_that_is_not_signed_like_the_others_is_refused(clients: Mapping[str, Clients]) -> None:
    operation = "AssumeRoleWithWebIdentity"
    sent, error = call(clients["sts"].facade, operation, {}, SESSION, Response(200, {}, b"<x/>"))
    assert (sent, type(error)) == ([], UnsupportedSignatureVersionError)


# Signatures

ORIGINS = [
    "http://host",
    "http://HOST:80",
    "http://host:443",
    "https://host:443",
    "https://host:80",
    "http://user:pass@host:8000",
    "http://[::1]",
    "https://[2001:DB8::1]:8443",
]
MOMENTS = [datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2026, 2, 4, tzinfo=UTC)]

# Headers that botocore leaves out, or puts in by itself.
NOT_SIGNED = {*SIGNED_HEADERS_BLACKLIST, "host", "date", "x-amz-content-sha256", "authorization"}

any_text = st.text(st.characters(exclude_categories=["Cs"]))
any_line = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \t,"))
any_path = st.lists(
    st.sampled_from(["/", "//", ".", "..", "base", " ", "+", "~", "%", "%20", "%2f", "*", ":", "@", "é", "世"])
    | any_text
).map(lambda parts: re.sub(r"[?#\t\r\n]", "", "/".join(["", *parts])))
# Few of each, so that what differs in one of them meets.
any_scope = st.sampled_from(["us-east-1", "eu-central-1"]) | any_text.filter(lambda text: "/" not in text)
any_secret = st.sampled_from(["secret", "geheim"]) | any_text
any_token = st.none() | st.text(string.printable.strip())
any_name = st.text(string.ascii_lowercase + string.digits + "-", min_size=1)


@cache
def authority(origin: str) -> str:
    return Route(origin, verify=True).authority


class Request(NamedTuple):
    """What is signed, with which keys and when."""

    body: bytes
    keys: ReadOnlyCredentials
    moment: datetime


any_request = st.builds(
    Request,
    st.binary(),
    st.builds(ReadOnlyCredentials, any_text, any_secret, any_token),
    st.sampled_from(MOMENTS),
)


def signed_by_botocore(
    url: str, headers: Mapping[str, str], region: str, service: str, request: Request
) -> dict[str, str]:
    """Return what botocore adds to the headers."""
    signed = AWSRequest("POST", url, headers, request.body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: request.moment)
        SigV4Auth(request.keys, service, region).add_auth(signed)
    return {name.lower(): value for name, value in signed.headers.items() if name not in headers}


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(ORIGINS),
    any_path,
    st.dictionaries(any_name.filter(lambda name: name not in NOT_SIGNED), any_line),
    any_scope,
    any_scope,
    st.lists(any_request, min_size=1, max_size=3),
)
def test_a_signature_is_botocores(
    origin: str, path: str, headers: dict[str, str], region: str, service: str, requests: list[Request]
) -> None:
    signer = Signer(origin + path, {**headers, "host": authority(origin)}, region, service)
    for request in requests:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", request.moment.timestamp)
            signed = signer.sign(request.body, request.keys)
        assert signed == signed_by_botocore(origin + path, headers, region, service, request)


# Answers

XML = '<{0}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{1}</{0}Response>'
SESSION_XML = XML.format(
    "AssumeRole",
    "<AssumeRoleResult><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>a+b/c=</SecretAccessKey>"
    "<SessionToken>token&amp;</SessionToken><Expiration>2026-02-03T04:05:06Z</Expiration></Credentials></AssumeRoleResult>"
    "<ResponseMetadata><RequestId>id-of-the-body</RequestId></ResponseMetadata>",
).encode()
ERROR_XML = XML.format(
    "Error", "<Error><Type>Sender</Type><Code>ExpiredTokenException</Code><Message>gone: ü</Message></Error>"
).encode()
RECORD_JSON = json.dumps(
    {"RecordDetail": {"RecordId": "rec-1", "RecordErrors": [{"Code": "ü"}], "Unknown": 1}}
).encode()

HEADERS = {"x-amzn-RequestId": REQUEST_ID, "Content-Type": "text/plain", "Date": "Tue, 03 Feb 2026 04:05:06 GMT"}

ANSWERS: Mapping[str, Mapping[str, tuple[int, bytes]]] = {
    "servicecatalog": {
        "a record": (200, RECORD_JSON),
        "nothing": (200, b""),
        "no members": (200, b"{}"),
        "no content": (204, b""),
        "cut short": (200, RECORD_JSON[:30]),
        "not JSON": (200, b"<html>"),
        "not UTF-8": (200, b"\xff"),
        "a list": (200, b"[]"),
        "a number": (200, b"5"),
        "a member of another kind": (200, b'{"RecordDetail": 5}'),
        "an error": (400, b'{"__type": "ResourceNotFoundException", "Message": "no such record"}'),
        "an error with a prefix": (400, b'{"__type": "com.amazonaws#ThrottlingException", "message": "slow"}'),
        "an error without a type": (400, b'{"message": "no"}'),
        "an error that is null": (400, b"null"),
        "an error without a body": (500, b""),
        "an error in HTML": (503, b"<html><body>later</body></html>"),
        "an error of a proxy": (407, b"<html>who are you?</html>"),
        "choices": (300, b"{}"),
        "elsewhere": (301, b""),
    },
    "sts": {
        "a session": (200, SESSION_XML),
        "nothing": (200, b""),
        "cut short": (200, SESSION_XML[:200]),
        "another answer": (200, b"<x/>"),
        "an error": (400, ERROR_XML),
        "an error cut short": (403, ERROR_XML[:100]),
        "an error in JSON": (400, b"{}"),
        "an error without a body": (500, b""),
        "an error in HTML": (503, b"<html>"),
        "elsewhere": (302, b""),
    },
}

TIMES: list[object] = [0, 1770091506, 1770091506.789, -1e10, 1e20, float("nan"), True, None, [], ""]
TIMES += ["1770091506", "2026-02-03T04:05:06Z", "2026-02-03T04:05:06.789+02:00", "2026-02-03T04:05:06", "yesterday"]


def outcomes(
    clients: Clients, operation: str, status: int, body: bytes, headers: Mapping[str, str] = HEADERS
) -> list[Any]:
    """Have the call answered with this, and return the replies of the façade's client and boto3's, or what they raise."""
    members = {**CALLS["servicecatalog"], **CALLS["sts"]}[operation]
    fields: Any = headers

    def answer(request: AWSPreparedRequest, **_: Any) -> Any:
        return AWSResponse(request.url, status, fields, SimpleNamespace(stream=lambda: [body]))

    lower = {name.lower(): value for name, value in headers.items()}
    _, ours = call(clients.facade, operation, members, SESSION, Response(status, lower, body))
    clients.boto3.meta.events.register("before-send", answer)
    theirs = outcome_of(lambda: getattr(clients.boto3, xform_name(operation))(**members))
    clients.boto3.meta.events.unregister("before-send", answer)
    return [ours, theirs]


def check_same_outcome(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, ClientError):
        # One of a class that only boto3's client has.
        assert type(ours) is ClientError
        assert ours.operation_name == theirs.operation_name
        check_same_outcome(ours.response, theirs.response)
    elif isinstance(theirs, Exception):
        assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    else:
        # What botocore says of its own attempts.
        for name in ("RetryAttempts", "MaxAttemptsReached"):
            theirs["ResponseMetadata"].pop(name, None)
        assert ours == theirs


@pytest.mark.parametrize(
    ("service", "answer"),
    [
        pytest.param(service, answer, id=f"{service}: {name}")
        for service, answers in ANSWERS.items()
        for name, answer in answers.items()
    ],
)
def test_an_answer_becomes_what_it_is_to_boto3(
    service: str, answer: tuple[int, bytes], clients: Mapping[str, Clients]
) -> None:
    operation = "AssumeRole" if service == "sts" else "DescribeRecord"
    check_same_outcome(*outcomes(clients[service], operation, *answer))


@pytest.mark.parametrize("moment", TIMES, ids=repr)
def test_a_time_is_read_as_boto3_reads_it(moment: object, clients: Mapping[str, Clients]) -> None:
    body = json.dumps({"RecordDetail": {"CreatedTime": moment}}).encode()
    check_same_outcome(*outcomes(clients["servicecatalog"], "DescribeRecord", 200, body))


@pytest.mark.parametrize("headers", [{}, HEADERS], ids=["without an id", "with an id"])
def test_null_is_no_answer(headers: Mapping[str, str], clients: Mapping[str, Clients]) -> None:
    ours, theirs = outcomes(clients["servicecatalog"], "DescribeRecord", 200, b"null", headers)
    assert isinstance(ours, Exception)
    assert isinstance(theirs, Exception)
