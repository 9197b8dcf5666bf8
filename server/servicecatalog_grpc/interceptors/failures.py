"""Turns what a servicer raises into a `google.rpc.Status`, and nothing else ever reaches a caller."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from servicecatalog_grpc.aws.failures import internal
from servicecatalog_grpc.aws.protocol import REQUEST_ID
from servicecatalog_grpc.failure import Failure, Violation, invalid_request
from servicecatalog_grpc.interceptors.handlers import Context, Decode, MaybeHandler, around
from servicecatalog_grpc.telemetry.call import current_call

# https://grpc.io/docs/guides/error/#richer-error-model
STATUS_DETAILS = "grpc-status-details-bin"


class FailureInterceptor(grpc.aio.ServerInterceptor):
    """Ends each call that raises with the status of its Failure; any other exception is a fault of ours."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        """Wrap the handler, and decode its requests where a broken one can be told so."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        return around(handler, _guard, partial(_decode, handler.request_deserializer))


@asynccontextmanager
async def _guard(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.AbortError:
        raise  # the servicer has ended the call itself
    except Failure as failure:
        await _abort(context, failure)
    except Exception as error:  # noqa: BLE001 - whatever it is, no caller gets to see it
        await _abort(context, internal(error))


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
