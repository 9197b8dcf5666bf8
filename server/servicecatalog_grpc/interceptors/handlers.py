"""Puts something around a handler's part of a call, whatever its kind of streaming."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeAlias

import grpc
import grpc.aio

# In quotes: only the type stubs know that these are generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

Guard: TypeAlias = Callable[[Context], AbstractAsyncContextManager[None]]
Decode: TypeAlias = Callable[[bytes], Any]

_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Guarding(grpc.aio.ServerInterceptor, ABC):
    """An interceptor that does each handler's part of a call within a guard of its own."""

    def __init__(self) -> None:
        # gRPC asks anew for each call, and what there is to wrap are the few handlers of the services.
        self._wrapped: dict[Handler, Handler] = {}

    @abstractmethod
    def guard(self, context: Context) -> AbstractAsyncContextManager[None]:
        """Return what the handler's part of a call runs within."""

    def wrap(self, handler: Handler, _method: str) -> Handler:
        """Return what stands in for the handler of the method: it runs within the guard."""
        return around(handler, self.guard)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        details: Any = handler_call_details
        wrapped = self._wrapped.get(handler)
        if wrapped is None:
            wrapped = self._wrapped[handler] = self.wrap(handler, details.method)
        return wrapped


def around(handler: Handler, guard: Guard, decode: Decode | None = None) -> Handler:
    """Return a handler of the same kind that does its part of each call within the guard.

    With `decode`, requests are decoded there too, and not by gRPC before.
    """
    behavior: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    def decoded(request: Any) -> Any:
        if decode is None:
            return request
        return _each(request, decode) if handler.request_streaming else decode(request)

    async def answer(request: Any, context: Context) -> Any:
        async with guard(context):
            return await behavior(decoded(request), context)

    async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
        async with guard(context), aclosing(behavior(decoded(request), context)) as responses:
            async for response in responses:
                yield response

    make: Any = _MAKERS[handler.request_streaming, handler.response_streaming]
    made: Handler = make(
        # gRPC tells by the kind of function whether it yields its responses or writes them.
        generate if inspect.isasyncgenfunction(behavior) else answer,
        request_deserializer=handler.request_deserializer if decode is None else None,
        response_serializer=handler.response_serializer,
    )
    return made


async def _each(requests: AsyncIterator[bytes], decode: Decode) -> AsyncIterator[Any]:
    async for request in requests:
        yield decode(request)
