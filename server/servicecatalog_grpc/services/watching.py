"""Follows records to their end: one poller per record, however many watch it.

AWS offers no waiter for records, charges for each call and throttles. So whoever watches a record shares one poller with
all who watch the same, and all pollers share one rate. Callers with an AWS role of their own share with nobody: what IAM
shows to one caller is for that one.
"""

import asyncio
import contextvars
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator

from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog.v1.record_service_pb2 import WatchRecordRequest, WatchRecordResponse

from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.failures import internal, overloaded, shutting_down
from servicecatalog_grpc.aws.pace import Pace
from servicecatalog_grpc.caller import Caller, current_caller, set_caller
from servicecatalog_grpc.failure import Failure, Reason, invalid_request
from servicecatalog_grpc.services.admission import Admission
from servicecatalog_grpc.services.fetching import Fetch
from servicecatalog_grpc.translation.pairing import Operation
from servicecatalog_grpc.translation.rules import broken_rules

FINAL = frozenset({RecordStatus.RECORD_STATUS_SUCCEEDED, RecordStatus.RECORD_STATUS_FAILED})

# Just after its creation a record may not be there yet for whoever asks.
_NOT_FOUND_SECONDS = 3.0

# So many failures in a row, and watchers had better ask elsewhere. With the pauses between them this takes minutes.
_FAILURES_IN_A_ROW = 10

_PASSING = frozenset(
    {
        Reason.THROTTLED,
        Reason.OVERLOADED,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_CREDENTIALS,
        Reason.DEADLINE_EXCEEDED,
    }
)

_GROWTH = 1.5
_JITTER = 0.2
_MAX_SLOWDOWN = 16.0
_RECOVERY = 0.9

_RETRY_SECONDS = (1.0, 5.0)

_POLL = "poll"

# How long a poll may take, its wait for a place included.
_POLL_SECONDS = 30.0


class Watches:
    """All watches of a server, and their pollers."""

    def __init__(
        self,
        fetch: Fetch,
        operation: Operation,
        *,
        polls: Admission,
        limit: int,
        first: float,
        longest: float,
        rate: float,
    ) -> None:
        """Poll each record with the operation: after `first` seconds, then ever less often, at last every `longest`.

        All pollers together poll `rate` times a second at most, not counting the first look at each record, and as many
        at a time as `polls` lets in. `limit` watches may be open at a time.
        """
        self._fetch = fetch
        self._operation = operation
        self._polls = polls
        self._limit = limit
        self._first = first
        self._longest = longest
        self._pace = Pace({_POLL: rate})
        self._turn = asyncio.Lock()
        self._open = 0
        self._pollers: dict[tuple[Caller, bytes], _Poller] = {}
        self._slowdown = 1.0
        self._closed = False

    async def __call__(
        self, request: WatchRecordRequest, deadline: Deadline | None
    ) -> AsyncGenerator[WatchRecordResponse, None]:
        """Yield the record as it is, and again whenever it has changed, up to its final state. Raises Failure.

        A watcher that is slow to take what is yielded misses states in between, and never the last one.
        """
        violations = [*self._operation.request.check(request, ""), *broken_rules(request)]
        if violations:
            raise invalid_request(violations).with_metadata(aws_operation=self._operation.name)
        if self._closed:
            raise shutting_down()
        if self._open >= self._limit:
            raise overloaded(retry_after=random.uniform(*_RETRY_SECONDS))
        caller = current_caller()
        # Without a role, AWS is asked by the server itself, whoever watches.
        asking = caller if caller.role else Caller()
        key = asking, request.SerializeToString(deterministic=True)
        poller = self._pollers.get(key)
        if poller is None or poller.ended:
            poller = self._pollers[key] = _Poller(self._poll(request), asking)
        self._open += 1
        poller.watchers += 1
        try:
            seen = 0
            while True:
                seen, response = await poller.newer_than(seen, deadline)
                yield response
                if response.record_detail.status in FINAL:
                    return
        except Failure as failure:
            raise failure.with_metadata(aws_operation=self._operation.name) from None
        finally:
            self._open -= 1
            poller.watchers -= 1
            if not poller.watchers:
                poller.stop()
                if self._pollers.get(key) is poller:
                    del self._pollers[key]

    def close(self) -> None:
        """End every watch: its watcher goes on elsewhere."""
        self._closed = True
        for poller in self._pollers.values():
            poller.stop()
            poller.fail(shutting_down())

    async def _poll(self, request: WatchRecordRequest) -> AsyncIterator[WatchRecordResponse]:
        """Yield what each poll returns, with the pauses between them, up to the final state. Raises Failure."""
        last: WatchRecordResponse | None = None
        began = time.monotonic()
        pause = self._first
        failed = 0
        while True:
            # The first look answers a call, as any read does: it does not wait for the turns of all others.
            if last is not None or failed:
                await self._take_turn()
            try:
                response = await self._describe(request)
            except Failure as failure:
                failed += 1
                if failure.reason == Reason.THROTTLED:
                    self._slowdown = min(_MAX_SLOWDOWN, self._slowdown * 2)
                end = _end_of(failure, seen=last is not None, failed=failed, seconds=time.monotonic() - began)
                if end is not None:
                    raise end from None
            else:
                failed = 0
                self._slowdown = max(1.0, self._slowdown * _RECOVERY)
                if response != last:
                    pause, last = self._first, response
                    yield response
                    if response.record_detail.status in FINAL:
                        return
            await asyncio.sleep(pause * self._slowdown * random.uniform(1 - _JITTER, 1 + _JITTER))
            pause = min(self._longest, pause * _GROWTH)

    async def _take_turn(self) -> None:
        """Wait for the next turn of all polls. Who gives up waiting leaves its turn to the next."""
        async with self._turn:
            await asyncio.sleep(self._pace.wait(_POLL))
            self._pace.take(_POLL)

    async def _describe(self, request: WatchRecordRequest) -> WatchRecordResponse:
        response = WatchRecordResponse()
        deadline = Deadline(_POLL_SECONDS)
        async with self._polls.place(deadline):
            # Not repeated: the next poll comes anyway, and repeats would undo the pauses that a throttle asks for.
            await self._fetch(
                self._operation, self._operation.request.to_aws(request), deadline, response, repeat=False
            )
        return response


def _end_of(failure: Failure, *, seen: bool, failed: int, seconds: float) -> Failure | None:
    """Return what ends the watches of a record, or None if it is worth another poll.

    This failure is the `failed`th in a row, after so many seconds of polling.
    """
    if failure.reason == Reason.RESOURCE_NOT_FOUND and not seen and seconds < _NOT_FOUND_SECONDS:
        return None
    if failure.reason in _PASSING and failed <= _FAILURES_IN_A_ROW:
        return None
    if failure.reason == Reason.ACCESS_DENIED and seen:
        return Failure(
            Reason.RECORD_ACCESS_LOST,
            "AWS no longer shows the record to this server: its product may have another owner",
            metadata=failure.metadata,
        )
    return failure


class _Poller:
    """Runs one record's polls in a task of its own, and tells all its watchers what they return."""

    def __init__(self, states: AsyncIterator[WatchRecordResponse], asking: Caller) -> None:
        self.watchers = 0
        self._version = 0
        self._state = WatchRecordResponse()
        self._failure: Failure | None = None
        self._news = asyncio.Event()
        # In a context of its own: it is of all watchers, and not a part of the first one's call and trace.
        context = contextvars.Context()
        context.run(set_caller, asking)
        self._task = asyncio.create_task(self._run(states), context=context)

    @property
    def ended(self) -> bool:
        """Whether it polls no more."""
        return self._task.done() or self._failure is not None

    async def newer_than(self, version: int, deadline: Deadline | None) -> tuple[int, WatchRecordResponse]:
        """Return the present state and its version, once that is newer than the given one. Raises Failure."""
        try:
            async with asyncio.timeout(deadline.remaining() if deadline else None):
                while self._version == version:
                    if self._failure is not None:
                        raise self._failure.again()
                    await self._news.wait()
        except TimeoutError:
            raise Failure(Reason.DEADLINE_EXCEEDED, "the deadline passed before the record came to its end") from None
        return self._version, self._state

    def fail(self, failure: Failure) -> None:
        """End all watches with the failure, unless they have come to their end already."""
        self._failure = failure
        self._tell()

    def stop(self) -> None:
        """Poll no more."""
        self._task.cancel()

    async def _run(self, states: AsyncIterator[WatchRecordResponse]) -> None:
        try:
            async for state in states:
                self._state = state
                self._version += 1
                self._tell()
        except Failure as failure:
            self.fail(failure)
        except Exception as error:  # noqa: BLE001 - a fault must end the watches, not leave them waiting for ever
            self.fail(internal(error))

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
