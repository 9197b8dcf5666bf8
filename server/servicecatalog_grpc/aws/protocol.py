"""What the rest of the server knows of AWS."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.translation.pairing import Operation


class Reply(NamedTuple):
    """What AWS answered: the members of the operation's output, and AWS's id of the request where it gave one."""

    members: Mapping[str, Any]
    request_id: str | None


# AWS's id of a request: the header of its reply, and the trailing metadata in which callers get it.
REQUEST_ID = "x-amzn-requestid"

Received = TypeVar("Received")


class ServiceCatalog(Protocol):
    """AWS Service Catalog."""

    async def call(
        self,
        operation: Operation,
        members: Mapping[str, Any],
        deadline: Deadline,
        *,
        before_sending: Callable[[], Awaitable[None]],
        receive: Callable[[Reply], Received],
        repeat: bool = True,
    ) -> Received:
        """Carry out the operation by the deadline and return what `receive` makes of AWS's reply.

        `before_sending` is awaited once, right before the first attempt, and not at all if nothing is sent. A reply on
        which `receive` raises GarbledReplyError is as good as none. Repeats go out with the same members, and so with
        the same token, if at all. Raises Failure. A cancelled call lasts until what it has sent is answered.
        """
