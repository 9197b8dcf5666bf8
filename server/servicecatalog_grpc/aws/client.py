"""AWS Service Catalog through boto3, in threads that the server owns."""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import boto3
import botocore.session
from botocore import xform_name
from botocore.client import BaseClient
from botocore.config import Config

from servicecatalog_grpc.aws import failures
from servicecatalog_grpc.aws.connections import Attempt, attempting, watch_connections
from servicecatalog_grpc.aws.credentials import KeptCredentials
from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.pace import Pace
from servicecatalog_grpc.aws.protocol import Received, Reply
from servicecatalog_grpc.failure import Failure, Reason
from servicecatalog_grpc.translation.pairing import Operation
from servicecatalog_grpc.translation.values import GarbledReplyError

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_SECONDS = 5
_NO_RECORD = "rec-credentials-check"
_MAX_BACKOFF_SECONDS = 5.0

# How long after its deadline a thread may take to be free before its caller is answered without it.
_LATENESS_SECONDS = 0.25

# What a repeat may mend, and the longest wait before the first one, in seconds. IAM needs longer to become consistent
# than a throttle or a lost connection to pass.
_RETRIED: Mapping[Reason, float] = {
    Reason.THROTTLED: 0.5,
    Reason.OUTCOME_UNKNOWN: 0.2,
    Reason.UPSTREAM_UNREACHABLE: 0.2,
    Reason.NOT_YET_CONSISTENT: 2.0,
}

# Once the outcome of an attempt is unknown, these of a later one no longer mean that nothing happened.
_SAYS_NOTHING_HAPPENED = frozenset(
    {
        Reason.THROTTLED,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_CREDENTIALS,
        Reason.NOT_YET_CONSISTENT,
        Reason.OPERATION_IN_PROGRESS,
        Reason.ACCESS_DENIED,
    }
)


def make_client(credentials: KeptCredentials, max_connections: int) -> BaseClient:
    """Return the boto3 client, made once at start-up. Region, endpoint and the rest come from AWS's standard variables.

    Raises BotoCoreError or ValueError where they cannot be used.
    """
    session = botocore.session.Session()
    session.register_component("credential_provider", credentials)
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        max_pool_connections=max_connections,
        # The repeats are BotoServiceCatalog's: botocore's own would sleep in a thread, repeat on LimitExceededException,
        # and know nothing of the caller's deadline.
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )
    client: BaseClient = boto3.Session(
        # boto3 reads AWS_DEFAULT_REGION only; every other SDK reads AWS_REGION
        # (https://docs.aws.amazon.com/sdkref/latest/guide/feature-region.html).
        region_name=os.environ.get("AWS_REGION") or None,
        botocore_session=session,
    ).client("servicecatalog", config=config)
    watch_connections(client)
    return client


def takes_credentials(client: BaseClient) -> bool:
    """Ask AWS, by reading a record that does not exist, whether it takes the client's credentials."""
    try:
        client.describe_record(Id=_NO_RECORD)  # type: ignore[attr-defined]  # made by boto3 from AWS's model
    except Exception as error:  # noqa: BLE001 - see BotoServiceCatalog
        failure = failures.failure_of(error, sent=True, expired=False, write=False)
        return failure.reason not in (Reason.UPSTREAM_CREDENTIALS, Reason.UPSTREAM_UNREACHABLE)
    return True


class BotoServiceCatalog:
    """A ServiceCatalog that sends each attempt through boto3 in a thread of its own pool."""

    def __init__(
        self, client: BaseClient, credentials: KeptCredentials, pace: Pace, *, threads: int, max_attempts: int
    ) -> None:
        """Take a client of `make_client` with its credentials; `max_attempts` counts the first one."""
        self._client = client
        self._credentials = credentials
        self._pace = pace
        self._max_attempts = max_attempts
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="aws")
        self._attempts: set[Attempt] = set()

    def close(self) -> None:
        """End what is still at work, which is logged with its token, and let the threads go."""
        for attempt in tuple(self._attempts):
            attempt.expire()
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    async def call(
        self,
        operation: Operation,
        members: Mapping[str, Any],
        deadline: Deadline,
        *,
        before_sending: Callable[[], Awaitable[None]],
        receive: Callable[[Reply], Received],
    ) -> Received:
        """See ServiceCatalog."""
        await self._take_turn(operation, deadline)
        await before_sending()
        unknown = False
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(operation, members, deadline, receive)
            except Failure as error:
                failure = error
            if unknown and failure.reason in _SAYS_NOTHING_HAPPENED:
                failure = failures.lost(write=True).with_metadata(**failure.metadata)
            elif unknown and failure.reason == Reason.DEADLINE_EXCEEDED:
                failure = failures.deadline_exceeded(sent=True)
            unknown = unknown or failure.reason == Reason.OUTCOME_UNKNOWN
            if failure.reason == Reason.UPSTREAM_CREDENTIALS:
                self._credentials.refuse()
            delay = self._delay(failure, attempt, operation)
            if delay is None or delay >= deadline.remaining():
                raise failure
            self._pace.take(operation.name)
            await asyncio.sleep(delay)

    async def _take_turn(self, operation: Operation, deadline: Deadline) -> None:
        """Wait until the first attempt may go. Raises Failure where it may not go in time, or not at all."""
        if not deadline.remaining():
            raise failures.deadline_exceeded(sent=False)
        if not self._credentials.there:
            raise failures.no_credentials()
        wait = self._pace.wait(operation.name)
        if wait >= deadline.remaining():
            raise failures.overloaded(wait)
        self._pace.take(operation.name)
        await asyncio.sleep(wait)

    def _delay(self, failure: Failure, attempt: int, operation: Operation) -> float | None:
        """Return how many seconds to wait before the next attempt, or None for none: exponential, with full jitter.

        See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        first = _RETRIED.get(failure.reason)
        if first is None or attempt == self._max_attempts:
            return None
        backoff = random.uniform(0, min(_MAX_BACKOFF_SECONDS, first * 2 ** (attempt - 1)))
        return max(backoff, self._pace.wait(operation.name))

    async def _attempt(
        self,
        operation: Operation,
        members: Mapping[str, Any],
        deadline: Deadline,
        receive: Callable[[Reply], Received],
    ) -> Received:
        attempt = Attempt(deadline)
        running = self._threads.submit(attempting(attempt).run, self._send, operation, members, attempt)
        watchdog = asyncio.get_running_loop().call_later(deadline.remaining(), attempt.expire)
        self._attempts.add(attempt)
        running.add_done_callback(lambda _: self._attempts.discard(attempt))
        try:
            reply = await _outcome(running, deadline, operation, members)
        finally:
            watchdog.cancel()
        try:
            return receive(reply)
        except GarbledReplyError:
            write = operation.token is not None
            raise failures.lost(write=write).with_metadata(aws_request_id=reply.request_id) from None

    def _send(self, operation: Operation, members: Mapping[str, Any], attempt: Attempt) -> Reply:
        """Send the request and wait for the reply, in a thread. Raises Failure and nothing else."""
        try:
            reply = getattr(self._client, xform_name(operation.name))(**members)
        except Exception as error:  # noqa: BLE001 - botocore lets its parser's errors through as they are
            expired = attempt.expired or not attempt.deadline.remaining()
            write = operation.token is not None
            raise failures.failure_of(error, sent=attempt.sent, expired=expired, write=write) from None
        finally:
            attempt.finish()
        return Reply(reply, reply["ResponseMetadata"].get("RequestId"))


async def _outcome(
    running: "Future[Reply]", deadline: Deadline, operation: Operation, members: Mapping[str, Any]
) -> Reply:
    """Return what comes of a call that runs in a thread.

    A cancelled call that has not begun never begins. One that has begun runs to its end, and this coroutine with it, so
    that whoever counts the calls in flight counts the threads at work; what came of it is logged, for nobody else hears.
    A thread that its deadline does not free, because it hangs in a name look-up for instance, is not waited for.
    """
    future = asyncio.wrap_future(running)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future], timeout=deadline.remaining() + _LATENESS_SECONDS)
        except asyncio.CancelledError as error:
            cancelled = error
        over = cancelled is not None or not deadline.remaining()
        if not future.done() and over and (running.cancel() or not deadline.remaining()):
            break
    if cancelled is None and future.done() and not running.cancelled():
        return future.result()
    future.cancel()
    if running.cancelled():
        raise cancelled or failures.deadline_exceeded(sent=False)
    running.add_done_callback(partial(_log_orphan, operation, members))
    raise cancelled or failures.deadline_exceeded(sent=True)


def _log_orphan(operation: Operation, members: Mapping[str, Any], ended: "Future[Reply]") -> None:
    token = members[operation.token.member] if operation.token else None
    failure = ended.exception()
    outcome = failure.reason.name if isinstance(failure, Failure) else "OK"
    logger.warning("%s ended %s after its caller had gone, idempotency token %s", operation.name, outcome, token)
