"""Reads the rich status of a failed call, as a client does."""

from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class Details:
    """The details of a failed call: `info`, `violations` by field, `retry_delay` in seconds or None."""

    def __init__(self, error: grpc.RpcError) -> None:
        call: Any = error
        self.code: grpc.StatusCode = call.code()
        self.message: str = call.details()
        status = rpc_status.from_call(call)
        assert status is not None, f"{self.code} without details: {self.message}"
        assert status.code == self.code.value[0]
        assert status.message == self.message
        self.size = status.ByteSize()
        self.info = error_details_pb2.ErrorInfo()
        self.violations: dict[str, str] = {}
        self.retry_delay: float | None = None
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        for detail in status.details:
            if detail.Unpack(bad_request):
                self.violations = {each.field: each.description for each in bad_request.field_violations}
            elif detail.Unpack(retry):
                self.retry_delay = retry.retry_delay.ToMilliseconds() / 1000
            else:
                assert detail.Unpack(self.info), detail.type_url
        self.trailing = dict(call.trailing_metadata())
        self.initial = dict(call.initial_metadata())
