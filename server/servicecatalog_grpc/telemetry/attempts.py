"""One client span and one measurement per attempt of a call to AWS.

Not by `opentelemetry-instrumentation-botocore` (0.66b2). It makes a span per boto3 call, which is one per attempt here,
but it writes AWS's error messages into the span, which may quote a parameter's value; it uses attribute names that the
conventions have given up, knows neither the number of the attempt nor that a deadline ended it, and measures nothing.
What is needed is this file.

See https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/ and .../rpc/rpc-spans/.
"""

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.client import ClientMeta
from botocore.exceptions import ClientError
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from servicecatalog_grpc.failure import Failure, Reason
from servicecatalog_grpc.telemetry import instruments

_tracer = trace.get_tracer("servicecatalog_grpc")

# What stands between here and AWS can answer with anything for a code.
_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")


def where_attributes(meta: ClientMeta, role: str = "") -> dict[str, str | int]:
    """Return the attributes that say where calls go, and in which AWS role if not as the server itself."""
    endpoint = urlsplit(meta.endpoint_url)
    port = endpoint.port or {"http": 80}.get(endpoint.scheme, 443)
    return {
        "cloud.region": meta.region_name,
        "server.address": endpoint.hostname or "",
        "server.port": port,
        **({instruments.ROLE: role} if role else {}),
    }


class ObservedAttempt:
    """An attempt from its beginning to `answered` or `failed`."""

    def __init__(
        self, operation: str, number: int, where: Mapping[str, str | int], service: str = "ServiceCatalog"
    ) -> None:
        """Begin. `number` counts from 1, `where` is what `where_attributes` returned."""
        self._method = f"{service}/{operation}"
        self._number = number
        self._where = where
        self._began = time.time_ns()

    def answered(self, reply: Mapping[str, Any]) -> None:
        """End with what boto3 returned."""
        self._end(reply, None)

    def failed(self, error: Exception, failure: Failure) -> None:
        """End with what boto3 raised and with what it means."""
        reply: Mapping[str, Any] = {}
        code = type(error).__name__
        if isinstance(error, ClientError):
            reply = error.response
            answer = str(reply.get("Error", {}).get("Code"))
            code = answer if _CODE.fullmatch(answer) else "_OTHER"
        elif failure.reason == Reason.DEADLINE_EXCEEDED:
            code = "timeout"  # the error is but what the connection says when it is cut
        if failure.reason == Reason.THROTTLED:
            instruments.throttles.add(1, {"rpc.method": self._method})
        self._end(reply, code)

    def _end(self, reply: Mapping[str, Any], error: str | None) -> None:
        ended = time.time_ns()
        labels: dict[str, str | int] = {"rpc.system.name": "aws-api", "rpc.method": self._method}
        if error is not None:
            labels["error.type"] = error
        attributes = {**labels, **self._where}
        http = reply.get("ResponseMetadata", {})
        for name, key in (("aws.request_id", "RequestId"), ("http.response.status_code", "HTTPStatusCode")):
            if value := http.get(key):
                attributes[name] = value
        if self._number > 1:
            attributes["http.request.resend_count"] = self._number - 1
        # Only now, when everything is known: adding to a span that has begun takes as long as making it. Its parent is
        # the present span, the call's, because this is the call's context.
        span = _tracer.start_span(self._method, kind=SpanKind.CLIENT, attributes=attributes, start_time=self._began)
        if error is not None:
            span.set_status(StatusCode.ERROR)
        instruments.attempt_duration.record((ended - self._began) / 1e9, labels, trace.set_span_in_context(span))
        span.end(ended)
