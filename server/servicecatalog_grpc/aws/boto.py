"""The boto3 clients: each call is awaited, and its request signed with the keys of its attempt."""

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import boto3
import botocore.session
from botocore import xform_name
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.client import BaseClient, ClientMeta
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError
from botocore.loaders import Loader
from botocore.utils import parse_timestamp

from servicecatalog_grpc.aws.attempt import Attempt, attempting, current_attempt
from servicecatalog_grpc.aws.awaiting import run, wait_for
from servicecatalog_grpc.aws.route import Route
from servicecatalog_grpc.aws.transport import Transport

_OWN_NAME = "servicecatalog-grpc"

_CONFIG = Config(
    # Who sends repeats by itself: botocore would sleep, repeat on LimitExceededException, and know nothing of the caller's
    # deadline.
    retries={"mode": "standard", "total_max_attempts": 1},
    # What is sent has been checked against the same model, or is this server's own.
    parameter_validation=False,
)


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


class AwsClient:
    """A boto3 client of one service that runs in the event loop's thread and leaves it to others while it waits for AWS."""

    def __init__(self, client: BaseClient, transport: Transport) -> None:
        """Take the client for itself: all its requests go by the transport."""
        self._client = client
        self._transport = transport
        self._attempts: set[Attempt] = set()
        # What is returned here botocore takes for the answer, and sends nothing itself.
        client.meta.events.register("before-send", self._answer)  # type: ignore[arg-type]  # stubs know of no answers

    @property
    def meta(self) -> ClientMeta:
        """What the client knows of itself: region, endpoint, AWS's model and the events of its requests."""
        return self._client.meta

    async def call(self, operation: str, members: Mapping[str, Any], attempt: Attempt) -> Mapping[str, Any]:
        """Carry out the operation and return what AWS answers; the deadline of the attempt ends it.

        Raises whatever boto3 does. A cancellation is heeded until something is sent; after that the attempt is marked as
        left, and goes on.
        """
        method = partial(getattr(self._client, xform_name(operation)), **members)
        watchdog = asyncio.get_running_loop().call_later(attempt.deadline.remaining(), attempt.expire)
        self._attempts.add(attempt)
        try:
            return await run(method, attempting(attempt))
        finally:
            # From here on nobody can end it: its connection may be another one's already.
            watchdog.cancel()
            self._attempts.discard(attempt)

    def cut(self) -> None:
        """End every attempt that is under way, as if its answer were lost."""
        for attempt in tuple(self._attempts):
            attempt.cut()

    def close(self) -> None:
        """Let the connections go."""
        self._transport.close()
        self._client.close()

    def _answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        attempt = current_attempt()
        if attempt is None:
            raise NoCredentialsError
        return wait_for(self._transport.send(request, attempt))


def make_client(service: str, max_connections: int) -> AwsClient:
    """Return a client of the service. Region, endpoint and the rest come from AWS's standard variables.

    Raises BotoCoreError or ValueError where they cannot be used.
    """
    session = _session()
    client = _make(service, session, _CONFIG.merge(Config(user_agent=_user_agent())))
    # As botocore finds it.
    verify = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    return AwsClient(client, Transport(Route(client.meta.endpoint_url, verify), max_connections))


@cache
def _user_agent() -> str:
    """Return botocore's user agent, and this server's name.

    botocore puts it together anew for each request, of what does not change but for a few marks of its own features. It
    takes a tenth of a call.
    """
    config: Any = _make("servicecatalog", _session(), _CONFIG).meta.config
    return f"{config.user_agent} {_OWN_NAME}/{version(_OWN_NAME)}"


def _session() -> botocore.session.Session:
    session = botocore.session.Session()
    session.register_component("credential_provider", AttemptCredentials())
    session.register_component("data_loader", _loader())
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return session


def _timestamp(value: Any) -> datetime:
    """Return the time that AWS gives. botocore looks for the local time zone each time, of which no AWS time is."""
    try:
        return datetime.fromtimestamp(value, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        parsed: datetime = parse_timestamp(value)
        return parsed


def _make(service: str, session: botocore.session.Session, config: Config) -> BaseClient:
    client: BaseClient = boto3.Session(
        # boto3 reads AWS_DEFAULT_REGION only; every other SDK reads AWS_REGION
        # (https://docs.aws.amazon.com/sdkref/latest/guide/feature-region.html).
        region_name=os.environ.get("AWS_REGION") or None,
        botocore_session=session,
    ).client(service, config=config)  # type: ignore[call-overload]  # it knows its services by literals
    return client


@cache
def _loader() -> Loader:
    """Return the one reader of AWS's models: each client that reads its own takes 10 MB and 50 ms, and else 0.4 and 10."""
    loader: Loader = botocore.session.Session().get_component("data_loader")
    return loader
