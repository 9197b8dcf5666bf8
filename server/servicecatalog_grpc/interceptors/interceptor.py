"""The one interceptor: what goes around each handler's part of a call, whatever its kind of streaming."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Any, TypeAlias

import grpc
import grpc.aio

from servicecatalog_grpc.context import Context
from servicecatalog_grpc.interceptors.draining import Draining
from servicecatalog_grpc.interceptors.failures import decoder, end_call
from servicecatalog_grpc.interceptors.identity import Identification
from servicecatalog_grpc.interceptors.telemetry import Observation

# In quotes: only the type stubs know that these are generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Interceptor(grpc.aio.ServerInterceptor):
    """Has each call observed from its beginning to its end, its caller found out, and what it raises told to the caller.

    All of it is one coroutine around the handler's: each further one, and each further interceptor of gRPC, would cost a
    call 1% of what plain boto3 takes for it.
    """

    def __init__(self, observation: Observation, identification: Identification, draining: Draining) -> None:
        self._observation = observation
        self._identification = identification
        self._draining = draining
        # gRPC asks anew for each call, and what there is to wrap are the few handlers of the services.
        self._wrapped: dict[Handler, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        """Begin to observe the call, and wrap its handler."""
        details: Any = handler_call_details
        handler = await continuation(handler_call_details)
        self._observation.begin(details, known=handler is not None)
        if handler is None:
            return None
        wrapped = self._wrapped.get(handler)
        if wrapped is None:
            wrapped = self._wrapped[handler] = self._wrap(handler, self._draining.place_of(details.method))
        return wrapped

    def _wrap(self, handler: Handler, place: Callable[[], AbstractContextManager[None]]) -> Handler:
        observe, identify = self._observation.within, self._identification.identify
        behavior: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        decode = decoder(handler.request_deserializer)

        def decoded(request: Any) -> Any:
            return _each(request, decode) if handler.request_streaming else decode(request)

        async def answer(request: Any, context: Context) -> Any:
            with observe(context):
                try:
                    # Before anything can fail: a request that cannot be read is told of with who sent it.
                    identify(context)
                    with place():
                        return await behavior(decoded(request), context)
                except Exception as error:  # noqa: BLE001 - no caller gets to see any
                    await end_call(context, error)

        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            with observe(context):
                try:
                    identify(context)
                    with place():
                        async with aclosing(behavior(decoded(request), context)) as responses:
                            async for response in responses:
                                yield response
                except Exception as error:  # noqa: BLE001 - as above
                    await end_call(context, error)

        make: Any = _MAKERS[handler.request_streaming, handler.response_streaming]
        made: Handler = make(
            # gRPC tells by the kind of function whether it yields its responses or writes them.
            generate if inspect.isasyncgenfunction(behavior) else answer,
            response_serializer=handler.response_serializer,
        )
        return made


async def _each(requests: AsyncIterator[bytes], decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield decode(request)
