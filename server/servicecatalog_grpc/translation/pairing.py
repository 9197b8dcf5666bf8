"""Pairs every message of the contract with its botocore shape, once, at start-up.

A protobuf field that AWS does not have is a mistake in the contract and raises ContractError. A member that AWS has and
the contract lacks is drift: AWS has grown, and callers lose nothing that they had.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import regex
from botocore import xform_name
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StringShape, StructureShape
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from servicecatalog_grpc.translation.values import (
    WRAPPED,
    Choice,
    Entries,
    Flag,
    GarbledReplyError,
    Instant,
    Items,
    Limits,
    Member,
    Number,
    Scalar,
    Structure,
    Submessage,
    Text,
    Value,
    WrappedItems,
)

logger = logging.getLogger(__name__)

# RPCs that AWS has not, each with the operation of AWS's whose messages theirs mirror and which they send.
_INSTEAD = {"WatchRecord": "DescribeRecord"}

# The one list which AWS's answer to these operations splits into pages, and which the server gathers: the contract has
# it whole, and none of the members by which AWS splits it.
_GATHERED = {"DescribeRecord": "RecordOutputs"}
_PAGE_SIZE, _PAGE_TOKEN, _NEXT_PAGE_TOKEN = "PageSize", "PageToken", "NextPageToken"

_SCALARS: Mapping[tuple[int, str], Callable[[Limits], Scalar]] = {
    (FieldDescriptor.TYPE_STRING, "string"): Text,
    (FieldDescriptor.TYPE_INT32, "integer"): Number,
    (FieldDescriptor.TYPE_INT64, "long"): Number,
    (FieldDescriptor.TYPE_BOOL, "boolean"): lambda _: Flag(),
}


class ContractError(Exception):
    """The contract has what AWS's model has not. The server cannot start with it."""


@dataclass(frozen=True)
class Pages:
    """The pages of an answer that the server gathers: the repeated field for all of them, and the size of the largest."""

    items: str
    size: int | None

    def members(self, token: str) -> dict[str, Any]:
        """Return what a request for the page of this token has beside its own members; the first page has an empty one.

        The page is as large as AWS makes them, because AWS limits how often it is asked.
        """
        members = {_PAGE_SIZE: self.size, _PAGE_TOKEN: token}
        return {member: value for member, value in members.items() if value}

    def next_token(self, members: Mapping[str, Any]) -> str:
        """Return the token of the page after the one that AWS sent, empty if there is none. Raises GarbledReplyError."""
        token = members.get(_NEXT_PAGE_TOKEN) or ""
        if not isinstance(token, str):
            raise GarbledReplyError(_NEXT_PAGE_TOKEN)
        return token


@dataclass(frozen=True)
class Operation:
    """One RPC and the AWS operation that it sends, mostly of the same name. `pages` is None unless the server gathers them."""

    name: str
    method: str
    request: Structure
    response: Structure
    response_class: type[Message]
    pages: Pages | None

    @cached_property
    def token(self) -> Member | None:
        """The member that makes a repeat safe; None for an operation that only reads."""
        return next((member for member in self.request.members if member.chosen_by_server), None)


def pair_services(services: Iterable[ServiceDescriptor], model: ServiceModel) -> tuple[dict[str, Operation], list[str]]:
    """Pair every RPC of the services with AWS's model.

    Returns the operations by the full name of their request, which buf's lint keeps to one RPC each, and the drift: the
    members that the contract lacks, e.g. `ProvisionProductInput.NewMember`. Raises ContractError.
    """
    pairing = _Pairing()
    operations = {}
    for service in services:
        for method in service.methods:
            operation = _pair_method(method, model, pairing)
            operations[method.input_type.full_name] = operation
    return operations, pairing.drift


def _pair_method(method: MethodDescriptor, model: ServiceModel, pairing: "_Pairing") -> Operation:
    name = _INSTEAD.get(method.name, method.name)
    if name not in model.operation_names:
        raise ContractError(f"{method.full_name}: AWS has no operation of that name")
    operation = model.operation_model(name)
    gathered = name in _GATHERED
    request = pairing.structure(
        method.input_type, operation.input_shape, left_out=(_PAGE_SIZE, _PAGE_TOKEN) if gathered else ()
    )
    response = pairing.structure(
        method.output_type, operation.output_shape, left_out=(_NEXT_PAGE_TOKEN,) if gathered else ()
    )
    return Operation(
        name=name,
        method=f"/{method.containing_service.full_name}/{method.name}",
        request=request,
        response=response,
        response_class=GetMessageClass(method.output_type),
        pages=_pages(operation) if gathered else None,
    )


def _pages(operation: OperationModel) -> Pages:
    shape: Any = operation.input_shape
    return Pages(xform_name(_GATHERED[operation.name]), shape.members[_PAGE_SIZE].metadata.get("max"))


class _Pairing:
    """Pairs messages and collects the drift on the way."""

    def __init__(self) -> None:
        self.drift: list[str] = []

    def structure(self, message: Descriptor, shape: Shape | None, left_out: Iterable[str] = ()) -> Structure:
        """Pair a message; members that are left out on purpose are neither drift nor may the message have them."""
        if not isinstance(shape, StructureShape):
            raise ContractError(f"{message.full_name}: AWS has no structure there")
        names = {xform_name(member): member for member in shape.members}
        for member in left_out:
            if names.pop(xform_name(member), None) is None:
                raise ContractError(f"{message.full_name}: {shape.name} has no {member} to gather pages by")
        members = {}
        for field in message.fields:
            if field.name not in names:
                raise ContractError(f"{field.full_name}: {shape.name} has no such member")
            member = names.pop(field.name)
            members[field.number] = Member(
                name=field.name,
                member=member,
                value=self._field(field, shape.members[member]),
                chosen_by_server=bool(shape.members[member].metadata.get("idempotencyToken")),
            )
        self._note(f"{shape.name}.{member}" for member in names.values())
        required = [
            each.name
            for each in members.values()
            if each.member in shape.required_members and not each.chosen_by_server
        ]
        return Structure(shape.name, tuple(members.values()), tuple(required), members)

    def _field(self, field: FieldDescriptor, shape: Shape) -> Value:
        if isinstance(shape, MapShape) and _is_map(field):
            key_field, value_field = _entry(field)
            key = self._single(key_field, shape.key)
            if isinstance(key, Text):
                return Entries(key, self._entry_value(value_field, shape.value), _limits(shape))
        elif isinstance(shape, ListShape) and field.is_repeated and not _is_map(field):
            return Items(self._single(field, shape.member), _limits(shape))
        elif not field.is_repeated:
            return self._single(field, shape)
        raise _mismatch(field, shape)

    def _entry_value(self, field: FieldDescriptor, shape: Shape) -> Scalar | Submessage:
        if not isinstance(shape, ListShape):
            return self._single(field, shape)
        if field.message_type is not None and [each.name for each in field.message_type.fields] == [WRAPPED]:
            items = self._field(field.message_type.fields_by_name[WRAPPED], shape)
            if isinstance(items, Items):
                return WrappedItems(items)
        raise _mismatch(field, shape)

    def _single(self, field: FieldDescriptor, shape: Shape) -> Scalar | Submessage:
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
            if field.message_type.full_name != Timestamp.DESCRIPTOR.full_name:
                return self.structure(field.message_type, shape)
            if shape.type_name == "timestamp":
                return Instant()
        elif field.type == FieldDescriptor.TYPE_ENUM and field.enum_type is not None and isinstance(shape, StringShape):
            return self._choice(field.enum_type, shape)
        elif (make := _SCALARS.get((field.type, shape.type_name))) is not None:
            return make(_limits(shape))
        raise _mismatch(field, shape)

    def _choice(self, enum: EnumDescriptor, shape: StringShape) -> Choice:
        """Pair an enum with AWS's strings.

        `RECORD_STATUS_CREATED` of `RecordStatus` is `CREATED`, `PRODUCT_VIEW_SORT_BY_VERSION_COUNT` of
        `ProductViewSortBy` is `VersionCount`.
        """
        prefix = xform_name(enum.name).upper() + "_"
        known = {xform_name(string).upper(): string for string in shape.enum}
        strings = {}
        for value in enum.values:
            name = value.name.removeprefix(prefix)
            if value.number and name not in known:
                raise ContractError(f"{enum.full_name}: {shape.name} has no {name}")
            if value.number:
                strings[value.number] = known[name]
        self._note(f"{shape.name}={string}" for string in shape.enum if string not in strings.values())
        return Choice(strings, {string: number for number, string in strings.items()})

    def _note(self, lacking: Iterable[str]) -> None:
        """Add what the contract lacks; a shape that several messages have is named once."""
        self.drift += [name for name in lacking if name not in self.drift]


def _limits(shape: Shape) -> Limits:
    metadata: Mapping[str, Any] = shape.metadata
    pattern = metadata.get("pattern")
    return Limits(
        minimum=metadata.get("min"),
        maximum=metadata.get("max"),
        # The models use `\p{L}` and its like, which Python's own `re` does not know.
        pattern=regex.compile(pattern) if pattern else None,
        choices=tuple(metadata.get("enum", ())),
    )


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _entry(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    key, value = field.message_type.fields if field.message_type else ()
    return key, value


def _mismatch(field: FieldDescriptor, shape: Shape) -> ContractError:
    return ContractError(f"{field.full_name}: does not fit {shape.name}, which is a {shape.type_name}")
