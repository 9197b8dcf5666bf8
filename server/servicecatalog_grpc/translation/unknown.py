"""Finds what a request holds beyond the contract that this server has: its caller is newer.

protobuf passes such fields over (https://protobuf.dev/programming-guides/proto3/#unknowns), and AWS never gets them. For a
read that costs a filter or an order. For a write it may provision something else than what was asked for, so it is refused.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from servicecatalog_grpc.failure import Violation
from servicecatalog_grpc.translation.values import entry_path


def unknown_fields(request: Message) -> Iterator[Violation]:
    """Yield a violation for every field of the request, and of the messages in it, that the contract does not have."""
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    # What nearly every request ends with: to look into all of its messages takes six times as long.
    if known.ByteSize() != request.ByteSize():
        yield from _unknown(request, "")


def _unknown(message: Message, path: str) -> Iterator[Violation]:
    fields: Any = UnknownFieldSet(message)  # its type stubs lack that it can be iterated
    for number in sorted({field.field_number for field in fields}):
        problem = f"field number {number} is not known to this server, which is older than its caller"
        yield Violation(path or "request", problem)
    for place, submessage in _submessages(message, f"{path}." if path else ""):
        yield from _unknown(submessage, place)


def _submessages(message: Message, prefix: str) -> Iterator[tuple[str, Message]]:
    """Yield every message that is right in this one, with its path."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        items: Any = value
        place = prefix + field.name
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                yield from ((entry_path(place, key), entry) for key, entry in items.items())
        elif field.is_repeated:
            yield from ((f"{place}[{index}]", item) for index, item in enumerate(items))
        else:
            yield place, items
