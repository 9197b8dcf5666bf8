"""What a failed call raises."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from servicecatalog.v1.error_reason_pb2 import ErrorReason

_DOMAIN = "servicecatalog-grpc"
_PREFIX = "ERROR_REASON_"


class Violation(NamedTuple):
    """A field of a request that breaks a rule of AWS.

    `field` is its path in the contract's names, e.g. `provisioning_preferences.stack_set_accounts[2]`, and is empty where
    the description is of several fields. `description` says what is wrong.
    """

    field: str
    description: str


# The error of grpc.aio is a snapshot, which no event loop has a part in: it serves both worlds.
class Failure(grpc.aio.AioRpcError):
    """The end of a call that failed.

    As an error of gRPC it has `code()`, `details()`, `initial_metadata()` and `trailing_metadata()`, and is caught as
    `grpc.RpcError` too.

    - `reason`: the contract's `ErrorReason`. `ERROR_REASON_UNSPECIFIED` where the façade gave none, because gRPC or a proxy
      on the way made the failure, or one that is newer than this package.
    - `reason_name`: the reason as it came, e.g. `OUTCOME_UNKNOWN`; None where there is none.
    - `message`: for people, the same as `details()`.
    - `violations`: a `Violation` for each field of the request that breaks a rule; empty if the failure is another.
    - `retry_delay`: a `datetime.timedelta` to let pass before the call is repeated, or None.
    - `token`: the idempotency token of a write. The same request with it in its token field is the same intent, however
      often it is sent: it finds out what happened after `OUTCOME_UNKNOWN`, or after a failure without a reason. None for
      calls that only read, and where a key in the metadata stood for the token and the façade's answer was lost.
    - `metadata`: what the façade adds, as far as it is known: `aws_operation`, `aws_error_code`, `aws_request_id` and
      `idempotency_token`.

    See the README of servicecatalog-grpc for what each code and reason says about what has happened.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        initial_metadata: Any = None,
        trailing_metadata: Any = None,
        details: str | None = None,
        debug_error_string: str | None = None,
        sent_token: str | None = None,
    ) -> None:
        super().__init__(code, initial_metadata, trailing_metadata, details, debug_error_string)
        self._sent_token = sent_token
        packed = _status(trailing_metadata or ()).details
        info = next((each for each in _unpack(packed, ErrorInfo) if each.domain == _DOMAIN), ErrorInfo())
        self.reason = ErrorReason.ERROR_REASON_UNSPECIFIED
        with suppress(ValueError):
            self.reason = ErrorReason.Value(_PREFIX + info.reason)
        self.reason_name: str | None = info.reason or None
        self.message: str = details or ""
        self.violations = tuple(
            Violation(each.field, each.description)
            for bad_request in _unpack(packed, BadRequest)
            for each in bad_request.field_violations
        )
        self.retry_delay = next((_delay(each) for each in _unpack(packed, RetryInfo)), None)
        self.metadata: dict[str, str] = dict(info.metadata)
        self.token: str | None = (
            self.metadata.get("idempotency_token")
            or next((value for key, value in initial_metadata or () if key == "idempotency-token"), None)
            or sent_token
        )

    def __str__(self) -> str:
        reason = f" ({self.reason_name})" if self.reason_name else ""
        return f"{self.code().name}{reason}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        # As plain tuples: gRPC's own cannot be pickled.
        arguments = (
            self.code(),
            *(tuple(map(tuple, metadata or ())) for metadata in (self.initial_metadata(), self.trailing_metadata())),
            self.details(),
            self.debug_error_string(),
            self._sent_token,
        )
        return type(self), arguments


class Failures:
    """Turns gRPC's own error, of a call whose request was sent with the token, into a `Failure`."""

    def __init__(self, sent_token: str | None = None) -> None:
        self._sent_token = sent_token

    def of(self, error: Any) -> Failure:
        """Return the failure that the error is."""
        # Not every call has this, and it is for people only.
        debug_error_string = getattr(error, "debug_error_string", None)
        return Failure(
            error.code(),
            error.initial_metadata(),
            error.trailing_metadata(),
            error.details(),
            debug_error_string and debug_error_string(),
            self._sent_token,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, grpc.RpcError):
            raise self.of(error) from None  # it says all that the error does


def _status(trailing_metadata: Sequence[tuple[str, str | bytes]]) -> Any:
    """Return the rich status, which is empty if there is none or what is there is malformed."""
    with suppress(DecodeError):
        for key, value in trailing_metadata:
            if key == "grpc-status-details-bin":
                return Status.FromString(value)
    return Status()


def _unpack(details: Any, kind: type) -> Iterator[Any]:
    """Yield the details of the kind that are well-formed."""
    for detail in details:
        message = kind()
        with suppress(DecodeError):
            if detail.Unpack(message):
                yield message


def _delay(retry_info: Any) -> timedelta | None:
    with suppress(OverflowError, ValueError):
        if retry_info.HasField("retry_delay"):
            delay: timedelta = retry_info.retry_delay.ToTimedelta()
            return delay
    return None
