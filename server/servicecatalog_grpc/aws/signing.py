"""AWS Signature Version 4 of requests to one address whose headers stay the same.

See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. botocore signs any request
of any service, which takes it a tenth of a boto3 call; its signatures are what the tests compare these with.
"""

import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from botocore.credentials import ReadOnlyCredentials
from botocore.utils import normalize_url_path

ALGORITHM = "AWS4-HMAC-SHA256"

# In the order in which they are signed.
_DATE, _TOKEN = "x-amz-date", "x-amz-security-token"

# As many sessions of roles as sign at a time, and a few more.
_MAX_KEYS = 1024


class Signer:
    """Signs POST requests to one URL."""

    def __init__(self, url: str, headers: Mapping[str, str], region: str, service: str) -> None:
        """`headers` are those that are signed besides what `sign` adds, with their names in lower case, and the host."""
        path = quote(normalize_url_path(urlsplit(url).path), safe="/~")
        self._plain, self._with_token = _form(path, headers, _DATE), _form(path, headers, _DATE, _TOKEN)
        self._scope = f"{region}/{service}/aws4_request"

    def sign(self, body: bytes, keys: ReadOnlyCredentials) -> dict[str, str]:
        """Return the headers that a request with this body gets now."""
        now = _date(int(time.time()))
        added = {_DATE: now}
        if keys.token:
            added[_TOKEN] = keys.token
        form = self._with_token if keys.token else self._plain
        request = form.text.format(*[" ".join(value.split()) for value in added.values()], sha256(body).hexdigest())

        scope = f"{now[:8]}/{self._scope}"
        signature = _signing(keys.secret_key, scope).copy()
        signature.update(f"{ALGORITHM}\n{now}\n{scope}\n{sha256(request.encode()).hexdigest()}".encode())
        added["authorization"] = (
            f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={form.names}, "
            f"Signature={signature.hexdigest()}"
        )
        return added


class _Form(NamedTuple):
    names: str
    text: str


def _form(path: str, headers: Mapping[str, str], *added: str) -> _Form:
    """Return what is to be signed, with places for the headers that are added and for the body's hash."""
    values = {name: _without_places(" ".join(value.split())) for name, value in headers.items()}
    values |= dict.fromkeys(added, "{}")
    names = ";".join(sorted(values))
    lines = [f"{name}:{values[name]}" for name in sorted(values)]
    return _Form(names, "\n".join(["POST", _without_places(path), "", *lines, "", names, "{}"]))


def _without_places(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@lru_cache(1)
def _date(second: int) -> str:
    """Return how a signature writes the time, which most calls share with the one before."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


@lru_cache(_MAX_KEYS)
def _signing(secret_key: str, scope: str) -> hmac.HMAC:
    """Return what a signature begins with. To copy it takes a third of what it takes to key it."""
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")
