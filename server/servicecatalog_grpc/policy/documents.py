"""Reads a YAML file strictly: a wrong type, an unknown or repeated key and an empty list are mistakes, each with its line.

See https://pyyaml.org/wiki/PyYAMLDocumentation for the nodes.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_MAPPING, _LIST, _TEXT = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str"

# What people call the types that YAML itself has (https://yaml.org/type/).
_KINDS = {
    _MAPPING: "a mapping",
    _LIST: "a list",
    _TEXT: "text",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:merge": "a merge",
}

Read = TypeVar("Read")


class MistakeError(Exception):
    """Something wrong at a node. The text is the reason."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.line = line_of(node)


class DocumentError(Exception):
    """A file that cannot be used. The text is one line: the file, the line in it where there is one, and the reason."""

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")


def read_document(path: Path, read: Callable[[Node], Read]) -> Read:
    """Return what `read` makes of the one document of the file. Raises DocumentError, for a MistakeError of `read` too."""
    try:
        document = yaml.compose(path.read_bytes(), yaml.SafeLoader)
        if document is None:
            raise DocumentError(path, None, "is empty")
        return read(document)
    except MistakeError as mistake:
        raise DocumentError(path, mistake.line, str(mistake)) from None
    except yaml.MarkedYAMLError as error:
        raise DocumentError(path, error.problem_mark.line + 1, _reason(error)) from None
    except yaml.YAMLError:
        raise DocumentError(path, None, "is not text that YAML allows") from None
    except RecursionError:
        raise DocumentError(path, None, "is nested too deeply") from None
    except OSError as error:
        raise DocumentError(path, None, error.strerror or str(error)) from None


def line_of(node: Node) -> int:
    """Return the line where the node begins; the first one is 1."""
    return int(node.start_mark.line) + 1


def members_of(node: Node, what: str, *, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Node]:
    """Return the members of a mapping by their keys. Raises MistakeError."""
    if not isinstance(node, MappingNode) or node.tag != _MAPPING:
        raise MistakeError(node, f"{what} must be a mapping, is {_kind(node)}")
    known = (*required, *optional)
    members: dict[str, Node] = {}
    for key_node, value in node.value:
        key = text_of(key_node, f"a key of {what}")
        if key not in known:
            raise MistakeError(key_node, f"{what} has no {key!r}: it has {', '.join(known)}")
        if key in members:
            raise MistakeError(key_node, f"{what} has {key!r} on line {line_of(members[key])} already")
        members[key] = value
    for key in required:
        if key not in members:
            raise MistakeError(node, f"{what} must have {key!r}")
    return members


def optional_of(members: Mapping[str, Node], key: str, read: Callable[[Node], Read], default: Read) -> Read:
    """Return what `read` makes of the member, or the default where there is none."""
    return read(members[key]) if key in members else default


def items_of(node: Node, what: str) -> list[Node]:
    """Return the items of a list that is not empty. Raises MistakeError."""
    if not isinstance(node, SequenceNode) or node.tag != _LIST:
        raise MistakeError(node, f"{what} must be a list, is {_kind(node)}")
    if not node.value:
        raise MistakeError(node, f"{what} must not be empty")
    return list(node.value)


def text_of(node: Node, what: str) -> str:
    """Return a text that is not empty and can be printed. Raises MistakeError."""
    if not isinstance(node, ScalarNode) or node.tag != _TEXT:
        raise MistakeError(node, f"{what} must be text, is {_kind(node)}")
    if not node.value:
        raise MistakeError(node, f"{what} must not be empty")
    if not node.value.isprintable():
        raise MistakeError(node, f"{what} must have no line breaks or other control characters")
    return str(node.value)


def _kind(node: Node) -> str:
    return _KINDS.get(node.tag, f"of the type {node.tag}")


def _reason(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong, in one line."""
    reason = ", ".join(" ".join(part.split()) for part in (error.context, error.problem) if part)
    # The usual mistake in a file of globs.
    return f"{reason} (a text that begins with * needs quotes)" if "alias" in reason else reason
