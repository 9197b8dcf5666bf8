"""What the names in a certificate prove: the SPIFFE ID of a service, or else its DNS name."""

from collections.abc import Sequence

import regex

# https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#2-spiffe-identity: what the trust domain and each
# segment of the path are made of. The ID of a service has a path; without one it is that of the trust domain itself.
_SPIFFE_ID = regex.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")
_SPIFFE_SCHEME = "spiffe:"
_MAX_SPIFFE_ID = 2048

# https://datatracker.ietf.org/doc/html/rfc1123#section-2.1, with the underscore that occurs. No wildcard: it is a pattern.
_DNS_NAME = regex.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_MAX_DNS_NAME = 253


class UnclearIdentityError(Exception):
    """What should prove an identity does not do so clearly. The text says why, without what it found."""


def identity_of(uris: Sequence[str], dns_names: Sequence[str]) -> str:
    """Return the one SPIFFE ID among the URIs, else the first DNS name; empty without either.

    Raises UnclearIdentityError for a SPIFFE ID that is not one, or not the only URI: see
    https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id
    """
    if any(uri.lower().startswith(_SPIFFE_SCHEME) for uri in uris):
        if len(uris) > 1:
            raise UnclearIdentityError("a SPIFFE ID is not the only URI")
        if len(uris[0]) > _MAX_SPIFFE_ID or not _SPIFFE_ID.fullmatch(uris[0]):
            raise UnclearIdentityError("the SPIFFE ID is not a service's, or is malformed")
        return uris[0]
    if not dns_names:
        return ""
    if len(dns_names[0]) > _MAX_DNS_NAME or not _DNS_NAME.fullmatch(dns_names[0]):
        raise UnclearIdentityError("the first DNS name is not that of one host")
    return dns_names[0]
