"""Finds out who calls: from the verified client certificate, or from what a proxy beside this server says of its own."""

import ipaddress
import logging
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from servicecatalog_grpc.caller import Caller, set_caller
from servicecatalog_grpc.context import Context
from servicecatalog_grpc.forwarded_client_cert import HEADER, forwarded_identity
from servicecatalog_grpc.identity import UnclearIdentityError, identity_of
from servicecatalog_grpc.telemetry.call import current_call

logger = logging.getLogger(__name__)

# gRPC's names for what it found in the client's certificate, of which it lets only verified ones in:
# https://github.com/grpc/grpc/blob/master/include/grpc/grpc_security_constants.h
_CERTIFICATE, _URIS, _DNS_NAMES = "x509_pem_cert", "peer_uri", "peer_dns"


class Identification:
    """Finds out the caller of each call. A caller that proves nothing, or nothing clear, is anonymous."""

    def __init__(self, *, trust_forwarded: bool) -> None:
        """With `trust_forwarded`, believe Envoy's header of a peer on loopback or a Unix socket without a certificate."""
        self._trust_forwarded = trust_forwarded

    def identify(self, context: Context) -> None:
        """Set the caller of the call's task, whose context the servicer and all that it starts share."""
        caller = Caller(self._identity(context))
        set_caller(caller)
        current_call().caller = caller.name

    def _identity(self, context: Context) -> str:
        certificate = context.auth_context()
        forwarded = [str(value) for name, value in context.invocation_metadata() or () if name == HEADER]
        peer = unquote(context.peer())
        try:
            if _CERTIFICATE not in certificate and self._trust_forwarded and _is_beside(peer):
                return forwarded_identity(forwarded)
            if forwarded:
                logger.warning("%s from %s is ignored: not from a proxy that is trusted", HEADER, peer)
            return identity_of(_texts(certificate, _URIS), _texts(certificate, _DNS_NAMES))
        except UnclearIdentityError as error:
            logger.warning("the caller at %s stays anonymous: %s", peer, error)
            return ""


def _texts(certificate: Mapping[str, Iterable[bytes]], name: str) -> list[str]:
    # What is not ASCII is no identity either way.
    return [value.decode("ascii", "replace") for value in certificate.get(name, ())]


def _is_beside(peer: str) -> bool:
    """Say whether the peer, as gRPC names it, is on this host, where only what the deployment puts there can connect."""
    kind, _, address = peer.partition(":")
    if kind == "unix":
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return kind in {"ipv4", "ipv6"} and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
