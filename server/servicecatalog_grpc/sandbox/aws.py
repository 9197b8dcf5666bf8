"""How the sandbox calls itself: boto3 clients on its own port, with dummy credentials."""

from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from moto.core.models import DEFAULT_ACCOUNT_ID

REGION = "us-east-1"
"""The one region of the sandbox's catalogue and of its stacks."""

ACCOUNT: str = DEFAULT_ACCOUNT_ID
"""The one account, which is moto's."""

ACCESS_KEY_ID = "sandbox"
SECRET_ACCESS_KEY = "sandbox"  # noqa: S105 -- any value will do, nothing checks it

# One attempt: moto answers 500 where a template is at fault, and a repeated CreateStack would then
# hide that fault behind "already exists". No proxies: HTTP_PROXY must not catch a loopback call.
_CONFIG = Config(retries={"total_max_attempts": 1, "mode": "standard"}, proxies={})


@cache
def _session() -> Any:
    # One for all, because each session reads the models of its services anew.
    return boto3.Session(ACCESS_KEY_ID, SECRET_ACCESS_KEY, region_name=REGION)


def client(service: str, url: str) -> Any:
    """Return a boto3 client of `service` that talks to the sandbox at `url`."""
    return _session().client(service, endpoint_url=url, config=_CONFIG)
