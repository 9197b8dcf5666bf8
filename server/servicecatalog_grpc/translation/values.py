"""The kinds of values that a protobuf field and a botocore member can share.

Each kind checks a value against the limits of AWS's model, turns it into what boto3 takes, and turns what boto3 gives
back into protobuf. Limits and types come from the Smithy traits that botocore's shapes carry
(https://smithy.io/2.0/spec/constraint-traits.html).
"""

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import regex
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from servicecatalog_grpc.failure import Violation

logger = logging.getLogger(__name__)

WRAPPED = "values"

_MAX_KEY_IN_PATH = 64
_UNSPECIFIED = 0

_EPOCH, _MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)


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


class Value(ABC):
    """One kind of value, on both sides."""

    __slots__ = ()

    @abstractmethod
    def check(self, value: Any, path: str) -> Iterable[Violation]:
        """Return every violation of AWS's limits in the value and below it."""

    @abstractmethod
    def to_aws(self, value: Any) -> Any:
        """Return what boto3 takes."""

    @abstractmethod
    def put(self, message: Message, name: str, raw: Any) -> None:
        """Set the message's field to what boto3 returned. Raises GarbledReplyError where the types do not fit."""


class Scalar(Value):
    """A value that a field, a list or a map of protobuf holds as it is."""

    __slots__ = ()

    @abstractmethod
    def problem_of(self, value: Any) -> str | None:
        """Say how the value breaks AWS's limits, or None."""

    def check(self, value: Any, path: str) -> Iterable[Violation]:
        problem = self.problem_of(value)
        return () if problem is None else (Violation(path, problem),)

    def to_aws(self, value: Any) -> Any:
        return value

    def from_aws(self, raw: Any, _name: str) -> Any:
        """Return what protobuf takes, which then checks the type; `name` is the field's."""
        return raw

    def put(self, message: Message, name: str, raw: Any) -> None:
        _apply(name, setattr, message, name, self.from_aws(raw, name))


class Submessage(Value):
    """A value that is a message, which protobuf never sets as a whole but only fills."""

    __slots__ = ()

    @abstractmethod
    def fill(self, message: Any, raw: Any) -> None:
        """Set the message to what boto3 returned. Raises GarbledReplyError where the types do not fit."""

    def put(self, message: Message, name: str, raw: Any) -> None:
        submessage = getattr(message, name)
        submessage.SetInParent()
        self.fill(submessage, raw)


@dataclass(frozen=True, slots=True)
class Text(Scalar):
    """A string."""

    limits: Limits

    def problem_of(self, value: str) -> str | None:
        limits = self.limits
        problem = limits.problem_of(len(value), "characters")
        if problem is None and limits.choices and value not in limits.choices:
            problem = f"must be one of {', '.join(limits.choices)}"
        # Only a string of a legal length gets to the pattern: matching a megabyte would cost more than it says.
        if problem is None and limits.pattern is not None and not limits.pattern.fullmatch(value):
            problem = f"must match {limits.pattern.pattern} as a whole"
        return problem


@dataclass(frozen=True, slots=True)
class Number(Scalar):
    """An integer."""

    limits: Limits

    def problem_of(self, value: int) -> str | None:
        return self.limits.problem_of(value)


@dataclass(frozen=True, slots=True)
class Flag(Scalar):
    """A boolean."""

    def problem_of(self, _value: object) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Choice(Scalar):
    """An enum in protobuf, one string of a set at AWS."""

    strings: Mapping[int, str]
    numbers: Mapping[str, int]

    def problem_of(self, value: int) -> str | None:
        return None if value in self.strings else f"must be one of {', '.join(self.strings.values())}"

    def to_aws(self, value: int) -> str:
        return self.strings[value]

    def from_aws(self, raw: Any, name: str) -> int:
        if not isinstance(raw, str):
            raise GarbledReplyError(name)
        if raw not in self.numbers:
            logger.warning("AWS sent a %s that the contract does not know: %r", name, raw)
        return self.numbers.get(raw, _UNSPECIFIED)


@dataclass(frozen=True, slots=True)
class Instant(Submessage):
    """A `google.protobuf.Timestamp`, to the microsecond that a Python datetime holds."""

    def check(self, value: Timestamp, path: str) -> Iterator[Violation]:
        try:
            value.ToDatetime()
        except (ValueError, OverflowError):
            yield Violation(path, "must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z")

    def to_aws(self, value: Timestamp) -> datetime:
        return value.ToDatetime(tzinfo=UTC)

    def fill(self, message: Timestamp, raw: Any) -> None:
        if not isinstance(raw, datetime):
            raise GarbledReplyError(Timestamp.DESCRIPTOR.name)
        moment = raw if raw.tzinfo else raw.replace(tzinfo=UTC)
        # FromDatetime goes by the calendar, and takes ten times as long.
        _apply(Timestamp.DESCRIPTOR.name, message.FromMicroseconds, (moment - _EPOCH) // _MICROSECOND)


@dataclass(frozen=True, slots=True)
class Items(Value):
    """A repeated field."""

    item: Scalar | Submessage
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
            if isinstance(self.item, Submessage):
                self.item.fill(items.add(), item)
            else:
                _apply(name, items.append, self.item.from_aws(item, name))


@dataclass(frozen=True, slots=True)
class WrappedItems(Submessage):
    """A message with the one repeated field `values`, for a list at AWS: protobuf has no lists as values of a map."""

    items: Items

    def check(self, value: Any, path: str) -> Iterator[Violation]:
        yield from self.items.check(value.values, f"{path}.{WRAPPED}")

    def to_aws(self, value: Any) -> list[Any]:
        return self.items.to_aws(value.values)

    def fill(self, message: Message, raw: Any) -> None:
        self.items.put(message, WRAPPED, raw)


@dataclass(frozen=True, slots=True)
class Entries(Value):
    """A map from strings."""

    key: Text
    value: Scalar | Submessage
    limits: Limits

    def check(self, value: Mapping[str, Any], path: str) -> Iterator[Violation]:
        problem = self.limits.problem_of(len(value), "entries")
        if problem is not None:
            yield Violation(path, problem)
        for key, entry in value.items():
            place = entry_path(path, key)
            yield from self.key.check(key, place)
            yield from self.value.check(entry, place)

    def to_aws(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.value.to_aws(entry) for key, entry in value.items()}

    def put(self, message: Message, name: str, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise GarbledReplyError(name)
        entries = getattr(message, name)
        for key, entry in raw.items():
            if isinstance(self.value, Submessage):
                # A map of messages makes an entry when it is asked for one.
                self.value.fill(entries[key], entry)
            else:
                _apply(name, entries.__setitem__, key, self.value.from_aws(entry, name))


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a message and the member of the shape that it is paired with.

    `name` is protobuf's and `member` is AWS's. `chosen_by_server` marks a token: AWS requires it, callers need not.
    """

    name: str
    member: str
    value: Value
    chosen_by_server: bool


@dataclass(frozen=True, slots=True)
class Structure(Submessage):
    """A message and the structure shape that it is paired with.

    A field is absent if protobuf says so: an `optional` or oneof field that was not set, any other one with its default
    value. `required` has the names of those that callers have to give.
    """

    shape: str
    members: tuple[Member, ...]
    required: tuple[str, ...]
    by_number: Mapping[int, Member] = field(repr=False)

    def check(self, value: Message, path: str) -> Iterator[Violation]:
        prefix = f"{path}." if path else ""
        fields = value.ListFields()
        if self.required:
            present = {descriptor.name for descriptor, _ in fields}
            yield from (Violation(prefix + name, "is required") for name in self.required if name not in present)
        for descriptor, item in fields:
            yield from self.by_number[descriptor.number].value.check(item, prefix + descriptor.name)

    def to_aws(self, value: Message) -> dict[str, Any]:
        result = {}
        for descriptor, item in value.ListFields():
            member = self.by_number[descriptor.number]
            result[member.member] = member.value.to_aws(item)
        return result

    def fill(self, message: Message, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise GarbledReplyError(self.shape)
        for member in self.members:
            if raw.get(member.member) is not None:
                member.value.put(message, member.name, raw[member.member])


def entry_path(path: str, key: str) -> str:
    """Return the protobuf path of a map's entry, e.g. `provisioned_product_properties["OWNER"]`."""
    shown = key if len(key) <= _MAX_KEY_IN_PATH else key[:_MAX_KEY_IN_PATH] + "…"
    return f"{path}[{json.dumps(shown, ensure_ascii=False)}]"


def _apply(name: str, setter: Callable[..., Any], *arguments: Any) -> None:
    """Hand AWS's value for the field to protobuf, which checks its type."""
    try:
        setter(*arguments)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise GarbledReplyError(name) from error
