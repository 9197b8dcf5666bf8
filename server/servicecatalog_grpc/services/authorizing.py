"""Holds every call against the policy: its request before anything else, and what it is about once AWS has told that."""

from collections import OrderedDict
from collections.abc import Callable

from google.protobuf.message import Message
from servicecatalog.v1.provisioned_product_pb2 import ProvisionedProductDetail
from servicecatalog.v1.provisioned_product_service_pb2 import (
    DescribeProvisionedProductRequest,
    DescribeProvisionedProductResponse,
)
from servicecatalog.v1.record_pb2 import RecordDetail

from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.caller import Caller, current_caller, set_caller
from servicecatalog_grpc.failure import Failure, Reason, shorten
from servicecatalog_grpc.policy.rules import Entry, Policy
from servicecatalog_grpc.policy.targets import Facet, Target, named_by, target_of
from servicecatalog_grpc.services.admission import Admission
from servicecatalog_grpc.services.fetching import Fetch
from servicecatalog_grpc.translation.pairing import Operation

# How many provisioned products are kept in mind. An id and a name take some hundred bytes.
_MAX_KNOWN = 10_000

# What a message has room for.
_MAX_IDENTITY_BYTES = 200
_MAX_NAME_BYTES = 100


class Authorization:
    """Refuses what the policy in force does not grant, with CALLER_NOT_ALLOWED. Without a policy everything is granted."""

    def __init__(
        self, policy: Callable[[], Policy | None], fetch: Fetch, describe: Operation, reads: Admission
    ) -> None:
        """Ask AWS for the names of provisioned products with the operation `describe`, which takes a place among `reads`."""
        self._policy = policy
        self._fetch = fetch
        self._describe = describe
        self._reads = reads
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    def check_caller(self, request: Message) -> None:
        """Let the caller in, in the AWS role that the policy gives it, unless nothing that AWS may tell would allow the call.

        That is all that can be said before AWS has answered with a record: see `check_record`. Raises Failure.
        """
        self._entered(request)

    async def check_request(self, request: Message, deadline: Deadline) -> None:
        """Do the same, and ask AWS for the name of the provisioned product where that decides. Raises Failure."""
        entered = self._entered(request)
        if entered is None:
            return
        target, entry = entered
        if target.record or entry.allows(target.method, target.named):
            return
        name = await self._name_of(target.provisioned_product, deadline)
        if not name or not entry.allows(target.method, {**target.named, Facet.PROVISIONED_PRODUCT_NAME: name}):
            raise _not_allowed(current_caller(), target)

    def check_record(self, request: Message, record: RecordDetail) -> None:
        """Let the caller see the record that the request asks for. Raises Failure."""
        entered = self._entered(request)
        if entered is None:
            return
        target, entry = entered
        if not entry.allows(target.method, named_by(record)):
            raise _not_allowed(current_caller(), target)

    def _entered(self, request: Message) -> tuple[Target, Entry] | None:
        """Return what the call is about and what the policy in force says of its caller, whose role that sets.

        None without a policy. Raises Failure.
        """
        policy = self._policy()
        if policy is None:
            return None
        target, caller = target_of(request), current_caller()
        entry = policy.entry_for(caller.identity)
        if entry is None or not entry.allows(target.method, target.named, assumed=target.later):
            raise _not_allowed(caller, target)
        set_caller(caller._replace(role=entry.role))
        return target, entry

    async def _name_of(self, provisioned_product: str, deadline: Deadline) -> str:
        """Return the name of a provisioned product, given by its id or ARN; empty if it cannot be had. Raises Failure.

        None of the three ever changes. An ARN ends in the id, and is believed if AWS has the same one for it.
        """
        # By role: what one may not see, it is not told from another one's answer.
        key = (current_caller().role, provisioned_product)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        _, of_arn, identifier = provisioned_product.rpartition("/")
        detail = await self._detail_of(identifier, deadline)
        name = detail.name if not of_arn or detail.arn == provisioned_product else ""
        if name:
            self._known[key] = name
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return name

    async def _detail_of(self, identifier: str, deadline: Deadline) -> ProvisionedProductDetail:
        request, response = DescribeProvisionedProductRequest(id=identifier), DescribeProvisionedProductResponse()
        if any(self._describe.request.check(request, "")):
            return response.provisioned_product_detail  # it is nobody's id
        try:
            async with self._reads.place(deadline):
                await self._fetch(self._describe, self._describe.request.to_aws(request), deadline, response)
        except Failure as failure:
            raise failure.with_metadata(aws_operation=self._describe.name) from None
        return response.provisioned_product_detail


def _not_allowed(caller: Caller, target: Target) -> Failure:
    """Return the failure, which says what the request says, and nothing of the policy or of what AWS told."""
    message = f"{shorten(caller.name, _MAX_IDENTITY_BYTES)} may not {target.method}"
    if target.words:
        message += f" on {', '.join(shorten(words, _MAX_NAME_BYTES) for words in target.words)}"
    return Failure(Reason.CALLER_NOT_ALLOWED, message, metadata={"caller": caller.name})
