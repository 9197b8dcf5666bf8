"""What a caller is called in AWS: the name of its role sessions, and their source identity.

AWS takes from 2 to 64 letters, digits and `_+=,.@-` for either:
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

import hashlib
import re

from servicecatalog_grpc.caller import ANONYMOUS

_FIT = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_UNFIT = re.compile(r"[^\w+=,.@-]+", re.ASCII)
_MARK = "+"
_DIGEST_CHARACTERS = 16
_TAIL_CHARACTERS = 64 - len(_MARK) - _DIGEST_CHARACTERS


def session_name(identity: str) -> str:
    """Return the identity itself if AWS takes it, or else its readable end, a `+`, and a digest of the whole.

    What has a `+` of its own gets a digest too: no identity can be chosen so that it looks like another one's digest.
    """
    if _FIT.fullmatch(identity) and _MARK not in identity:
        return identity
    readable = _UNFIT.sub("-", identity.rpartition("://")[2])[-_TAIL_CHARACTERS:].lstrip("-") or ANONYMOUS
    digest = hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{readable}{_MARK}{digest}"
