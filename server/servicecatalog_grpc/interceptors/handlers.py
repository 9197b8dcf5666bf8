"""Puts something around a handler's part of a call, whatever its kind of streaming."""

import inspect
from collections.abc import AsyncIterator, Callable
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
