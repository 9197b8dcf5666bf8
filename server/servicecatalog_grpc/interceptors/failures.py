"""Turns what a servicer raises into a `google.rpc.Status`, and nothing else ever reaches a caller."""

from collections.abc import Callable
from typing import Any, NoReturn

import grpc.aio
from google.protobuf.message import DecodeError

from servicecatalog_grpc.aws.failures import internal
from servicecatalog_grpc.aws.protocol import REQUEST_ID
from servicecatalog_grpc.context import Context
from servicecatalog_grpc.failure import Failure, Violation, invalid_request
from servicecatalog_grpc.telemetry.call import current_call

# https://grpc.io/docs/guides/error/#richer-error-model
STATUS_DETAILS = "grpc-status-details-bin"


def decoder(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return what decodes requests in the place of gRPC, which has no words for one that is broken. It raises Failure."""

    def decode(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except DecodeError:
            raise invalid_request([Violation("request", "is not a message of this method's type")]) from None

    return decode


async def end_call(context: Context, error: Exception) -> NoReturn:
    """End the call with the status of its Failure; any other exception is a fault of ours. Raises gRPC's AbortError."""
    # Which says that the servicer has ended the call itself.
    if isinstance(error, grpc.aio.AbortError):
        raise error
    failure = error if isinstance(error, Failure) else internal(error)
    current_call().fail(failure)
    status = failure.to_status()
    trailing: list[tuple[str, str | bytes]] = [(STATUS_DETAILS, status.SerializeToString())]
    if request_id := failure.metadata.get("aws_request_id"):
        trailing.append((REQUEST_ID, request_id))
    await context.abort(failure.reason.code, status.message, tuple(trailing))
