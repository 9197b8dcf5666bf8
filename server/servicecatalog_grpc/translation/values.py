"""The kinds of values that a protobuf field and a botocore member can share.

Each kind checks a value against the limits of AWS's model, turns it into what boto3 takes, and turns what boto3 gives
back into protobuf. Limits and types come from the Smithy traits that botocore's shapes carry
(https://smithy.io/2.0/spec/constraint-traits.html).
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Protocol

import regex
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from servicecatalog_grpc.failure import Violation

logger = logging.getLogger(__name__)

_MAX_KEY_IN_PATH = 64


class GarbledReplyError(Exception):
    """AWS's reply does not have the form of AWS's model."""


class Limits(NamedTuple):
    """The constraints of a botocore shape; None where it has none.

    `minimum` and `maximum` bound a number's value, a string's length in code points, or a list's or map's entries.
    `pattern` must match the whole value.
    """

    minimum: int | None = None
    maximum: int | None = None
    pattern: "regex.Pattern[str] | None" = None
    choices: tuple[str, ...] = ()

    def problem_of(self, size: int, unit: str = "") -> str | None:
        """Say how the size breaks the bounds, or None; `unit` is what it counts, e.g. `characters`."""
        low, high = self.minimum, self.maximum
        if (low is None or size >= low) and (high is None or size <= high):
            return None
        bounds = f"at most {high}" if low is None else f"at least {low}" if high is None else f"{low} to {high}"
        return f"must have {bounds} {unit}, has {size}" if unit else f"must be {bounds}"


class Value(Protocol):
    """One kind of value, on both sides."""

    def check(self, value: Any, path: str) -> Iterator[Violation]:
        """Yield every violation of AWS's limits in the value and below it."""

    def to_aws(self, value: Any) -> Any:
        """Return what boto3 takes."""

    def put(self, message: Message, name: str, raw: Any) -> None:
        """Set the message's field to what boto3 returned. Raises GarbledReplyError where the types do not fit."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    limits: Limits

    def check(self, value: str, path: str) -> Iterator[Violation]:
        limits = self.limits
        problem = limits.problem_of(len(value), "characters")
        if problem is None and limits.choices and value not in limits.choices:
            problem = f"must be one of {', '.join(limits.choices)}"
        # Only a string of a legal length gets to the pattern: matching a megabyte would cost more than it says.
        if problem is None and limits.pattern is not None and not limits.pattern.fullmatch(value):
            problem = f"must match {limits.pattern.pattern} as a whole"
        if problem is not None:
            yield Violation(path, problem)

    def to_aws(self, value: str) -> str:
        return value

    def put(self, message: Message, name: str, raw: Any) -> None:
        _apply(partial(setattr, message, name), raw, name)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer."""

    limits: Limits

    def check(self, value: int, path: str) -> Iterator[Violation]:
        problem = self.limits.problem_of(value)
        if problem is not None:
            yield Violation(path, problem)

    def to_aws(self, value: int) -> int:
        return value

    def put(self, message: Message, name: str, raw: Any) -> None:
        _apply(partial(setattr, message, name), raw, name)


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""

    def check(self, _value: object, _path: str) -> Iterator[Violation]:
        return iter(())

    def to_aws(self, value: object) -> object:
        return value

    def put(self, message: Message, name: str, raw: Any) -> None:
        _apply(partial(setattr, message, name), raw, name)


@dataclass(frozen=True, slots=True)
class Choice:
    """An enum in protobuf, one string of a set at AWS."""

    strings: Mapping[int, str]
    numbers: Mapping[str, int]

    def check(self, value: int, path: str) -> Iterator[Violation]:
        if value not in self.strings:
            yield Violation(path, f"must be one of {', '.join(self.strings.values())}")

    def to_aws(self, value: int) -> str:
        return self.strings[value]

    def put(self, message: Message, name: str, raw: Any) -> None:
        if not isinstance(raw, str):
            raise GarbledReplyError(name)
        if raw in self.numbers:
            setattr(message, name, self.numbers[raw])
        else:
            logger.warning("AWS sent a %s that the contract does not know: %r", name, raw)


@dataclass(frozen=True, slots=True)
class Instant:
    """A `google.protobuf.Timestamp`, to the microsecond that a Python datetime holds."""

    def check(self, value: Timestamp, path: str) -> Iterator[Violation]:
        try:
            value.ToDatetime()
        except (ValueError, OverflowError):
            yield Violation(path, "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z")

    def to_aws(self, value: Timestamp) -> datetime:
        return value.ToDatetime(tzinfo=UTC)

    def put(self, message: Message, name: str, raw: Any) -> None:
        if not isinstance(raw, datetime):
            raise GarbledReplyError(name)
        getattr(message, name).FromDatetime(raw)


@dataclass(frozen=True, slots=True)
class Items:
    """A repeated field."""

    item: Value
    limits: Limits

    def check(self, value: Sequence[Any], path: str) -> Iterator[Violation]:
        problem = self.limits.problem_of(len(value), "entries")
        if problem is not None:
            yield Violation(path, problem)
        for index, item in enumerate(value):
            yield from self.item.check(item, f"{path}[{index}]")

    def to_aws(self, value: Sequence[Any]) -> list[Any]:
        return [self.item.to_aws(item) for item in value]

    def put(self, message: Message, name: str, raw: Any) -> None:
        if not isinstance(raw, list):
            raise GarbledReplyError(name)
        items = getattr(message, name)
        for item in raw:
            if isinstance(self.item, Structure):
                self.item.fill(items.add(), item)
            else:
                _apply(items.append, item, name)


@dataclass(frozen=True, slots=True)
class Entries:
    """A map of strings."""

    key: Text
    value: Text
    limits: Limits

    def check(self, value: Mapping[str, str], path: str) -> Iterator[Violation]:
        problem = self.limits.problem_of(len(value), "entries")
        if problem is not None:
            yield Violation(path, problem)
        for key, entry in value.items():
            place = entry_path(path, key)
            yield from self.key.check(key, place)
            yield from self.value.check(entry, place)

    def to_aws(self, value: Mapping[str, str]) -> dict[str, str]:
        return dict(value)

    def put(self, message: Message, name: str, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise GarbledReplyError(name)
        _apply(getattr(message, name).update, raw, name)


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a message and the member of the shape that it is paired with.

    `name` is protobuf's and `member` is AWS's. `chosen_by_server` marks a token: AWS requires it, callers need not.
    """

    name: str
    member: str
    value: Value
    required: bool
    chosen_by_server: bool


@dataclass(frozen=True, slots=True)
class Structure:
    """A message and the structure shape that it is paired with.

    A field is absent if protobuf says so: an `optional` or oneof field that was not set, any other one with its default
    value.
    """

    shape: str
    members: tuple[Member, ...]
    by_number: Mapping[int, Member] = field(repr=False)

    def check(self, value: Message, path: str) -> Iterator[Violation]:
        prefix = f"{path}." if path else ""
        fields = value.ListFields()
        present = {descriptor.name for descriptor, _ in fields}
        for member in self.members:
            if member.required and not member.chosen_by_server and member.name not in present:
                yield Violation(prefix + member.name, "is required")
        for descriptor, item in fields:
            yield from self.by_number[descriptor.number].value.check(item, prefix + descriptor.name)

    def to_aws(self, value: Message) -> dict[str, Any]:
        result = {}
        for descriptor, item in value.ListFields():
            member = self.by_number[descriptor.number]
            result[member.member] = member.value.to_aws(item)
        return result

    def put(self, message: Message, name: str, raw: Any) -> None:
        submessage = getattr(message, name)
        submessage.SetInParent()
        self.fill(submessage, raw)

    def fill(self, message: Message, raw: Any) -> None:
        """Set the message's fields to the members of the dict that boto3 returned."""
        if not isinstance(raw, dict):
            raise GarbledReplyError(self.shape)
        for member in self.members:
            if raw.get(member.member) is not None:
                member.value.put(message, member.name, raw[member.member])


def entry_path(path: str, key: str) -> str:
    """Return the protobuf path of a map's entry, e.g. `provisioned_product_properties["OWNER"]`."""
    shown = key if len(key) <= _MAX_KEY_IN_PATH else key[:_MAX_KEY_IN_PATH] + "…"
    return f"{path}[{json.dumps(shown, ensure_ascii=False)}]"


def _apply(setter: Callable[[Any], Any], raw: Any, name: str) -> None:
    """Hand AWS's value to protobuf, which checks its type."""
    try:
        setter(raw)
    except (TypeError, ValueError, AttributeError) as error:
        raise GarbledReplyError(name) from error
