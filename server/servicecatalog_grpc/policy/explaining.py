"""Says in words how a policy decides on a call, and why."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from servicecatalog_grpc.policy.rules import Condition, Entry, Grant, Policy
from servicecatalog_grpc.policy.targets import Facet


class Explanation(NamedTuple):
    """What the policy decides, and why, line by line."""

    allowed: bool
    reasons: list[str]


def explain(policy: Policy, identity: str, method: str, named: Mapping[Facet, str]) -> Explanation:
    """Explain the decision on a call of the method that names this; the identity is empty for a caller without one."""
    entry = policy.entry_for(identity)
    if entry is None:
        return Explanation(allowed=False, reasons=["no entry is for this caller"])
    decides = f"line {entry.line}: the entry for {entry.identity.text} decides"
    grant = next((grant for grant in entry.grants if grant.allows(method, named)), None)
    if grant is None:
        return Explanation(allowed=False, reasons=[decides, *_refusals(entry, method, named)])
    role = f"AWS is asked as {entry.role}" if entry.role else "AWS is asked with the server's own credentials"
    return Explanation(allowed=True, reasons=[decides, f"line {grant.line}: this grant allows it", role])


def _refusals(entry: Entry, method: str, named: Mapping[Facet, str]) -> Iterator[str]:
    if not entry.grants:
        yield "it has no grants"
    for grant in entry.grants:
        yield f"line {grant.line}: this grant does not: {'; '.join(_obstacles(grant, method, named))}"


def _obstacles(grant: Grant, method: str, named: Mapping[Facet, str]) -> Iterator[str]:
    if method not in grant.methods:
        yield f"{method} is not one of its methods"
    for condition in grant.conditions:
        if not condition.met(named):
            yield _unmet(condition, named)


def _unmet(condition: Condition, named: Mapping[Facet, str]) -> str:
    wrong = [f"{named[facet]} is none of its {facet}" for facet in condition.globs if facet in named]
    return " and ".join(wrong) or f"the call names nothing for its {' or '.join(condition.globs)}"
