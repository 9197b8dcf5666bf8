"""The clients of AWS: boto3 says how each operation is sent and read, and each request is signed with its attempt's keys."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore import xform_name
from botocore.awsrequest import AWSPreparedRequest
from botocore.client import BaseClient, ClientMeta
from botocore.config import Config
from botocore.loaders import Loader
from botocore.parsers import ResponseParser
from botocore.utils import parse_timestamp

from servicecatalog_grpc.aws.attempt import Attempt, Attempts
from servicecatalog_grpc.aws.messages import Messages
from servicecatalog_grpc.aws.route import Route
from servicecatalog_grpc.aws.transport import Transport

_CONFIG = Config(
    # Who sends repeats by itself: botocore would sleep, repeat on LimitExceededException, and know nothing of the caller's
    # deadline.
    retries={"mode": "standard", "total_max_attempts": 1},
    # What is sent has been checked against the same model, or is this server's own.
    parameter_validation=False,
    user_agent_extra=f"servicecatalog-grpc/{version('servicecatalog-grpc')}",
)

# Stand for the keys in the requests that show how botocore signs.
_NO_KEYS = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}


class Answer(NamedTuple):
    """What AWS answered: what boto3 makes of it, and the body as it came."""

    reply: Mapping[str, Any]
    body: bytes


class AwsClient:
    """A client of one service that makes the calls of a boto3 client in the event loop, and holds up nothing while AWS works.

    botocore's clients block, and work out anew for each call what is the same for all: where it goes, who signs it, what
    this client can do. Here boto3's client prepares one request of each operation, for the others to follow.
    """

    def __init__(self, client: BaseClient, parser: ResponseParser, route: Route, max_connections: int) -> None:
        """Take the client for itself, and what parses the answers of its protocol."""
        self._client = client
        self._parser = parser
        self._route = route
        self._transport = Transport(route, max_connections)
        self._operations: dict[str, Messages] = {}
        self._attempts = Attempts()
        client.meta.events.register("before-send", _stop)

    @property
    def meta(self) -> ClientMeta:
        """What the client knows of itself: region, endpoint, AWS's model."""
        return self._client.meta

    async def call(self, operation: str, members: Mapping[str, Any], attempt: Attempt) -> Answer:
        """Carry out the operation, signed with the attempt's keys, and return what AWS answers; its deadline ends it.

        Raises whatever boto3 does. A cancellation is heeded until something is sent; after that the attempt is marked as
        left, and goes on.
        """
        messages = self._operations.get(operation) or self._prepare(operation)
        request = messages.request(members, attempt.keys)
        self._attempts.add(attempt)
        try:
            response = await self._transport.send(request, attempt)
        finally:
            # From here on nobody can end it: its connection may be another one's already.
            self._attempts.discard(attempt)
        return Answer(messages.reply(response), response.body)

    def cut(self) -> None:
        """End every attempt that is under way, as if its answer were lost."""
        self._attempts.cut()

    def close(self) -> None:
        """Let the connections go."""
        self._transport.close()
        self._client.close()

    def _prepare(self, operation: str) -> Messages:
        try:
            getattr(self._client, xform_name(operation))()
        except _PreparedError as prepared:
            model = self.meta.service_model.operation_model(operation)
            messages = Messages(model, prepared.request, self._route, self._parser)
            self._operations[operation] = messages
            return messages
        raise AssertionError("boto3's client has sent a request by itself")


class _PreparedError(Exception):
    """Stops botocore where it would send the request."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__()
        self.request = request


def _stop(request: AWSPreparedRequest, **_: Any) -> None:
    raise _PreparedError(request)


def make_client(service: str, max_connections: int) -> AwsClient:
    """Return a client of the service. Region, endpoint and the rest come from AWS's standard variables.

    Raises BotoCoreError or ValueError where they cannot be used.
    """
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_timestamp)
    client: BaseClient = boto3.Session(
        # boto3 reads AWS_DEFAULT_REGION only; every other SDK reads AWS_REGION
        # (https://docs.aws.amazon.com/sdkref/latest/guide/feature-region.html).
        region_name=os.environ.get("AWS_REGION") or None,
        botocore_session=session,
    ).client(service, config=_CONFIG, **_NO_KEYS)  # type: ignore[call-overload]  # it knows its services by literals
    # As botocore finds it.
    verify = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    route = Route(client.meta.endpoint_url, verify)
    return AwsClient(client, parsers.create_parser(client.meta.service_model.resolved_protocol), route, max_connections)


def _timestamp(value: Any) -> datetime:
    """Return the time that AWS gives. botocore looks for the local time zone each time, of which no AWS time is."""
    try:
        return datetime.fromtimestamp(value, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        parsed: datetime = parse_timestamp(value)
        return parsed


@cache
def _loader() -> Loader:
    """Return the one reader of AWS's models: each client that reads its own takes 10 MB and 50 ms, and else 0.4 and 10."""
    loader: Loader = botocore.session.Session().get_component("data_loader")
    return loader
