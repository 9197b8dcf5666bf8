"""Compares what a client made of a row with what the row expects, and with what came over the wire.

Everything here returns problems as texts for people; none means that the client did right.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from conformance_front import Attempt
from conformance_rows import KEYS, METHODS, Expect, Row
from google.protobuf.json_format import MessageToDict, MessageToJson, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from servicecatalog.v1.error_reason_pb2 import ErrorReason

FILLED_IN, OWN = "filled in", "the request's"
UNSPECIFIED = "UNSPECIFIED"
CODES = frozenset(code.name for code in grpc.StatusCode)
REASONS = frozenset(name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name)
_OUTCOME = frozenset({"code", "response", "reason", "message", "violations", "retryDelay", "token", "repeated"})

# A string of an expectation that begins so is a regular expression for the whole value.
_PATTERN = "~"

# What the layer gives a unary call that sets no deadline, less what making the connection takes, more what gRPC adds
# when it rounds.
_DEFAULT_DEADLINE = (25.0, 31.0)
_DEADLINE_ROUNDING = 1.05
_DEADLINE_DELAY = 3.0


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the harness saw of a row: the attempts at the front (None where there is no front), and what AWS got.

    `used` are the tokens that were filled in in rows before, `seconds` the time that the row took.
    """

    attempts: Sequence[Attempt] | None = None
    aws: Sequence[Mapping[str, Any]] = ()
    products: int = 0
    seconds: float = 0.0
    used: frozenset[str] = field(default_factory=frozenset)


def problems_of(row: Row, outcome: Any, observed: Observed) -> list[str]:
    """Return all that is wrong with the outcome of a row whose placeholders are filled."""
    if not isinstance(outcome, Mapping):
        return [f"the outcome must be an object, is {outcome!r}"]
    expect = Expect(**row.expect)
    sent = _sent_token(row, observed)
    problems = [*_outcome_problems(row, expect, outcome, sent, observed)]
    repeated = outcome.get("repeated")
    if expect.repeated is not None and not isinstance(repeated, Mapping):
        problems.append("repeated: expected the outcome of the second call, got none")
    elif expect.repeated is None and repeated is not None:
        problems.append("repeated: expected none, got one")
    elif expect.repeated is not None and isinstance(repeated, Mapping):
        again = _outcome_problems(row, Expect(**expect.repeated), repeated, outcome.get("token"), observed)
        problems += [f"repeated: {problem}" for problem in again]
    problems += _sent_problems(row, observed, first_token=sent, failure_token=outcome.get("token"))
    problems += _aws_problems(expect, observed)
    return problems


def filled_in(row: Row, observed: Observed) -> str | None:
    """Return the token that the client made up for the call, None if it made up none."""
    return _sent_token(row, observed) if _must_fill_in(row) else None


def _outcome_problems(
    row: Row, expect: Expect, outcome: Mapping[str, Any], sent: Any, observed: Observed
) -> Iterator[str]:
    if unknown := set(outcome) - _OUTCOME:
        yield f"the outcome has {', '.join(sorted(unknown))}, which the protocol does not"
    code, reason = outcome.get("code"), outcome.get("reason")
    if code not in CODES:
        yield f"code: must be one of gRPC's names, is {code!r}"
    elif code != expect.code:
        yield f"code: expected {expect.code}, got {code} ({outcome.get('message') or 'no message'})"
    if reason is not None and reason not in REASONS:
        yield f"reason: must be a name of ErrorReason without its prefix, is {reason!r}"
    else:
        yield from _reason_problems(expect, reason)
    message = outcome.get("message") or ""
    if expect.message not in message:
        yield f"message: expected {expect.message!r} in it, got {message!r}"
    yield from _violation_problems(expect.violations, outcome.get("violations") or [])
    yield from _range_problems("retryDelay", expect.retryDelay, outcome.get("retryDelay"))
    yield from _token_problems(row, expect.token, outcome.get("token"), sent)
    yield from _response_problems(row, expect, outcome.get("response"), observed)
    yield from _range_problems("seconds", expect.seconds, observed.seconds if expect.seconds else None)


def _reason_problems(expect: Expect, reason: str | None) -> Iterator[str]:
    wanted = [expect.reason] if isinstance(expect.reason, str) or expect.reason is None else list(expect.reason)
    if reason not in wanted:
        yield f"reason: expected {' or '.join(map(str, wanted))}, got {reason}"


def _violation_problems(expected: Sequence[Mapping[str, str]], got: Any) -> Iterator[str]:
    fields = [violation.get("field") or "" for violation in got]
    wanted = [violation["field"] for violation in expected]
    if fields != wanted:
        yield f"violations: expected the fields {wanted}, got {fields}"
        return
    for want, violation in zip(expected, got, strict=True):
        description = violation.get("description") or ""
        if not description or want.get("description", "") not in description:
            yield (
                f"violations: expected {want.get('description', 'some description')!r} for {want['field']}, "
                f"got {description!r}"
            )


def _range_problems(name: str, wanted: Sequence[float] | None, got: Any) -> Iterator[str]:
    if wanted is None:
        if got is not None:
            yield f"{name}: expected none, got {got}"
    elif not isinstance(got, int | float) or not wanted[0] <= got <= wanted[1]:
        yield f"{name}: expected {wanted[0]} to {wanted[1]} s, got {got}"


def _token_problems(row: Row, wanted: str | None, got: Any, sent: Any) -> Iterator[str]:
    if wanted is None:
        if got is not None:
            yield f"token: expected none, got {got!r}"
    elif wanted == OWN:
        if got != (own := _own_token(row)):
            yield f"token: expected the request's, {own!r}, got {got!r}"
    elif wanted == FILLED_IN:
        if got is None or got != sent:
            yield f"token: expected the one that was filled in, {sent!r}, got {got!r}"
    elif differences := list(_differences(wanted, got, "token")):
        yield from differences


def _response_problems(row: Row, expect: Expect, response: Any, observed: Observed) -> Iterator[str]:
    if expect.code != "OK":
        if response:
            yield "response: expected none"
        return
    kind: type[Message] = GetMessageClass(METHODS[row.method].output_type)
    try:
        message = ParseDict(response, kind())
    except (ParseError, AttributeError, TypeError) as error:
        yield f"response: is not a {kind.DESCRIPTOR.name}: {error}"
        return
    wire = [answer for attempt in observed.attempts or () for answer in attempt.responses]
    if wire and message != kind.FromString(wire[-1]):
        yield f"response: is not what came over the wire, {MessageToJson(kind.FromString(wire[-1]), indent=None)}"
    if expect.response is not None:
        shown = MessageToDict(message, always_print_fields_with_no_presence=True)
        yield from _differences(expect.response, shown, "response")


def _differences(wanted: Any, got: Any, path: str) -> Iterator[str]:
    """Yield where `got` is not as wanted: objects may have more members, None wants nothing there."""
    if isinstance(wanted, Mapping) and isinstance(got, Mapping):
        for key, value in wanted.items():
            yield from _differences(value, got.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for index, (want, have) in enumerate(zip(wanted, got, strict=True)):
            yield from _differences(want, have, f"{path}[{index}]")
    elif isinstance(wanted, str) and wanted.startswith(_PATTERN) and isinstance(got, str):
        if not re.fullmatch(wanted.removeprefix(_PATTERN), got):
            yield f"{path}: expected something like {wanted.removeprefix(_PATTERN)}, got {got!r}"
    elif wanted != got or isinstance(wanted, bool) is not isinstance(got, bool):
        yield f"{path}: expected {wanted!r}, got {got!r}"


def _sent_problems(row: Row, observed: Observed, *, first_token: Any, failure_token: Any) -> Iterator[str]:
    """Yield what is wrong with the attempts that the client made: these rules hold for every row."""
    expect = Expect(**row.expect)
    if observed.attempts is None:
        return
    yield from _count_problems("attempts", expect.attempts, len(observed.attempts))
    for number, (attempt, want) in enumerate(zip(observed.attempts[1:], expect.pauses, strict=False), 1):
        pause = attempt.at - observed.attempts[number - 1].at
        if not want[0] <= pause <= want[1]:
            yield f"pauses: expected {want[0]} to {want[1]} s before attempt {number + 1}, got {pause:.2f} s"
    yield from _token_rule_problems(row, first_token, observed.used)
    for number, attempt in enumerate(observed.attempts, 1):
        where = f"attempt {number}"
        if attempt.method != f"/{row.full_method}":
            yield f"{where}: expected a call of {row.full_method}, got {attempt.method}"
            continue
        yield from _request_problems(row, attempt, where, {first_token, failure_token if row.repeat else first_token})
        yield from _metadata_problems(row, attempt, where)
        yield from _deadline_problems(row, attempt, where)


def _token_rule_problems(row: Row, token: Any, used: frozenset[str]) -> Iterator[str]:
    """Yield what is wrong with the token in the first request as it was sent."""
    if _must_fill_in(row):
        if not _is_uuid(token):
            yield f"the request: expected a UUID to be filled in as its token, got {token!r}"
        elif token in used:
            yield f"the request: its token {token!r} was filled in for another call before"
    elif (own := _own_token(row)) and token != own:
        yield f"the request: expected its own token {own!r}, got {token!r}"
    elif not own and token is not None:
        yield f"the request: expected no token to be filled in beside a key in the metadata, got {token!r}"


def _request_problems(row: Row, attempt: Attempt, where: str, tokens: set[Any]) -> Iterator[str]:
    wanted: Any = row.request_message()
    got: Any = type(wanted).FromString(attempt.request)
    if row.token_field is not None:
        token = getattr(got, row.token_field)
        if token not in {each or "" for each in tokens}:
            yield f"{where}: expected the same token as before, {', '.join(map(repr, tokens))}, got {token!r}"
        wanted.ClearField(row.token_field)
        got.ClearField(row.token_field)
    if got != wanted:
        yield f"{where}: expected the request {_shown(wanted)}, got {_shown(got)}"


def _metadata_problems(row: Row, attempt: Attempt, where: str) -> Iterator[str]:
    for key, value in row.metadata.items():
        if attempt.metadata.get(key) != value:
            yield f"{where}: expected the metadata {key}: {value!r}, got {attempt.metadata.get(key)!r}"


def _deadline_problems(row: Row, attempt: Attempt, where: str) -> Iterator[str]:
    got = attempt.deadline
    if row.deadline is None and row.wait:
        if got is not None:
            yield f"{where}: expected no deadline for a watch, got {got:.1f} s"
        return
    low, high = _DEFAULT_DEADLINE
    if row.deadline is not None:
        # A repeat has less time left; how much is gone is for the row's `seconds` to say.
        low, high = max(0.0, row.deadline - _DEADLINE_DELAY), row.deadline * _DEADLINE_ROUNDING
    if got is None or not low <= got <= high:
        yield f"{where}: expected a deadline of {low:g} to {high:g} s, got {got if got is None else round(got, 1)}"


def _aws_problems(expect: Expect, observed: Observed) -> Iterator[str]:
    wanted = dict(expect.aws)
    yield from _count_problems("requests to AWS", wanted.pop("requests", None), len(observed.aws))
    tokens = {value for body in observed.aws for key, value in body.items() if key in _AWS_TOKENS}
    yield from _count_problems("tokens at AWS", wanted.pop("tokens", None), len(tokens))
    yield from _count_problems("provisioned products", wanted.pop("products", None), observed.products)
    if "request" in wanted:
        got = observed.aws[-1] if observed.aws else None
        yield from _differences(wanted.pop("request"), got, "the request to AWS")
    for unknown in wanted:
        yield f"the row expects {unknown} of AWS, which the harness does not know"


_AWS_TOKENS = frozenset({"ProvisionToken", "UpdateToken", "IdempotencyToken", "TerminateToken"})


def _count_problems(name: str, wanted: Any, got: int) -> Iterator[str]:
    low, high = wanted if isinstance(wanted, list) else (wanted, wanted)
    if wanted is not None and not low <= got <= high:
        yield f"{name}: expected {low if low == high else f'{low} to {high}'}, got {got}"


def _own_token(row: Row) -> Any:
    return row.request.get(_camel(row.token_field)) if row.token_field else None


def _must_fill_in(row: Row) -> bool:
    return row.token_field is not None and not _own_token(row) and not _left_to_facade(row)


def _left_to_facade(row: Row) -> bool:
    return any(key in row.metadata for key in KEYS)


def _sent_token(row: Row, observed: Observed) -> str | None:
    """Return the token in the first request, as it left the client."""
    if row.token_field is None:
        return None
    if observed.attempts:
        request = GetMessageClass(METHODS[row.method].input_type).FromString(observed.attempts[0].request)
        return getattr(request, row.token_field) or None
    return next((value for body in observed.aws for key, value in body.items() if key in _AWS_TOKENS), None)


def _is_uuid(text: Any) -> bool:
    try:
        return bool(str(uuid.UUID(text)) == text)
    except (AttributeError, TypeError, ValueError):
        return False


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _shown(message: Message) -> str:
    return MessageToJson(message, indent=None)
