"""The one interceptor: puts guards around each handler's part of a call, whatever its kind of streaming."""

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

Around: TypeAlias = Callable[[Context], AbstractAsyncContextManager[None]]
Decode: TypeAlias = Callable[[bytes], Any]

_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Guard(ABC):
    """One concern: what each handler's part of a call runs within."""

    @abstractmethod
    def guard(self, context: Context) -> AbstractAsyncContextManager[None]:
        """Return what the handler's part of a call runs within. Asked for in the call's task."""

    def wrap(self, handler: Handler, _method: str) -> Handler:
        """Return what stands in for the handler of the method: it runs within the guard."""
        return around(handler, self.guard)

    def begin(self, details: Any, *, known: bool) -> None:  # noqa: B027 - most have nothing to note
        """Take note of a call, in its task and before anything is read of its request; `known`: its method is served."""


class Interceptor(grpc.aio.ServerInterceptor):
    """Puts the guards around every handler, the first one outermost.

    gRPC has this one interceptor: each further one would cost a call 2% of what plain boto3 takes for it.
    """

    def __init__(self, *guards: Guard) -> None:
        self._guards = guards
        # gRPC asks anew for each call, and what there is to wrap are the few handlers of the services.
        self._wrapped: dict[Handler, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        """Tell the guards of a call, and wrap its handler."""
        details: Any = handler_call_details
        handler = await continuation(handler_call_details)
        for guard in self._guards:
            guard.begin(details, known=handler is not None)
        if handler is None:
            return None
        wrapped = self._wrapped.get(handler)
        if wrapped is None:
            wrapped = handler
            for guard in reversed(self._guards):
                wrapped = guard.wrap(wrapped, details.method)
            self._wrapped[handler] = wrapped
        return wrapped


def around(handler: Handler, guard: Around, decode: Decode | None = None) -> Handler:
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
