"""Turns what a servicer raises into a `google.rpc.Status`, and nothing else ever reaches a caller."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError

from servicecatalog_grpc.aws.failures import internal
from servicecatalog_grpc.aws.protocol import REQUEST_ID
from servicecatalog_grpc.failure import Failure, Violation, invalid_request
from servicecatalog_grpc.interceptors.handlers import Context, Decode, Guard, Handler, around
from servicecatalog_grpc.telemetry.call import current_call

# https://grpc.io/docs/guides/error/#richer-error-model
STATUS_DETAILS = "grpc-status-details-bin"


class FailureGuard(Guard):
    """Ends each call that raises with the status of its Failure; any other exception is a fault of ours."""

    def guard(self, context: Context) -> AbstractAsyncContextManager[None]:
        """Return what ends the call if something is raised."""
        return _Ending(context)

    def wrap(self, handler: Handler, _method: str) -> Handler:
        """Wrap the handler, and decode its requests where a broken one can be told so."""
        if handler.request_deserializer is None:
            return handler
        return around(handler, self.guard, partial(_decode, handler.request_deserializer))


class _Ending(AbstractAsyncContextManager[None]):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        # An AbortError says that the servicer has ended the call itself.
        if isinstance(error, Failure):
            await _abort(self._context, error)
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            # Whatever it is, no caller gets to see it.
            await _abort(self._context, internal(error))


def _decode(deserialize: Decode, data: bytes) -> Any:
    try:
        return deserialize(data)
    except DecodeError:
        raise invalid_request([Violation("request", "is not a message of this method's type")]) from None


async def _abort(context: Context, failure: Failure) -> None:
    current_call().fail(failure)
    status = failure.to_status()
    trailing: list[tuple[str, str | bytes]] = [(STATUS_DETAILS, status.SerializeToString())]
    if request_id := failure.metadata.get("aws_request_id"):
        trailing.append((REQUEST_ID, request_id))
    await context.abort(failure.reason.code, status.message, tuple(trailing))
