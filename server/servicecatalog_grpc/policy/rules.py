"""The rules of a policy, and what they decide."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from servicecatalog_grpc.caller import ANONYMOUS
from servicecatalog_grpc.policy.targets import Facet


@dataclass(frozen=True)
class Glob:
    """A text in which each `*` stands for any characters, or for none."""

    text: str

    def matches(self, value: str) -> bool:
        """Say whether it stands for the whole value. Takes time in proportion to it, whoever chose it."""
        first, *rest = self.text.split("*")
        if not rest:
            return value == first
        *middle, last = rest
        at, end = len(first), len(value) - len(last)
        if at > end or not (value.startswith(first) and value.endswith(last)):
            return False
        for part in middle:
            found = value.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


@dataclass(frozen=True)
class Condition:
    """What a call has to be about: a name that one of the globs for its facet matches."""

    globs: Mapping[Facet, Sequence[Glob]]

    def met(self, named: Mapping[Facet, str], assumed: Collection[Facet] = ()) -> bool:
        """Say whether what the call names meets it, or would for some name of the assumed facets."""
        return any(
            facet in assumed or (facet in named and any(glob.matches(named[facet]) for glob in globs))
            for facet, globs in self.globs.items()
        )


@dataclass(frozen=True)
class Grant:
    """Methods, and the conditions that a call of them has to meet. `line` is where it begins in its file."""

    line: int
    methods: frozenset[str]
    conditions: Sequence[Condition]

    def allows(self, method: str, named: Mapping[Facet, str], assumed: Collection[Facet] = ()) -> bool:
        """Say whether it lets the call pass, or would for some name of the assumed facets."""
        return method in self.methods and all(condition.met(named, assumed) for condition in self.conditions)


@dataclass(frozen=True)
class Entry:
    """What the callers with an identity may do, and the AWS role that answers for them; an empty one is the server's."""

    line: int
    identity: Glob
    role: str
    grants: Sequence[Grant]

    def matches(self, identity: str) -> bool:
        """Say whether it is for the identity. A glob, and be it `*`, is for none that is not proven."""
        if self.identity.text == ANONYMOUS:
            return not identity
        return bool(identity) and self.identity.matches(identity)

    def hides(self, later: "Entry") -> bool:
        """Say whether it decides for all callers that the later entry is for."""
        if ANONYMOUS in (self.identity.text, later.identity.text):
            return self.identity == later.identity
        # A glob that matches another one's text matches all that the other one does.
        return self.identity.matches(later.identity.text)

    def allows(self, method: str, named: Mapping[Facet, str], assumed: Collection[Facet] = ()) -> bool:
        """Say whether a grant lets the call pass, or would for some name of the assumed facets."""
        return any(grant.allows(method, named, assumed) for grant in self.grants)


@dataclass(frozen=True)
class Policy:
    """Who may do what: nobody anything but what an entry grants. The first one for an identity decides alone."""

    entries: Sequence[Entry]

    def entry_for(self, identity: str) -> Entry | None:
        """Return the entry that decides for the identity, which is empty for a caller without one."""
        return next((entry for entry in self.entries if entry.matches(identity)), None)

    @property
    def roles(self) -> frozenset[str]:
        """The AWS roles that it names."""
        return frozenset(entry.role for entry in self.entries if entry.role)
