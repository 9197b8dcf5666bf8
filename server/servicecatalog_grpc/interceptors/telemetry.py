"""One server span, one measurement and one access line for every call, however it ends.

`opentelemetry-instrumentation-grpc` (0.66b2) would not do: it reports calls that raise or come too late as OK, uses
attribute names that the conventions have given up, and measures nothing. tests/test_telemetry_difference.py shows it.

See https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio
from grpc import StatusCode
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind, Status
from opentelemetry.trace import StatusCode as SpanStatus

from servicecatalog_grpc.caller import ANONYMOUS
from servicecatalog_grpc.context import Context
from servicecatalog_grpc.failure import Reason
from servicecatalog_grpc.telemetry import instruments
from servicecatalog_grpc.telemetry.call import (
    CALLER,
    PROVISIONED_PRODUCT_ID,
    RECORD_ID,
    TOKEN_DIGEST,
    begin_call,
)

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

access = logging.getLogger("servicecatalog_grpc.access")

_tracer = trace.get_tracer("servicecatalog_grpc")

_OTHER = "_OTHER"
_REASON = "servicecatalog.error.reason"

# Where the server, and not its caller, is at fault.
_FAULTS = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)

# What asks every few seconds, and would bury the calls of people and programs.
_CHATTER = ("grpc.health.", "grpc.reflection.")

# A caller's clock ends its call by cancelling it, a little before or after the same deadline here: the time on the way,
# and gRPC's rounding of the timeout that it sends.
_EARLY_SECONDS = 0.02
_EARLY_SHARE = 0.02


class Observation:
    """Observes every call, those included that no servicer ever sees."""

    def __init__(self) -> None:
        self._where: dict[str, str | int] = {}

    def serve_on(self, address: str) -> None:
        """Note the address of the server: HOST:PORT or unix:PATH."""
        host, separator, port = address.rpartition(":")
        if address.startswith("unix:"):
            self._where = {"server.address": address.removeprefix("unix:")}
        elif separator:
            self._where = {"server.address": host.strip("[]"), "server.port": int(port)}

    def begin(self, details: Any, *, known: bool) -> None:
        """Begin to observe a call, in its task and before anything is read of its request; `known`: its method is served."""
        observed = _Observed(details.method, tuple(details.invocation_metadata or ()), self._where, known)
        _observed.set(observed)
        # Each call has a task. Its end is the end of the call, which may come without a servicer: the method is unknown
        # or the request too large.
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(observed.end)

    def within(self, context: Context) -> AbstractContextManager[None]:
        """Return what observes the handler's part of the call."""
        return _observed.get().within(context)


class _Getter(Getter[Metadata]):
    """Reads metadata for the propagators."""

    def get(self, carrier: Metadata, key: str) -> list[str] | None:
        return [value for name, value in carrier if name == key and isinstance(value, str)] or None

    def keys(self, carrier: Metadata) -> list[str]:
        return [name for name, _ in carrier]


_GETTER = _Getter()
_CARRIERS = propagate.get_global_textmap().fields


_observed: "ContextVar[_Observed]" = ContextVar("observed")


class _Observed(AbstractContextManager[None]):
    """One call: what goes around its handler's part, and `end`."""

    def __init__(self, method: str, metadata: Metadata, where: Mapping[str, str | int], known: bool) -> None:  # noqa: FBT001
        self._began = time.monotonic()
        self._call = begin_call()
        self._known = known
        self._method = method.lstrip("/")
        self._user_agent = next((value for name, value in metadata if name == "user-agent"), None)
        self._context: Context | None = None
        self._timeout: float | None = None
        self._gone: float | None = None
        self._raised = False

        # Most calls bring no context, and to find nothing costs the propagators as much as to find something.
        brings_context = any(name in _CARRIERS for name, _ in metadata)
        parent = propagate.extract(metadata, getter=_GETTER) if brings_context else contexts.Context()
        attributes = {"rpc.system.name": "grpc", "rpc.method": self._method if known else _OTHER, **where}
        if not known:
            attributes["rpc.method_original"] = self._method
        self._span = _tracer.start_span(
            self._method if known else "grpc",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        # Never detached: the context ends with the call's task.
        contexts.attach(trace.set_span_in_context(self._span, parent))

    def within(self, context: Context) -> "_Observed":
        """Return what the handler's part of the call is to run within."""
        self._context = context
        self._timeout = context.time_remaining()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, grpc.aio.AbortError):
            return
        # gRPC raises an internal error of its own where an answer finds nobody any more.
        if issubclass(kind, asyncio.CancelledError | GeneratorExit | grpc.aio.InternalError):
            self._gone = self._call.left or time.monotonic()
        else:
            self._raised = True

    def end(self, _: object) -> None:
        """Tell of the call."""
        seconds = time.monotonic() - self._began
        status = self._status()
        call = self._call
        method = self._method if self._known else _OTHER
        ending = {"rpc.response.status_code": status.name}
        if status in _FAULTS:
            ending["error.type"] = status.name
            self._span.set_status(Status(SpanStatus.ERROR))
        peer = unquote(self._context.peer()) if self._context is not None else None
        if self._span.is_recording():
            details = {
                "client.address": _host(peer),
                CALLER: call.caller if call.caller != ANONYMOUS else None,
                "aws.request_id": call.aws_request_id,
                RECORD_ID: call.record_id,
                PROVISIONED_PRODUCT_ID: call.provisioned_product_id,
                TOKEN_DIGEST: call.token_digest,
                instruments.TOKEN_SOURCE: call.token_source,
                _REASON: call.reason,
            }
            # All at once: what is set later costs more than what a span has from its beginning.
            self._span.set_attributes({**ending, **{name: value for name, value in details.items() if value}})
        instruments.call_duration.record(seconds, {"rpc.system.name": "grpc", "rpc.method": method, **ending})
        # Some calls the policy can refuse only when AWS has told what they are about.
        if call.reason and (not call.attempts or call.reason == Reason.CALLER_NOT_ALLOWED.name):
            instruments.refusals.add(1, {"rpc.method": method, _REASON: call.reason})
        self._span.end()
        level = self._level(status)
        if not access.isEnabledFor(level):
            return
        fields = {
            "method": self._method,
            "status": status.name,
            "reason": call.reason,
            "caller": call.caller,
            "peer": peer,
            "user_agent": self._user_agent,
            "duration_ms": round(seconds * 1000, 3),
            "attempts": call.attempts or None,
            "aws_request_id": call.aws_request_id,
            "record_id": call.record_id,
            "provisioned_product_id": call.provisioned_product_id,
            "token_digest": call.token_digest,
            "token_source": call.token_source,
        }
        # Not by `log`, which takes as long to find out where that was.
        words = self._method, status.name
        extra = {"fields": fields}
        access.handle(access.makeRecord(access.name, level, __file__, 0, "%s %s", words, None, extra=extra))

    def _status(self) -> StatusCode:
        """Return the status that the caller got, or would have got if it had waited for it."""
        if not self._known:
            return StatusCode.UNIMPLEMENTED
        if self._context is None:
            # gRPC refuses a request that is too large before anybody sees it.
            return StatusCode.RESOURCE_EXHAUSTED
        if self._gone is not None:
            return StatusCode.DEADLINE_EXCEEDED if self._is_late(self._gone) else StatusCode.CANCELLED
        if self._raised:
            return StatusCode.UNKNOWN
        code: Any = self._context.code()
        return code or StatusCode.OK

    def _is_late(self, moment: float) -> bool:
        if self._timeout is None:
            return False
        return moment - self._began >= self._timeout * (1 - _EARLY_SHARE) - _EARLY_SECONDS

    def _level(self, status: StatusCode) -> int:
        if status == StatusCode.OK and self._method.startswith(_CHATTER):
            return logging.DEBUG
        return logging.WARNING if status in _FAULTS else logging.INFO


def _host(peer: str | None) -> str | None:
    """Return the host of a peer that gRPC names `ipv4:HOST:PORT` or `ipv6:[HOST]:PORT`."""
    kind, _, address = (peer or "").partition(":")
    return address.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else None
