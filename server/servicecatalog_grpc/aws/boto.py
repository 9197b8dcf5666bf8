"""The boto3 clients: each request goes over a watched connection and is signed with the keys of its attempt."""

import os
from functools import cache

import boto3
import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError
from botocore.loaders import Loader

from servicecatalog_grpc.aws.connections import current_attempt, watch_connections

_CONNECT_TIMEOUT_SECONDS = 5


class AttemptCredentials(Credentials):
    """The credentials of a client that signs each request with the keys of its attempt, and none without an attempt.

    Whose keys sign is said with each attempt. It is no state of the client, so that no attempt can meet another's.
    """

    def __init__(self) -> None:
        super().__init__("", "", method="attempt")

    def load_credentials(self) -> "AttemptCredentials":
        """Return these credentials: to a botocore session this is its credential provider."""
        return self

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return the keys of the current attempt: botocore asks once for each request. Raises NoCredentialsError."""
        attempt = current_attempt()
        if attempt is None:
            raise NoCredentialsError
        return attempt.keys


def make_client(service: str, max_connections: int) -> BaseClient:
    """Return a client of the service. Region, endpoint and the rest come from AWS's standard variables.

    Raises BotoCoreError or ValueError where they cannot be used.
    """
    session = botocore.session.Session()
    session.register_component("credential_provider", AttemptCredentials())
    session.register_component("data_loader", _loader())
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        max_pool_connections=max_connections,
        # Who sends repeats by itself: botocore would sleep in a thread, repeat on LimitExceededException, and know
        # nothing of the caller's deadline.
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )
    client: BaseClient = boto3.Session(
        # boto3 reads AWS_DEFAULT_REGION only; every other SDK reads AWS_REGION
        # (https://docs.aws.amazon.com/sdkref/latest/guide/feature-region.html).
        region_name=os.environ.get("AWS_REGION") or None,
        botocore_session=session,
    ).client(service, config=config)  # type: ignore[call-overload]  # it knows its services by literals
    watch_connections(client)
    return client


@cache
def _loader() -> Loader:
    """Return the one reader of AWS's models: each client that reads its own takes 10 MB and 50 ms, and else 0.4 and 10."""
    loader: Loader = botocore.session.Session().get_component("data_loader")
    return loader
