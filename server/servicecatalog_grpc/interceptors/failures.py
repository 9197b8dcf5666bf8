"""Turns what a servicer raises into a `google.rpc.Status`, and nothing else ever reaches a caller."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from servicecatalog_grpc.aws.failures import internal
from servicecatalog_grpc.failure import Failure

# https://grpc.io/docs/guides/error/#richer-error-model
STATUS_DETAILS = "grpc-status-details-bin"
AWS_REQUEST_ID = "x-amzn-requestid"

# In quotes: only the type stubs know that these are generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class FailureInterceptor(grpc.aio.ServerInterceptor):
    """Ends each unary call that raises with the status of its Failure; any other exception is a fault of ours."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler of a unary call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        behavior: Any = handler.unary_unary

        async def answer(request: Any, context: Context) -> Any:
            try:
                return await behavior(request, context)
            except Failure as failure:
                await _abort(context, failure)
            except Exception as error:  # noqa: BLE001 - whatever it is, no caller gets to see it
                await _abort(context, internal(error))

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


async def _abort(context: Context, failure: Failure) -> None:
    status = failure.to_status()
    trailing: list[tuple[str, str | bytes]] = [(STATUS_DETAILS, status.SerializeToString())]
    if request_id := failure.metadata.get("aws_request_id"):
        trailing.append((AWS_REQUEST_ID, request_id))
    await context.abort(failure.reason.code, status.message, tuple(trailing))
