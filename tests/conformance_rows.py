"""The rows of the conformance table: reading them, and putting values in the place of their placeholders."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from servicecatalog.v1 import (
    catalog_service_pb2,
    provisioned_product_service_pb2,
    provisioning_service_pb2,
    record_service_pb2,
)

TABLE = Path(__file__).with_name("conformance")
_CALLS = TABLE / "calls.json"

# Where the outcomes of a run are kept, a file for each language.
RESULTS = Path(__file__).parents[1] / "build" / "conformance"

LANGUAGES = ("python", "python-aio", "go", "java", "typescript")

METHODS: Mapping[str, MethodDescriptor] = {
    method.name: method
    for service in (
        provisioning_service_pb2.DESCRIPTOR.services_by_name["ProvisioningService"],
        record_service_pb2.DESCRIPTOR.services_by_name["RecordService"],
        catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
        provisioned_product_service_pb2.DESCRIPTOR.services_by_name["ProvisionedProductService"],
    )
    for method in service.methods
}

# The field of each write that holds its idempotency token.
TOKEN_FIELDS: Mapping[str, str] = {
    "ProvisionProduct": "provision_token",
    "UpdateProvisionedProduct": "update_token",
    "UpdateProvisionedProductProperties": "idempotency_token",
    "TerminateProvisionedProduct": "terminate_token",
}

# Metadata from which the façade makes the token of a request without one.
KEYS = ("idempotency-key", "x-request-id")

WATCH = "WatchRecord"

_PLACEHOLDER = re.compile(r"\$\{([^}]+)\}")
_CHARACTERS = re.compile(r"(\d+) characters")


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What a row expects. What it does not name must be absent from a failure, and does not matter otherwise."""

    code: str
    response: Mapping[str, Any] | None = None
    reason: str | Sequence[str] | None = None
    message: str = ""
    violations: Sequence[Mapping[str, str]] = ()
    retryDelay: Sequence[float] | None = None  # noqa: N815 - as the runners say it
    token: str | None = None
    attempts: Any = None
    pauses: Sequence[Sequence[float]] = ()
    seconds: Sequence[float] | None = None
    aws: Mapping[str, Any] = field(default_factory=dict)
    repeated: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. See conformance/README.md for the fields."""

    name: str
    why: str
    method: str
    request: Mapping[str, Any]
    expect: Mapping[str, Any]
    given: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None
    repeat: bool = False
    facade: str = "default"
    aws: Sequence[Any] = ()
    front: Sequence[Any] = ()
    direct: bool = False
    meanwhile: str | None = None

    @cached_property
    def wait(self) -> bool:
        """Whether the row is about `wait`."""
        return self.method == WATCH

    @cached_property
    def full_method(self) -> str:
        """The method as gRPC names it, without the first slash."""
        descriptor = METHODS[self.method]
        return f"{descriptor.containing_service.full_name}/{descriptor.name}"

    @property
    def aws_operation(self) -> str:
        """The operation by which AWS hears of the call."""
        return "DescribeRecord" if self.wait else self.method

    @property
    def token_field(self) -> str | None:
        """The request's field for the token; None for a read."""
        return TOKEN_FIELDS.get(self.method)

    def request_message(self) -> Message:
        """Return the request as a message. Raises json_format.ParseError."""
        return ParseDict(dict(self.request), GetMessageClass(METHODS[self.method].input_type)())

    def filled(self, variables: Mapping[str, str]) -> "Row":
        """Return the row with values in the place of its placeholders. Raises KeyError for one without a value."""
        return Row(**{each.name: fill(getattr(self, each.name), variables) for each in fields(self)})


def load() -> list[Row]:
    """Return all rows, file by file. Raises TypeError for a row that lacks a field or has one too many."""
    calls = _read(_CALLS)
    return [_row(row, calls) for path in sorted(TABLE.glob("*.json")) if path != _CALLS for row in _read(path)]


def _row(row: Mapping[str, Any], calls: Mapping[str, Mapping[str, Any]]) -> Row:
    """Return a row, to which the call that it names gives what it does not say itself."""
    own = dict(row)
    call = calls[own.pop("call")] if "call" in own else {}
    request = {**call.get("request", {}), **own.get("request", {})}
    return Row(**{**call, **own, "request": request})


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def fill(value: Any, variables: Mapping[str, str]) -> Any:
    """Return the value with every `${name}` replaced, and every `{"times": 3, "each": …}` of a list spread out."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _value_of(match[1], variables), value)
    if isinstance(value, Mapping):
        return {fill(key, variables): fill(each, variables) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [filled for each in value for filled in _spread(each, variables)]
    return value


def _spread(value: Any, variables: Mapping[str, str]) -> list[Any]:
    if isinstance(value, Mapping) and set(value) == {"times", "each"}:
        return [fill(value["each"], {**variables, "index": str(index)}) for index in range(value["times"])]
    return [fill(value, variables)]


def _value_of(name: str, variables: Mapping[str, str]) -> str:
    if characters := _CHARACTERS.fullmatch(name):
        return "x" * int(characters[1])
    return variables[name]
