"""gRPC's context of a call, as types have it."""

from typing import Any, TypeAlias

import grpc.aio

# In quotes: only the type stubs know that it is generic.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
