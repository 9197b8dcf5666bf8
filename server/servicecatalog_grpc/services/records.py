"""The servicer of RecordService."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from servicecatalog.v1 import record_service_pb2 as pb
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceServicer

from servicecatalog_grpc.context import Context
from servicecatalog_grpc.services.authorizing import Authorization
from servicecatalog_grpc.services.forwarding import Forwarder, deadline_of
from servicecatalog_grpc.services.watching import Watches
from servicecatalog_grpc.telemetry.call import current_call


class RecordService(RecordServiceServicer):
    """Tells how far requests have come, and what came of them."""

    def __init__(self, forward: Forwarder, authorization: Authorization, watches: Watches) -> None:
        self._forward = forward
        self._authorization = authorization
        self._watches = watches

    async def DescribeRecord(self, request: pb.DescribeRecordRequest, context: Context) -> pb.DescribeRecordResponse:
        """Return a record with all its outputs."""
        response = await self._forward(request, context, pb.DescribeRecordResponse)
        self._authorization.check_record(request, response.record_detail)
        return response

    async def WatchRecord(
        self, request: pb.WatchRecordRequest, context: Context
    ) -> AsyncIterator[pb.WatchRecordResponse]:
        """Follow a record to its end."""
        self._authorization.check_caller(request)
        async with aclosing(self._watches(request, deadline_of(context))) as states:
            async for state in states:
                # Each time: the policy may have changed since the watch began.
                self._authorization.check_record(request, state.record_detail)
                current_call().read(state)
                yield state

    async def ListRecordHistory(
        self, request: pb.ListRecordHistoryRequest, context: Context
    ) -> pb.ListRecordHistoryResponse:
        """List records, the latest first."""
        return await self._forward(request, context, pb.ListRecordHistoryResponse)
