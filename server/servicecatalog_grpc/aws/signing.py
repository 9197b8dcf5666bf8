"""AWS Signature Version 4 of requests to one address whose headers stay the same.

See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. botocore signs any request
of any service, which takes it a tenth of a boto3 call; its signatures are what the tests compare these with.
"""

import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, urlsplit

from botocore.credentials import ReadOnlyCredentials
from botocore.utils import normalize_url_path

ALGORITHM = "AWS4-HMAC-SHA256"

# As many sessions of roles as sign at a time, and a few more.
_MAX_KEYS = 1024


class Signer:
    """Signs POST requests to one URL."""

    def __init__(self, url: str, headers: Mapping[str, str], region: str, service: str) -> None:
        """`headers` are those that are signed besides what `sign` adds, with their names in lower case, and the host."""
        self._path = quote(normalize_url_path(urlsplit(url).path), safe="/~")
        self._headers = headers
        self._region = region
        self._service = service

    def sign(self, body: bytes, keys: ReadOnlyCredentials) -> dict[str, str]:
        """Return the headers that a request with this body gets now."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        added = {"x-amz-date": now}
        if keys.token:
            added["x-amz-security-token"] = keys.token
        headers = sorted({**self._headers, **added}.items())
        names = ";".join([name for name, _ in headers])
        lines = [f"{name}:{' '.join(value.split())}" for name, value in headers]
        request = "\n".join(["POST", self._path, "", *lines, "", names, sha256(body).hexdigest()])

        scope = f"{now[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{ALGORITHM}\n{now}\n{scope}\n{sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(_signing_key(keys.secret_key, scope), text.encode(), "sha256").hex()
        added["authorization"] = (
            f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return added


@lru_cache(_MAX_KEYS)
def _signing_key(secret_key: str, scope: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
