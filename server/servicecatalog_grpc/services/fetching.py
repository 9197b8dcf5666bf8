"""Fetches AWS's whole answer to an operation and puts it into a response."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from google.protobuf.message import Message

from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.protocol import Reply, ServiceCatalog
from servicecatalog_grpc.translation.pairing import Operation
from servicecatalog_grpc.translation.values import GarbledReplyError

# Ten times what there should be: CloudFormation allows 200 outputs, and AWS puts 20 on a page
# (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html).
_MAX_PAGES = 100


async def _nothing() -> None:
    """Do nothing before the first attempt."""


class Fetch:
    """Fetches answers from AWS Service Catalog."""

    def __init__(self, service_catalog: ServiceCatalog) -> None:
        self._service_catalog = service_catalog

    async def __call__(
        self,
        operation: Operation,
        members: Mapping[str, Any],
        deadline: Deadline,
        response: Message,
        *,
        before_sending: Callable[[], Awaitable[None]] = _nothing,
        repeat: bool = True,
    ) -> str | None:
        """Fill the response with AWS's answer, of all its pages if they are gathered, and return the last request's id.

        See ServiceCatalog for `before_sending` and `repeat`. Raises Failure. All but the gathered items comes from the
        first page, which is the oldest: no record is further than its outputs.
        """
        pages = operation.pages
        message, token = response, ""
        tokens: set[str] = set()
        while True:
            page = await self._service_catalog.call(
                operation,
                {**members, **pages.members(token)} if pages else members,
                deadline,
                before_sending=before_sending,
                repeat=repeat,
                receive=partial(_receive, operation, message, tokens),
            )
            if pages and message is not response:
                getattr(response, pages.items).extend(getattr(message, pages.items))
            if not page.next_token:
                return page.request_id
            message, token = operation.response_class(), page.next_token
            tokens.add(token)


class _Page(NamedTuple):
    """AWS's id of the request for a page, and the token of the next page, empty after the last one."""

    request_id: str | None
    next_token: str


def _receive(operation: Operation, message: Any, tokens: Collection[str], reply: Reply) -> _Page:
    """Fill the message from AWS's reply; `tokens` are those of the pages up to this one.

    Raises GarbledReplyError, also for a write whose reply names no record, and for pages without an end.
    """
    message.Clear()
    operation.response.fill(message, reply.members)
    if operation.token is not None and not getattr(message, "record_detail", message).record_id:
        raise GarbledReplyError(operation.name)
    next_token = operation.pages.next_token(reply.members) if operation.pages else ""
    if next_token in tokens or (next_token and len(tokens) == _MAX_PAGES - 1):
        raise GarbledReplyError(operation.name)
    return _Page(reply.request_id, next_token)
