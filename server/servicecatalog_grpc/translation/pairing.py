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
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from servicecatalog_grpc.translation.values import (
    Choice,
    Entries,
    Flag,
    Instant,
    Items,
    Limits,
    Member,
    Number,
    Structure,
    Text,
    Value,
)

logger = logging.getLogger(__name__)

_SCALARS: Mapping[tuple[int, str], Callable[[Limits], Value]] = {
    (FieldDescriptor.TYPE_STRING, "string"): Text,
    (FieldDescriptor.TYPE_INT32, "integer"): Number,
    (FieldDescriptor.TYPE_INT64, "long"): Number,
    (FieldDescriptor.TYPE_BOOL, "boolean"): lambda _: Flag(),
}


class ContractError(Exception):
    """The contract has what AWS's model has not. The server cannot start with it."""


@dataclass(frozen=True)
class Operation:
    """One RPC and the AWS operation of the same name."""

    name: str
    method: str
    request: Structure
    response: Structure
    response_class: type[Message]

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
    if method.name not in model.operation_names:
        raise ContractError(f"{method.full_name}: AWS has no operation of that name")
    operation = model.operation_model(method.name)
    return Operation(
        name=method.name,
        method=f"/{method.containing_service.full_name}/{method.name}",
        request=pairing.structure(method.input_type, operation.input_shape),
        response=pairing.structure(method.output_type, operation.output_shape),
        response_class=GetMessageClass(method.output_type),
    )


class _Pairing:
    """Pairs messages and collects the drift on the way."""

    def __init__(self) -> None:
        self.drift: list[str] = []

    def structure(self, message: Descriptor, shape: Shape | None) -> Structure:
        if not isinstance(shape, StructureShape):
            raise ContractError(f"{message.full_name}: AWS has no structure there")
        names = {xform_name(member): member for member in shape.members}
        members = {}
        for field in message.fields:
            if field.name not in names:
                raise ContractError(f"{field.full_name}: {shape.name} has no such member")
            member = names.pop(field.name)
            members[field.number] = Member(
                name=field.name,
                member=member,
                value=self._field(field, shape.members[member]),
                required=member in shape.required_members,
                chosen_by_server=bool(shape.members[member].metadata.get("idempotencyToken")),
            )
        self._note(f"{shape.name}.{member}" for member in names.values())
        return Structure(shape.name, tuple(members.values()), members)

    def _field(self, field: FieldDescriptor, shape: Shape) -> Value:
        if isinstance(shape, MapShape) and _is_map(field):
            key, value = (
                self._single(entry, side) for entry, side in zip(_entry(field), (shape.key, shape.value), strict=True)
            )
            if isinstance(key, Text) and isinstance(value, Text):
                return Entries(key, value, _limits(shape))
        elif isinstance(shape, ListShape) and field.is_repeated and not _is_map(field):
            return Items(self._single(field, shape.member), _limits(shape))
        elif not field.is_repeated:
            return self._single(field, shape)
        raise _mismatch(field, shape)

    def _single(self, field: FieldDescriptor, shape: Shape) -> Value:
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
        """Pair an enum with AWS's strings: `RECORD_STATUS_CREATED` of `RecordStatus` is `CREATED`."""
        prefix = xform_name(enum.name).upper() + "_"
        strings = {value.number: value.name.removeprefix(prefix) for value in enum.values if value.number}
        for string in strings.values():
            if string not in shape.enum:
                raise ContractError(f"{enum.full_name}: {shape.name} has no {string}")
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
