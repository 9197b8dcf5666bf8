"""What is known of the call being served: noted on its way, told at its end by its span and its access line."""

import hashlib
import json
from collections.abc import Collection, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import regex
from opentelemetry import trace

from servicecatalog_grpc.caller import ANONYMOUS
from servicecatalog_grpc.failure import Failure, Violation
from servicecatalog_grpc.telemetry import instruments
from servicecatalog_grpc.translation.tokens import Token
from servicecatalog_grpc.translation.values import Entries, Items, Structure

# The conventions have names for people only: `enduser.id` and `user.id`.
CALLER = "servicecatalog.caller"
RECORD_ID = "servicecatalog.record.id"
PROVISIONED_PRODUCT_ID = "servicecatalog.provisioned_product.id"
TOKEN_DIGEST = "servicecatalog.token.digest"  # noqa: S105 - an attribute's name

_DIGEST_CHARACTERS = 16
_MAP_KEY = regex.compile(r'\["((?:[^"\\]|\\.)*)"\]')


@dataclass(slots=True)
class Call:
    """One call, as far as it is known. What is None has not come to be."""

    caller: str = ANONYMOUS
    reason: str | None = None
    aws_request_id: str | None = None
    record_id: str | None = None
    provisioned_product_id: str | None = None
    token_digest: str | None = None
    token_source: str | None = None
    attempts: int = 0
    left: float | None = None

    def take_token(self, token: Token) -> None:
        """Note the token in force: never the token itself, with which anybody could repeat the call."""
        self.token_digest = token_digest(token.value)
        self.token_source = token.source.value
        instruments.tokens[self.token_source] += 1

    def refuse(self, request: Structure, violations: Iterable[Violation]) -> None:
        """Note which fields of the request break rules: their names, and never their values."""
        known = _known_keys(request)
        fields = [_without_unknown_keys(violation.field, known) for violation in violations]
        trace.get_current_span().add_event("invalid_request", {"servicecatalog.invalid_fields": fields})

    def read(self, message: Any, aws_request_id: str | None = None) -> None:
        """Note the ids that a request or a response has."""
        # An attribute that a message lacks costs it a message of its own.
        known = message.DESCRIPTOR.fields_by_name
        if "record_detail" in known:
            message, known = message.record_detail, message.record_detail.DESCRIPTOR.fields_by_name
        if "record_id" in known:
            self.record_id = message.record_id or self.record_id
        if "provisioned_product_id" in known:
            self.provisioned_product_id = message.provisioned_product_id or self.provisioned_product_id
        self.aws_request_id = aws_request_id or self.aws_request_id

    def fail(self, failure: Failure) -> None:
        """Note why the call fails."""
        self.reason = failure.reason.name
        self.aws_request_id = failure.metadata.get("aws_request_id") or self.aws_request_id

    def leave(self, moment: float) -> None:
        """Note that the caller left at this moment of the monotonic clock, although the call went on until AWS answered."""
        self.left = moment


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def begin_call() -> Call:
    """Make a call the current one of this task and of what it starts."""
    call = Call()
    _current.set(call)
    return call


def current_call() -> Call:
    """Return the current call; outside of any, one that nobody will ask."""
    return _current.get() or Call()


def token_digest(token: str) -> str:
    """Return what stands for the token wherever people can read it."""
    return hashlib.sha256(token.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _known_keys(value: object) -> set[str]:
    """Return the keys that AWS's model knows of the maps in a structure."""
    if isinstance(value, Structure):
        return set().union(*(_known_keys(member.value) for member in value.members))
    if isinstance(value, Items):
        return _known_keys(value.item)
    if isinstance(value, Entries):
        return {*value.key.limits.choices, *_known_keys(value.value)}
    return set()


def _without_unknown_keys(path: str, known: Collection[str]) -> str:
    """Return the path with only such keys of maps as AWS knows: any other one is the caller's text."""
    return _MAP_KEY.sub(lambda match: match[0] if json.loads(f'"{match[1]}"') in known else "[…]", path)
