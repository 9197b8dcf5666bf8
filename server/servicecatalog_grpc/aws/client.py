"""AWS Service Catalog through boto3."""

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from botocore.credentials import ReadOnlyCredentials

from servicecatalog_grpc.aws import failures
from servicecatalog_grpc.aws.attempt import Attempt
from servicecatalog_grpc.aws.boto import Answer, AwsClient
from servicecatalog_grpc.aws.credentials import KeySource
from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.pace import Pace
from servicecatalog_grpc.aws.protocol import Received, Reply
from servicecatalog_grpc.failure import Failure, Reason
from servicecatalog_grpc.telemetry.attempts import ObservedAttempt, where_attributes
from servicecatalog_grpc.telemetry.call import current_call, token_digest
from servicecatalog_grpc.translation.pairing import Operation
from servicecatalog_grpc.translation.values import GarbledReplyError

logger = logging.getLogger(__name__)

_NO_RECORD = "rec-credentials-check"
_PROBE_SECONDS = 10.0
_MAX_BACKOFF_SECONDS = 5.0

# What a repeat may mend, and the longest wait before the first one, in seconds. IAM needs longer to become consistent
# than a throttle or a lost connection to pass.
_RETRIED: Mapping[Reason, float] = {
    Reason.THROTTLED: 0.5,
    Reason.OUTCOME_UNKNOWN: 0.2,
    Reason.UPSTREAM_UNREACHABLE: 0.2,
    Reason.NOT_YET_CONSISTENT: 2.0,
}

# The longest wait before a repeat with other keys than those that AWS has refused, in seconds.
_OTHER_KEYS_SECONDS = 0.2

# Once the outcome of an attempt is unknown, these of a later one no longer mean that nothing happened.
_SAYS_NOTHING_HAPPENED = frozenset(
    {
        Reason.ALREADY_EXISTS,
        Reason.INVALID_STATE,
        Reason.QUOTA_EXCEEDED,
        Reason.THROTTLED,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_CREDENTIALS,
        Reason.SHUTTING_DOWN,
        Reason.NOT_YET_CONSISTENT,
        Reason.OPERATION_IN_PROGRESS,
        Reason.ACCESS_DENIED,
    }
)


def _check_whole(answer: Answer) -> None:
    """Raise GarbledReplyError if the answer is cut short or not AWS's.

    botocore makes an answer of it that only lacks all members. A write is found out by the missing record; what a read
    finds may well be nothing.
    """
    if answer.reply.keys() <= {"ResponseMetadata"}:
        try:
            json.loads(answer.body)
        except ValueError:
            raise GarbledReplyError from None


async def takes_credentials(client: AwsClient, keys: ReadOnlyCredentials) -> bool:
    """Ask AWS, by reading a record that does not exist, whether it takes the keys."""
    try:
        await client.call("DescribeRecord", {"Id": _NO_RECORD}, Attempt(Deadline(_PROBE_SECONDS), keys))
    except Exception as error:  # noqa: BLE001 - see BotoServiceCatalog
        failure = failures.failure_of(error, sent=True, expired=False, write=False)
        return failure.reason not in (Reason.UPSTREAM_CREDENTIALS, Reason.UPSTREAM_UNREACHABLE)
    return True


class BotoServiceCatalog:
    """A ServiceCatalog that sends each attempt by a client of its own."""

    def __init__(
        self,
        client: AwsClient,
        credentials: KeySource,
        pace: Pace,
        *,
        max_attempts: int,
        role: str = "",
    ) -> None:
        """Take a client of `make_client` for itself.

        `max_attempts` counts the first one. `role` is what the credentials stand for; empty: the server itself.
        """
        self._client = client
        self._credentials = credentials
        self._pace = pace
        self._max_attempts = max_attempts
        self._where = where_attributes(client.meta, role)
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more, and end what is still at work as if its answer were lost."""
        self._stopping = True
        self._client.cut()

    def close(self) -> None:
        """Stop, and let the connections go."""
        self.stop()
        self._client.close()

    async def call(
        self,
        operation: Operation,
        members: Mapping[str, Any],
        deadline: Deadline,
        *,
        before_sending: Callable[[], Awaitable[None]],
        receive: Callable[[Reply], Received],
        repeat: bool = True,
    ) -> Received:
        """See ServiceCatalog."""
        await self._take_turn(operation, deadline, repeat=repeat)
        await before_sending()
        call = _Call(operation, members, deadline)
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(call, attempt, receive)
            except Failure as error:
                failure = error
            if call.unknown and failure.reason in _SAYS_NOTHING_HAPPENED:
                known = {**failure.metadata, "aws_operation": operation.name}
                failure = failures.lost(write=True).with_metadata(**known)
            elif call.unknown and failure.reason == Reason.DEADLINE_EXCEEDED:
                failure = failures.deadline_exceeded(sent=True)
            call.unknown = call.unknown or failure.reason == Reason.OUTCOME_UNKNOWN
            delay = self._delay(failure, attempt, other_keys=call.other_keys)
            if delay is not None:
                delay = max(delay, self._pace.wait(operation.name))
            if delay is None or delay >= deadline.remaining() or self._stopping or not repeat:
                raise failure
            self._pace.take(operation.name)
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                call.log_if_unknown()
                raise
            if self._stopping:
                raise failure

    async def _take_turn(self, operation: Operation, deadline: Deadline, *, repeat: bool) -> None:
        """Wait until the first attempt may go. Raises Failure where it may not go in time, or not at all."""
        if not deadline.remaining():
            raise failures.deadline_exceeded(sent=False)
        await self._get_keys(deadline, repeat=repeat)
        wait = self._pace.wait(operation.name)
        if wait >= deadline.remaining():
            raise failures.overloaded(wait)
        self._pace.take(operation.name)
        if wait:
            await asyncio.sleep(wait)
        if self._stopping:
            raise failures.shutting_down()

    async def _get_keys(self, deadline: Deadline, *, repeat: bool) -> None:
        """Wait until there are keys to sign with. Raises Failure.

        What a repeat may mend is repeated here already: once the first attempt is announced, the caller's proxy can no
        longer go elsewhere.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._credentials.keys(deadline)
            except Failure as failure:
                delay = self._delay(failure, attempt)
                if self._stopping:
                    raise failures.shutting_down() from None
                if delay is None or delay >= deadline.remaining() or not repeat:
                    raise
            else:
                return
            await asyncio.sleep(delay)

    def _delay(self, failure: Failure, attempt: int, *, other_keys: bool = False) -> float | None:
        """Return how many seconds to wait before the next attempt, or None for none: exponential, with full jitter.

        See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        first = _RETRIED.get(failure.reason, _OTHER_KEYS_SECONDS if other_keys else None)
        if first is None or attempt == self._max_attempts:
            return None
        return random.uniform(0, min(_MAX_BACKOFF_SECONDS, first * 2 ** (attempt - 1)))

    async def _attempt(self, call: "_Call", number: int, receive: Callable[[Reply], Received]) -> Received:
        call.other_keys = False
        try:
            keys = await self._credentials.keys(call.deadline)
        except asyncio.CancelledError:
            call.log_if_unknown()
            raise
        attempt = Attempt(call.deadline, keys)
        current_call().attempts += 1
        try:
            answer = await self._send(call, number, attempt)
        except Failure as error:
            if error.reason == Reason.UPSTREAM_CREDENTIALS:
                call.other_keys = self._credentials.refuse(keys)
            raise
        except asyncio.CancelledError:
            if not attempt.sent:
                call.log_if_unknown()
            raise
        request_id = failures.request_id(answer.reply)
        try:
            _check_whole(answer)
            return receive(Reply(answer.reply, request_id))
        except GarbledReplyError:
            raise failures.lost(write=call.write).with_metadata(aws_request_id=request_id) from None

    async def _send(self, call: "_Call", number: int, attempt: Attempt) -> Answer:
        """Send the request and wait for the answer. Raises Failure.

        Cancelled once it is sent, it still waits, so that whoever counts the calls in flight counts what AWS works on.
        """
        observed = ObservedAttempt(call.operation.name, number, self._where)
        try:
            answer = await self._client.call(call.operation.name, call.members, attempt)
        except Exception as error:  # noqa: BLE001 - botocore lets its parser's errors through as they are
            expired = attempt.expired or not attempt.deadline.remaining()
            failure = failures.failure_of(error, sent=attempt.sent, expired=expired, write=call.write)
            observed.failed(error, failure)
            if attempt.left is not None:
                call.end_without_caller(attempt.left, failure.reason.name)
            raise failure from None
        observed.answered(answer.reply)
        if attempt.left is not None:
            call.end_without_caller(attempt.left, "OK")
        return answer


@dataclass
class _Call:
    """One call with all its attempts.

    `unknown` says that the outcome of one of them is. `other_keys` says that AWS refused the keys of the last one, and
    may take those of the next.
    """

    operation: Operation
    members: Mapping[str, Any]
    deadline: Deadline
    unknown: bool = False
    other_keys: bool = False

    @property
    def write(self) -> bool:
        """Whether AWS may have acted on what was sent."""
        return self.operation.token is not None

    def end_without_caller(self, left: float, outcome: str) -> NoReturn:
        """Log what came of an attempt whose caller left at this moment: nobody else hears of it. Raises CancelledError."""
        current_call().leave(left)
        self._log(outcome)
        raise asyncio.CancelledError

    def log_if_unknown(self) -> None:
        """Log that the caller has gone without knowing the outcome."""
        if self.unknown:
            self._log(Reason.OUTCOME_UNKNOWN.name)

    def _log(self, outcome: str) -> None:
        name, member = self.operation.name, self.operation.token
        digest = token_digest(self.members[member.member]) if member else None
        fields = {"operation": name, "outcome": outcome, "token_digest": digest}
        logger.warning("%s ended %s after its caller had gone", name, outcome, extra={"fields": fields})
