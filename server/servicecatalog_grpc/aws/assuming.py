"""Takes on an AWS role by STS AssumeRole, with the server's own credentials.

See https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from botocore.credentials import ReadOnlyCredentials

from servicecatalog_grpc.aws import failures
from servicecatalog_grpc.aws.attempt import Attempt
from servicecatalog_grpc.aws.boto import AwsClient
from servicecatalog_grpc.aws.credentials import KeySource
from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.failure import Reason
from servicecatalog_grpc.telemetry.attempts import ObservedAttempt, where_attributes
from servicecatalog_grpc.translation.values import GarbledReplyError

logger = logging.getLogger(__name__)

# How many sessions may begin at a time. STS answers within a tenth of a second.
MAX_BEGINNINGS = 8

# How long AWS may take. It is no caller's deadline: who waits does so as long as it can, and the next one has the session.
_SECONDS = 10.0


class RoleSession(NamedTuple):
    """A session of a role: the keys that sign for it, and for how many seconds they do."""

    keys: ReadOnlyCredentials
    seconds: float


class AssumeRole:
    """Begins sessions of roles."""

    def __init__(self, client: AwsClient, credentials: KeySource) -> None:
        """Take an STS client of `make_client` for itself, and what signs its requests."""
        self._client = client
        self._credentials = credentials
        self._where = where_attributes(client.meta)
        # The deadline of a request begins when its turn comes.
        self._turns = asyncio.Semaphore(MAX_BEGINNINGS)
        self._stopping = False

    async def __call__(self, role: str, name: str) -> RoleSession:
        """Return a new session of the role, an ARN, with this name and source identity. Raises Failure.

        It lasts an hour: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining allows no
        more to a server whose own credentials are those of a role.
        """
        async with self._turns:
            if self._stopping:
                raise failures.shutting_down()
            deadline = Deadline(_SECONDS)
            return await self._send(Attempt(deadline, await self._credentials.keys(deadline)), role, name)

    def stop(self) -> None:
        """Begin no more, and end what is under way as if AWS could not be reached."""
        self._stopping = True
        self._client.cut()

    def close(self) -> None:
        """Stop, and let the connections go."""
        self.stop()
        self._client.close()

    async def _send(self, attempt: Attempt, role: str, name: str) -> RoleSession:
        """Ask STS. Raises Failure and nothing else."""
        observed = ObservedAttempt("AssumeRole", 1, self._where, service="STS")
        members = {"RoleArn": role, "RoleSessionName": name, "SourceIdentity": name}
        try:
            reply, _ = await self._client.call("AssumeRole", members, attempt)
            session = _session(reply)
        except Exception as error:  # noqa: BLE001 - botocore lets its parser's errors through as they are
            failure = failures.failure_of(error, sent=attempt.sent, expired=False, write=False)
            observed.failed(error, failure)
            if failure.reason == Reason.UPSTREAM_CREDENTIALS:
                self._credentials.refuse(attempt.keys)
            meaning = failures.role_not_taken(failure)
            fields = {"role": role, "session": name, "reason": meaning.reason.name, **meaning.metadata}
            # AWS's words name the server's own role and account: they are for the log alone.
            words = failure.message if "aws_error_code" in failure.metadata else meaning.message
            logger.warning("AWS role %s could not be taken: %s", role, words, extra={"fields": fields})
            raise meaning from None
        observed.answered(reply)
        logger.info("AWS role %s taken", role, extra={"fields": {"role": role, "session": name}})
        return session


def _session(reply: Mapping[str, Any]) -> RoleSession:
    """Read STS's answer. Raises GarbledReplyError."""
    try:
        found = reply["Credentials"]
        keys = ReadOnlyCredentials(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])
        return RoleSession(keys, (found["Expiration"] - datetime.now(UTC)).total_seconds())
    except (KeyError, TypeError):
        raise GarbledReplyError from None
