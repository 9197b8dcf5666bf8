"""Reads a policy from its file, and finds what can only be a mistake."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import regex
from yaml.nodes import Node, ScalarNode

from servicecatalog_grpc.policy.documents import (
    MistakeError,
    items_of,
    line_of,
    members_of,
    optional_of,
    read_document,
    text_of,
)
from servicecatalog_grpc.policy.rules import Condition, Entry, Glob, Grant, Policy
from servicecatalog_grpc.policy.targets import METHODS, Facet, facets_of
from servicecatalog_grpc.translation.rules import ROLE_ARN

_ANY = "*"
_ROLE = regex.compile(ROLE_ARN)

# The conditions of a grant. Of the facets of each, any one will do.
_CONDITIONS = ((Facet.PRODUCT_NAME, Facet.PRODUCT_ID), (Facet.PROVISIONED_PRODUCT_NAME,))


def load_policy(path: Path) -> Policy:
    """Return the policy of the file. Raises DocumentError."""
    return read_document(path, _policy)


def _policy(node: Node) -> Policy:
    entries: list[Entry] = []
    for each in items_of(members_of(node, "a policy", required=("callers",))["callers"], "callers"):
        entry = _entry(each)
        hiding = next((earlier for earlier in entries if earlier.hides(entry)), None)
        if hiding is not None:
            raise MistakeError(
                each, f"the entry for {entry.identity.text!r} is never reached: that on line {hiding.line} decides"
            )
        entries.append(entry)
    return Policy(tuple(entries))


def _entry(node: Node) -> Entry:
    members = members_of(node, "an entry of callers", required=("identity",), optional=("role", "grants"))
    return Entry(
        line=line_of(node),
        identity=Glob(text_of(members["identity"], "identity")),
        role=optional_of(members, "role", _role, ""),
        grants=optional_of(members, "grants", _grants, ()),
    )


def _role(node: Node) -> str:
    role = text_of(node, "role")
    if not _ROLE.fullmatch(role):
        raise MistakeError(node, f"role must be the ARN of an IAM role, is {role!r}")
    return role


def _grants(node: Node) -> tuple[Grant, ...]:
    return tuple(_grant(each) for each in items_of(node, "grants"))


def _grant(node: Node) -> Grant:
    members = members_of(node, "a grant", required=("methods",), optional=tuple(Facet))
    methods = _methods(members["methods"])
    conditions = (_condition(members, facets, methods) for facets in _CONDITIONS)
    return Grant(
        line=line_of(node),
        methods=METHODS if _ANY in methods else methods,
        conditions=tuple(condition for condition in conditions if condition is not None),
    )


def _methods(node: Node) -> frozenset[str]:
    """Return the names, `*` as it is."""
    nodes = [node] if isinstance(node, ScalarNode) and node.value == _ANY else items_of(node, "methods")
    for each in nodes:
        if text_of(each, "a method") not in METHODS | {_ANY}:
            raise MistakeError(each, f"there is no method {each.value!r}, only * and {', '.join(sorted(METHODS))}")
    return frozenset(each.value for each in nodes)


def _condition(members: Mapping[str, Node], facets: Sequence[Facet], methods: Collection[str]) -> Condition | None:
    there = [facet for facet in facets if facet in members]
    if not there:
        return None
    for method in sorted(methods):
        if method != _ANY and not facets_of(method).intersection(there):
            keys = " or ".join(there)
            raise MistakeError(
                members[there[0]], f"{method} is never granted here: it names nothing for {keys} to match"
            )
    return Condition({facet: _globs(members[facet], facet) for facet in there})


def _globs(node: Node, key: str) -> tuple[Glob, ...]:
    return tuple(Glob(text_of(each, f"an item of {key}")) for each in items_of(node, key))
