"""What a call ends with when it fails: one exception, and the `google.rpc.Status` that callers get from it."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

DOMAIN = "servicecatalog-grpc"

# gRPC clients drop trailers of more than 8 KiB. The details grow by a third in base64, and the message travels a second
# time as `grpc-message`, where percent-encoding can triple it: together the two stay below 7 KiB.
MAX_DETAILS_BYTES = 4096
MAX_MESSAGE_BYTES = 512
_MAX_METADATA_BYTES = 128


class Reason(Enum):
    """The values of the contract's `ErrorReason`, each with the one gRPC code that it goes with."""

    INVALID_REQUEST = "INVALID_REQUEST", StatusCode.INVALID_ARGUMENT
    INVALID_PARAMETERS = "INVALID_PARAMETERS", StatusCode.INVALID_ARGUMENT
    ALREADY_EXISTS = "ALREADY_EXISTS", StatusCode.ALREADY_EXISTS
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND", StatusCode.NOT_FOUND
    INVALID_STATE = "INVALID_STATE", StatusCode.FAILED_PRECONDITION
    NOT_YET_CONSISTENT = "NOT_YET_CONSISTENT", StatusCode.UNAVAILABLE
    OPERATION_IN_PROGRESS = "OPERATION_IN_PROGRESS", StatusCode.ABORTED
    NO_LAUNCH_PATH = "NO_LAUNCH_PATH", StatusCode.FAILED_PRECONDITION
    OPERATION_NOT_SUPPORTED = "OPERATION_NOT_SUPPORTED", StatusCode.UNIMPLEMENTED
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED", StatusCode.RESOURCE_EXHAUSTED
    ACCESS_DENIED = "ACCESS_DENIED", StatusCode.PERMISSION_DENIED
    THROTTLED = "THROTTLED", StatusCode.RESOURCE_EXHAUSTED
    OVERLOADED = "OVERLOADED", StatusCode.RESOURCE_EXHAUSTED
    UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE", StatusCode.UNAVAILABLE
    UPSTREAM_CREDENTIALS = "UPSTREAM_CREDENTIALS", StatusCode.UNAVAILABLE
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN", StatusCode.UNKNOWN
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED", StatusCode.DEADLINE_EXCEEDED
    RECORD_ACCESS_LOST = "RECORD_ACCESS_LOST", StatusCode.PERMISSION_DENIED
    SHUTTING_DOWN = "SHUTTING_DOWN", StatusCode.UNAVAILABLE
    CALLER_NOT_ALLOWED = "CALLER_NOT_ALLOWED", StatusCode.PERMISSION_DENIED
    UNMAPPED_AWS_ERROR = "UNMAPPED_AWS_ERROR", StatusCode.UNKNOWN
    INTERNAL = "INTERNAL", StatusCode.INTERNAL

    @property
    def code(self) -> StatusCode:
        """The gRPC code."""
        return self.value[1]


class Violation(NamedTuple):
    """One field of a request that breaks a rule.

    `field` is its protobuf path, e.g. `provisioning_preferences.stack_set_accounts[2]`. `description` says what is
    wrong and never holds the value.
    """

    field: str
    description: str


class Failure(Exception):
    """The end of a call that failed, as its caller gets it. The reason alone decides the gRPC code."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the failure.

        `message` is for people and holds nothing secret but what AWS itself says; `retry_after` is in seconds;
        `metadata` goes into the `ErrorInfo`.
        """
        super().__init__(message)
        self.reason = reason
        self.message = shorten(message, MAX_MESSAGE_BYTES)
        self.violations = violations
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})

    def with_metadata(self, **metadata: str | None) -> "Failure":
        """Add what is known by now; what is None stays out, and what is there stays. Returns the failure itself."""
        self.metadata = {key: value for key, value in metadata.items() if value} | self.metadata
        return self

    def again(self) -> "Failure":
        """Return another one like this, for another call that ends the same way."""
        return Failure(
            self.reason,
            self.message,
            violations=self.violations,
            retry_after=self.retry_after,
            metadata=self.metadata,
        )

    def to_status(self) -> status_pb2.Status:
        """Return the status with its details: `ErrorInfo`, `RetryInfo`, `BadRequest`, within `MAX_DETAILS_BYTES`.

        See https://google.aip.dev/193 for what each is for.
        """
        metadata = {key: shorten(value, _MAX_METADATA_BYTES) for key, value in self.metadata.items()}
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason.name, domain=DOMAIN, metadata=metadata)
        ]
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.reason.code.value[0], message=self.message, details=map(_pack, details))
        if self.violations:
            status.details.append(_pack(_bad_request(self.violations, MAX_DETAILS_BYTES - status.ByteSize())))
        return status


def invalid_request(violations: Sequence[Violation]) -> Failure:
    """Return the failure of a request that breaks rules, with all of them."""
    first = violations[0]
    message = f"{first.field}: {first.description}"
    if len(violations) > 1:
        message += f" (and {len(violations) - 1} more)"
    return Failure(Reason.INVALID_REQUEST, message, violations=violations)


def _bad_request(violations: Sequence[Violation], budget: int) -> error_details_pb2.BadRequest:
    """Return as many violations as fit in so many bytes; the last entry counts the ones that do not."""
    rest_and_wrapping = 160
    bad_request = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        bad_request.field_violations.add(field=violation.field, description=violation.description)
        if bad_request.ByteSize() > budget - rest_and_wrapping:
            del bad_request.field_violations[-1]
            missing = len(violations) - number
            bad_request.field_violations.add(description=f"{missing} more violations are not listed for lack of room")
            break
    return bad_request


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def shorten(text: str, limit: int) -> str:
    """Return the text in at most so many bytes of UTF-8, with an ellipsis where something is missing."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    ellipsis = "…"
    return encoded[: limit - len(ellipsis.encode())].decode(errors="ignore") + ellipsis
