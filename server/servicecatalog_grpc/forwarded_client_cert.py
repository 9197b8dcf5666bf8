"""Reads `x-forwarded-client-cert`, in which Envoy tells whose certificate it has verified.

See https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
"""

from collections import defaultdict
from collections.abc import Sequence

import regex

from servicecatalog_grpc.identity import UnclearIdentityError, identity_of

HEADER = "x-forwarded-client-cert"

# Envoy quotes what holds a separator. A subject comes as RFC 2253 writes it, where a backslash escapes whatever is next
# (https://datatracker.ietf.org/doc/html/rfc2253#section-2.4).
_PAIR = regex.compile(r'[ \t]*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*+)"|([^",;=]*+))[ \t]*(?:([;,])|\Z)')
_NEXT_ELEMENT = ","


def forwarded_identity(values: Sequence[str]) -> str:
    """Return the identity that the proxy in front of this server has verified; empty if it told none.

    That is the last element: what is before it, the proxy got from others. `values` are those of all the headers. Raises
    UnclearIdentityError for more than one header, which Envoy never sends, and for one that is malformed anywhere: where
    the last element begins would be anybody's guess.
    """
    if not values:
        return ""
    if len(values) > 1:
        raise UnclearIdentityError(f"{HEADER} is there {len(values)} times")
    last = _last_element(values[0])
    return identity_of(last["uri"], last["dns"])


def _last_element(value: str) -> dict[str, list[str]]:
    """Return the values of the last element that are not empty, by their keys in small letters."""
    element: dict[str, list[str]] = defaultdict(list)
    at, separator = 0, _NEXT_ELEMENT
    while separator:
        pair = _PAIR.match(value, at)
        if pair is None:
            raise UnclearIdentityError(f"{HEADER} is malformed")
        key, quoted, plain, following = pair.groups()
        if separator == _NEXT_ELEMENT:
            element.clear()
        if text := quoted if quoted is not None else plain:
            element[key.lower()].append(text)
        at, separator = pair.end(), following
    return element
