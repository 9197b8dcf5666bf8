"""Connects to AWS at the start: the server's credentials, and AWS Service Catalog as itself and in its callers' roles."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoRegionError

from servicecatalog_grpc.aws.assuming import MAX_BEGINNINGS, AssumeRole
from servicecatalog_grpc.aws.boto import AwsClient, make_client
from servicecatalog_grpc.aws.client import BotoServiceCatalog, takes_credentials
from servicecatalog_grpc.aws.credentials import KeptCredentials, KeySource
from servicecatalog_grpc.aws.pace import Pace
from servicecatalog_grpc.aws.roles import Roles
from servicecatalog_grpc.config import StartError


class Connection(NamedTuple):
    """What the server has of AWS by the standard chain: credentials, and clients that sign with what each attempt brings."""

    credentials: KeptCredentials
    service_catalog: AwsClient
    sts: AwsClient


def connect(on_change: Callable[[bool], None], max_calls: int) -> Connection:
    """Return the connection, for so many calls at a time. Raises StartError.

    `on_change` hears, from a thread, whether the credentials work, once these have been started.
    """
    try:
        client = make_client("servicecatalog", max_connections=max_calls)
        sts = make_client("sts", max_connections=MAX_BEGINNINGS)
    except NoRegionError:
        raise StartError("no AWS region: set AWS_REGION, or region in the AWS profile") from None
    except (BotoCoreError, ValueError) as error:
        raise StartError(f"no AWS client: {error}") from error
    loop = asyncio.get_running_loop()

    def probe(keys: ReadOnlyCredentials) -> bool:
        return asyncio.run_coroutine_threadsafe(takes_credentials(client, keys), loop).result()

    return Connection(KeptCredentials(on_change, probe), client, sts)


def make_service_catalog(connection: Connection, pace: Pace, *, max_calls: int, max_attempts: int) -> Roles:
    """Return AWS Service Catalog, for so many calls at a time; `max_attempts` of each counts the first one."""

    def make(client: AwsClient, keys: KeySource, role: str = "") -> BotoServiceCatalog:
        return BotoServiceCatalog(client, keys, pace, max_attempts=max_attempts, role=role)

    def make_for_role(keys: KeySource, role: str) -> BotoServiceCatalog:
        return make(make_client("servicecatalog", max_connections=max_calls), keys, role)

    own = make(connection.service_catalog, connection.credentials)
    return Roles(own, make_for_role, AssumeRole(connection.sts, connection.credentials))
