"""The idempotency token: always one of the server's own choosing, or botocore would make up a new one at each attempt.

AWS answers a repeat with the same token and the same request with the record that it already has, and refuses the same
token with another request.
"""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from google.protobuf.message import Message

from servicecatalog_grpc.caller import Caller
from servicecatalog_grpc.failure import Violation
from servicecatalog_grpc.translation.pairing import Operation

# https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
IDEMPOTENCY_KEY = "idempotency-key"
# https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-request-id
REQUEST_ID = "x-request-id"

# As random as a UUID, or a little more.
_RANDOM_BYTES = 16

Metadata = Sequence[tuple[str, str | bytes]]


class TokenSource(StrEnum):
    """Where a token comes from, the strongest first."""

    REQUEST = "request"
    IDEMPOTENCY_KEY = "idempotency-key"
    REQUEST_ID = "request-id"
    RANDOM = "random"


class Token(NamedTuple):
    """The token in force for a call."""

    value: str
    source: TokenSource


def choose_token(operation: Operation, request: Message, metadata: Metadata, caller: Caller) -> Token | None:
    """Return the token in force, or None for an operation that only reads.

    In order: the request's own; a digest of the caller's key; a digest of the proxy's request id and of the request,
    because one id can span several calls; a random one. Both digests have the caller and its role in them, so that nobody's
    key meets another's record.
    """
    if operation.token is None:
        return None
    own = getattr(request, operation.token.name)
    if own:
        return Token(own, TokenSource.REQUEST)
    # Without a role it is no part at all, so that the digests of such callers stay what they have always been.
    who = caller if caller.role else (caller.identity,)
    key = _only(metadata, IDEMPOTENCY_KEY)
    if key:
        return Token(_digest("key", *who, operation.method, key), TokenSource.IDEMPOTENCY_KEY)
    request_id = _only(metadata, REQUEST_ID)
    if request_id:
        content = request.SerializeToString(deterministic=True)
        return Token(_digest("rid", *who, operation.method, request_id, content), TokenSource.REQUEST_ID)
    return Token(f"rnd-{secrets.token_hex(_RANDOM_BYTES)}", TokenSource.RANDOM)


def broken_keys(operation: Operation, metadata: Metadata) -> Iterator[Violation]:
    """Yield what is wrong with the caller's idempotency key: an empty or ambiguous one would not protect anything."""
    keys = [value.strip() for name, value in metadata if name == IDEMPOTENCY_KEY]
    if operation.token is None or not keys:
        return
    if len(keys) > 1:
        yield Violation(IDEMPOTENCY_KEY, f"must be given once in the metadata, is there {len(keys)} times")
    elif not keys[0]:
        yield Violation(IDEMPOTENCY_KEY, "must not be empty in the metadata")


def _only(metadata: Metadata, name: str) -> str:
    """Return the value of the metadata; without the space around it, which a proxy on the way may have dropped."""
    return ",".join(value.strip() for key, value in metadata if key == name and isinstance(value, str))


def _digest(source: str, *parts: str | bytes) -> str:
    """Return a token of AWS's form for the parts; each goes in with its length, so that no two lists look alike."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return f"{source}-{digest.hexdigest()}"
