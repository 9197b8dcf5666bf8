"""How long a record is watched, and what happens when its watch breaks."""

import random
import time

import grpc

from servicecatalog._failure import Failure
from servicecatalog.v1.error_reason_pb2 import ErrorReason
from servicecatalog.v1.record_pb2 import RecordStatus
from servicecatalog.v1.record_service_pb2 import WatchRecordRequest, WatchRecordResponse

_FINAL = {RecordStatus.RECORD_STATUS_SUCCEEDED, RecordStatus.RECORD_STATUS_FAILED}

# What passes, besides UNAVAILABLE. A watch only reads, so it may be repeated even where nobody knows what has become of it.
_REASONS = {
    ErrorReason.ERROR_REASON_THROTTLED,
    ErrorReason.ERROR_REASON_OVERLOADED,
    ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
}
# The same where gRPC or a proxy made the failure.
_CODES = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
}

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_GROWTH = 2.0
_JITTER = 0.2


class Watching:
    """One wait for a record, over as many streams as it takes."""

    def __init__(self, record_id: str, timeout: float | None) -> None:
        self.request = WatchRecordRequest(id=record_id)
        self.ended = False
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_PAUSE
        self._failure: Failure | None = None

    def time_left(self) -> float | None:
        """Return the seconds that are left, None if there is no deadline. Raises Failure when it has passed."""
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            message = f"the record {self.request.id} has not ended before the deadline"
            raise Failure(grpc.StatusCode.DEADLINE_EXCEEDED, details=message) from self._failure
        return left

    def saw(self, response: WatchRecordResponse) -> None:
        """Take note of a message: the way to the façade is good."""
        self._pause = _FIRST_PAUSE
        self.ended = response.record_detail.status in _FINAL

    def pause(self, failure: Failure | None) -> float:
        """Return the seconds up to the next stream, after one that ended with the failure, or well but too early.

        Raises the failure if it does not pass, and one of DEADLINE_EXCEEDED when the deadline has passed.
        """
        if failure is not None and not _passes(failure):
            raise failure
        self._failure = failure
        if failure is not None and failure.retry_delay is not None:
            pause = max(failure.retry_delay.total_seconds(), 0)
        else:
            pause = self._pause * random.uniform(1 - _JITTER, 1 + _JITTER)
            self._pause = min(self._pause * _GROWTH, _LONGEST_PAUSE)
        left = self.time_left()
        return pause if left is None else min(pause, left)


def _passes(failure: Failure) -> bool:
    if failure.code() == grpc.StatusCode.UNAVAILABLE:
        return True
    return failure.code() in _CODES if failure.reason_name is None else failure.reason in _REASONS
