"""A proxy in front of the sandbox that keeps which session STS gave to whom, and which session signed each request."""

import hashlib
import hmac
import http.client
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from upstream import Behaviour, Request, Upstream, error

_KEYS = re.compile(rb"<(AccessKeyId|SecretAccessKey|SessionToken)>([^<]*)<")
_EXPIRATION = re.compile(rb"(?<=<Expiration>)[^<]*")


@dataclass(frozen=True)
class Session:
    """A session that STS gave."""

    role: str
    name: str
    source_identity: str
    access_key: str
    secret: str
    token: str
    ends: float


class Signed(NamedTuple):
    """A request to Service Catalog, and the session that signed it; None for the server's own credentials."""

    request: Request
    session: Session | None

    @property
    def operation(self) -> str:
        return self.request.target.rpartition(".")[2]


class Recorder:
    """Forwards to the endpoint, except where `sts` or `catalog` says how to answer. STS takes `sts_seconds`."""

    def __init__(self, endpoint_url: str, *, own_access_key: str = "test", own_secret: str = "test") -> None:
        self._address = urlsplit(endpoint_url)
        self._own = own_access_key, own_secret
        self._upstream = Upstream()
        self._upstream.behave(self._handle)
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._signed: list[Signed] = []
        self.asked: list[Mapping[str, str]] = []
        self.mistakes: list[str] = []
        self.url = self._upstream.url
        # How long sessions last, and how much sooner than they say some of them end, in seconds.
        self.lasts = 3600.0
        self.ends_early = 0.0
        self.sts_seconds = 0.0
        self.sts: Callable[[], Behaviour | None] = lambda: None
        self.catalog: Callable[[Signed], Behaviour | None] = lambda _: None

    def close(self) -> None:
        self._upstream.close()

    @property
    def sessions(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    @property
    def signed(self) -> list[Signed]:
        """What Service Catalog was asked, every request of it rightly signed."""
        with self._lock:
            assert self.mistakes == []
            return list(self._signed)

    def _handle(self, connection: socket.socket, request: Request) -> None:
        (self._catalog if "x-amz-target" in request.headers else self._sts)(connection, request)

    def _sts(self, connection: socket.socket, request: Request) -> None:
        asked = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        with self._lock:
            seconds, behaviour = self.sts_seconds, self.sts()
            self.asked.append(asked)
            self._check("STS", request, *self._own, "")
        time.sleep(seconds)
        if behaviour is not None:
            behaviour(connection, request)
            return
        moment = datetime.now(UTC) + timedelta(seconds=self.lasts)
        ends = moment.timestamp() - random.choice((0, self.ends_early))
        answer = _with_length(_EXPIRATION.sub(moment.isoformat().encode(), self._forward(request)))
        keys = {name.decode(): value.decode() for name, value in _KEYS.findall(answer)}
        session = Session(
            asked["RoleArn"],
            asked["RoleSessionName"],
            asked["SourceIdentity"],
            keys["AccessKeyId"],
            keys["SecretAccessKey"],
            keys["SessionToken"],
            ends,
        )
        with self._lock:
            self._sessions[session.access_key] = session
        connection.sendall(answer)

    def _catalog(self, connection: socket.socket, request: Request) -> None:
        access_key = access_key_of(request)
        with self._lock:
            session = self._sessions.get(access_key)
            if session is None:
                self._check("own", request, *self._own, "")
            else:
                self._check(session.name, request, session.access_key, session.secret, session.token)
            signed = Signed(request, session)
            self._signed.append(signed)
        behaviour = self.catalog(signed)
        if behaviour is not None:
            behaviour(connection, request)
        elif session is not None and time.time() > session.ends:
            error("ExpiredTokenException", "The security token included in the request is expired")(connection, request)
        else:
            connection.sendall(self._forward(request))

    def _check(self, who: str, request: Request, access_key: str, secret: str, token: str) -> None:
        """Hold the signature against these keys."""
        if access_key_of(request) != access_key or request.headers.get("x-amz-security-token", "") != token:
            self.mistakes.append(f"{who}: {access_key_of(request)} signed and not {access_key}")
        elif signature_of(request, secret) != request.headers["authorization"].partition("Signature=")[2]:
            self.mistakes.append(f"{who}: not the signature of {access_key}")

    def _forward(self, request: Request) -> bytes:
        """Return the endpoint's answer as it goes over the wire."""
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        with closing(http.client.HTTPConnection(self._address.hostname or "", self._address.port)) as client:
            client.request("POST", "/", body=request.body, headers=headers)
            response = client.getresponse()
            body = response.read()
        lines = [f"HTTP/1.1 {response.status} Forwarded"]
        lines += [f"{name}: {value}" for name, value in response.getheaders() if name.lower() != "transfer-encoding"]
        return "\r\n".join([*lines, "", ""]).encode() + body


def access_key_of(request: Request) -> str:
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def signature_of(request: Request, secret: str) -> str:
    """Return the signature that a POST to `/` must have: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html."""
    authorization = request.headers["authorization"]
    scope = authorization.partition("Credential=")[2].partition(",")[0].partition("/")[2]
    names = authorization.partition("SignedHeaders=")[2].partition(",")[0]
    headers = "".join(f"{name}:{request.headers[name]}\n" for name in names.split(";"))
    canonical = f"POST\n/\n\n{headers}\n{names}\n{hashlib.sha256(request.body).hexdigest()}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{scope}\n{digest}"
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def _with_length(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    return re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % len(body), head) + b"\r\n\r\n" + body
