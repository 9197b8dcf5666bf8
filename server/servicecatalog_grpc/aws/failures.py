"""The failure table: what each failure of a call to AWS means to the caller of the façade.

Codes come from AWS's pages on each operation and from
https://docs.aws.amazon.com/servicecatalog/latest/dg/CommonErrors.html
"""

import logging
import random
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import regex
from botocore import exceptions

from servicecatalog_grpc.aws.protocol import REQUEST_ID
from servicecatalog_grpc.failure import Failure, Reason

logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    """AWS's error codes, what AWS's message must say (None: anything), and the reason that callers get."""

    codes: frozenset[str] | None
    message: "regex.Pattern[str] | None"
    reason: Reason


def _row(codes: str | None, message: str | None, reason: Reason) -> _Row:
    return _Row(
        frozenset(codes.split()) if codes else None,
        regex.compile(message, regex.IGNORECASE | regex.DOTALL) if message else None,
        reason,
    )


_INVALID = "InvalidParametersException ValidationException"

# The first row that fits decides.
_TABLE = (
    _row(None, r"\bRate exceeded\b", Reason.THROTTLED),
    _row(
        "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException "
        "RequestLimitExceeded TooManyRequestsException TooManyRequests SlowDown BandwidthLimitExceeded "
        "PriorRequestNotComplete",
        None,
        Reason.THROTTLED,
    ),
    _row(_INVALID, r"already exists", Reason.ALREADY_EXISTS),
    _row(_INVALID, r"profile does not exist", Reason.NOT_YET_CONSISTENT),
    _row(_INVALID, r"another\b.*\boperation is in progress", Reason.OPERATION_IN_PROGRESS),
    _row(_INVALID, r"is not enrolled", Reason.INVALID_STATE),
    _row(_INVALID, None, Reason.INVALID_PARAMETERS),
    _row("DuplicateResourceException", None, Reason.ALREADY_EXISTS),
    _row("ResourceNotFoundException", r"No launch paths found", Reason.NO_LAUNCH_PATH),
    _row("ResourceNotFoundException", None, Reason.RESOURCE_NOT_FOUND),
    _row(
        "InvalidStateException ResourceInUseException TagOptionNotMigratedException",
        None,
        Reason.INVALID_STATE,
    ),
    _row("OperationNotSupportedException", None, Reason.OPERATION_NOT_SUPPORTED),
    _row("LimitExceededException", None, Reason.QUOTA_EXCEEDED),
    _row(
        "AccessDeniedException AccessDenied UnauthorizedOperation NotAuthorized NotAuthorizedException "
        "UnauthorizedException OptInRequired",
        None,
        Reason.ACCESS_DENIED,
    ),
    _row(
        "ExpiredToken ExpiredTokenException RequestExpired UnrecognizedClientException InvalidClientTokenId "
        "InvalidAccessKeyId InvalidSignatureException SignatureDoesNotMatch IncompleteSignature "
        "IncompleteSignatureException MissingAuthenticationToken MissingAuthenticationTokenException AuthFailure",
        None,
        Reason.UPSTREAM_CREDENTIALS,
    ),
)

_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    exceptions.NoAuthTokenError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
    exceptions.UnauthorizedSSOTokenError,
    exceptions.RefreshWithMFAUnsupportedError,
    exceptions.InfiniteLoopConfigError,
    exceptions.ConfigNotFound,
    exceptions.ProfileNotFound,
)

_MESSAGES: Mapping[Reason, str] = {
    Reason.THROTTLED: "AWS takes no more requests at this rate; nothing happened",
    Reason.UPSTREAM_UNREACHABLE: "AWS Service Catalog could not be reached; nothing happened",
    Reason.UPSTREAM_CREDENTIALS: "the server has no valid AWS credentials; nothing happened",
    Reason.SHUTTING_DOWN: "this server is stopping and did nothing: another one answers",
    Reason.OVERLOADED: "this server has no room for the call; nothing happened",
    Reason.OUTCOME_UNKNOWN: "AWS may have acted and its answer was lost: repeat with the same token",
    Reason.DEADLINE_EXCEEDED: "the deadline passed; AWS may have acted: repeat with the same token",
    Reason.UNMAPPED_AWS_ERROR: "AWS answered with an error that this server does not know",
    Reason.INTERNAL: "the server has a fault",
}

# Without what metadata cannot carry, and no longer than any id of AWS's.
_CARRIABLE = regex.compile(r"[!-~]{1,128}")

_SERVER_ERROR = 500
_TOO_MANY_REQUESTS = 429


def failure_of(error: Exception, *, sent: bool, expired: bool, write: bool) -> Failure:
    """Return what the error of one attempt means to the caller.

    `sent` says whether the request may have left, `expired` whether the deadline ended it, `write` whether AWS may have
    acted on it.
    """
    if isinstance(error, exceptions.ClientError):
        return _failure_of_answer(error, expired=expired, write=write)
    if expired:
        return deadline_exceeded(sent=sent)
    if sent:
        return lost(write=write)
    if isinstance(error, _NO_CREDENTIALS):
        return _own(Reason.UPSTREAM_CREDENTIALS)
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError):
        return _own(Reason.UPSTREAM_UNREACHABLE)
    return internal(error)


def lost(*, write: bool) -> Failure:
    """Return the failure of a request that may have reached AWS, and whose reply did not come back whole."""
    return _own(Reason.OUTCOME_UNKNOWN if write else Reason.UPSTREAM_UNREACHABLE)


def no_credentials() -> Failure:
    """Return the failure of a call that cannot be sent for want of credentials."""
    return _own(Reason.UPSTREAM_CREDENTIALS)


def role_not_taken(failure: Failure) -> Failure:
    """Return what the failure of an AssumeRole means to the caller: nothing else was asked of AWS on its behalf.

    AWS's own words stay here: they name the role of the server, its account and those of the caller's role.
    """
    if failure.reason == Reason.UPSTREAM_UNREACHABLE:
        failure = Failure(failure.reason, "AWS STS could not be reached; nothing happened", metadata=failure.metadata)
    elif failure.reason not in (Reason.THROTTLED, Reason.UPSTREAM_CREDENTIALS, Reason.INTERNAL):
        message = "AWS does not let this server take the role that the policy gives the caller; nothing happened"
        failure = Failure(Reason.UPSTREAM_CREDENTIALS, message, metadata=failure.metadata)
    return failure.with_metadata(aws_operation="AssumeRole")


def overloaded(retry_after: float) -> Failure:
    """Return the failure of a call that this server does not take now; the caller may repeat it in so many seconds."""
    return Failure(Reason.OVERLOADED, _MESSAGES[Reason.OVERLOADED], retry_after=retry_after)


def shutting_down() -> Failure:
    """Return the failure of a call that comes while the server stops."""
    return _own(Reason.SHUTTING_DOWN)


def deadline_exceeded(*, sent: bool) -> Failure:
    """Return the failure of a call whose deadline passed, before or after something may have left for AWS."""
    if sent:
        return _own(Reason.DEADLINE_EXCEEDED)
    return Failure(Reason.DEADLINE_EXCEEDED, "the deadline passed; nothing was sent to AWS")


def internal(error: BaseException) -> Failure:
    """Log the fault and return the failure that says nothing of it.

    The log gets the places and the kind of the error, and not its text, which may quote a parameter's value.
    """
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("a fault of this server: %s\n%s", type(error).__qualname__, places)
    return _own(Reason.INTERNAL)


def request_id(answer: Mapping[str, Any]) -> str | None:
    """Return AWS's id of the request from what boto3 returned or raised, unless metadata cannot carry it."""
    http = answer.get("ResponseMetadata", {})
    # botocore leaves RequestId out where a 5xx has no body.
    found = str(http.get("RequestId") or http.get("HTTPHeaders", {}).get(REQUEST_ID) or "")
    return found if _CARRIABLE.fullmatch(found) else None


def _failure_of_answer(error: exceptions.ClientError, *, expired: bool, write: bool) -> Failure:
    answer = error.response.get("Error", {})
    # botocore puts the HTTP status where AWS's code should be, and an answer that is not AWS's has no text.
    code, message = (text if isinstance(text := answer.get(key), str) else "" for key in ("Code", "Message"))
    code = "" if code.isdigit() else code
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    metadata = {"aws_error_code": code, "aws_request_id": request_id(error.response)}

    for row in _TABLE:
        if (row.codes is None or code in row.codes) and (row.message is None or row.message.search(message)):
            reason = row.reason
            break
    else:
        if status == _TOO_MANY_REQUESTS:
            reason = Reason.THROTTLED
        elif status >= _SERVER_ERROR or not code:
            # What answered was not AWS, or not wholly; at the deadline, because the answer was cut short.
            failure = deadline_exceeded(sent=True) if expired else lost(write=write)
            return failure.with_metadata(**metadata)
        else:
            reason = Reason.UNMAPPED_AWS_ERROR

    return Failure(
        reason,
        # AWS's refusals are meant for callers; what something between here and AWS says is not.
        # What it says of credentials can quote the request that they signed.
        _MESSAGES[reason]
        if reason == Reason.UPSTREAM_CREDENTIALS
        else (code and message) or _MESSAGES.get(reason, code),
        retry_after=random.uniform(1, 2) if reason == Reason.THROTTLED else None,
    ).with_metadata(**metadata)


def _own(reason: Reason) -> Failure:
    return Failure(reason, _MESSAGES[reason])
