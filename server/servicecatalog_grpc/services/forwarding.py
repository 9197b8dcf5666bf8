"""The way of a call: validate, choose the token, to AWS, and back."""

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.message import Message

from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.protocol import REQUEST_ID
from servicecatalog_grpc.caller import current_caller
from servicecatalog_grpc.context import Context
from servicecatalog_grpc.failure import Failure, invalid_request
from servicecatalog_grpc.services.admission import Admission
from servicecatalog_grpc.services.authorizing import Authorization
from servicecatalog_grpc.services.fetching import Fetch
from servicecatalog_grpc.telemetry.call import current_call
from servicecatalog_grpc.translation.pairing import Operation
from servicecatalog_grpc.translation.rules import broken_rules
from servicecatalog_grpc.translation.tokens import broken_keys, choose_token
from servicecatalog_grpc.translation.unknown import unknown_fields

# Initial metadata: the token in force. Sending it begins the response, which neither Envoy nor a gRPC client retries
# from then on.
IDEMPOTENCY_TOKEN = "idempotency-token"  # noqa: S105 - a header's name

# How much of the caller's time is kept back, so that an answer that the deadline passed still gets there with its token:
# the way back, and what gRPC adds when it rounds a deadline up for the wire.
_WAY_BACK_SECONDS = 0.1
_ROUNDING_SHARE = 0.02
_MOST_SHARE = 0.1

Response = TypeVar("Response", bound=Message)


class Forwarder:
    """Takes each request to AWS Service Catalog and returns its answer. Raises Failure."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        fetch: Fetch,
        authorization: Authorization,
        *,
        writes: Admission,
        reads: Admission,
        default_deadline: float,
    ) -> None:
        """Take the operations by the full name of their request, and the deadline, in seconds, of calls without one."""
        self._operations = operations
        self._fetch = fetch
        self._authorization = authorization
        self._writes = writes
        self._reads = reads
        self._default_deadline = default_deadline

    async def __call__(self, request: Message, context: Context, response: type[Response]) -> Response:
        """Forward the request and return the response, which is of the given class."""
        operation = self._operations[request.DESCRIPTOR.full_name]
        deadline = deadline_of(context) or Deadline(self._default_deadline)
        # Before the request is looked at: who may not make the call learns nothing of its rules.
        await self._authorization.check_request(request, deadline)
        sent: dict[str, str] = {}
        try:
            return await self._forward(operation, request, context, deadline, response(), sent)
        except Failure as failure:
            raise failure.with_metadata(aws_operation=operation.name, **sent) from None

    async def _forward(
        self,
        operation: Operation,
        request: Message,
        context: Context,
        deadline: Deadline,
        response: Response,
        sent: dict[str, str],
    ) -> Response:
        metadata = tuple(context.invocation_metadata() or ())

        violations = [
            # First, because what is missing may be what is not known.
            *(unknown_fields(request) if operation.token is not None else ()),
            *operation.request.check(request, ""),
            *broken_rules(request),
            *broken_keys(operation, metadata),
        ]
        if violations:
            current_call().refuse(operation.request, violations)
            raise invalid_request(violations)
        # Only now: what breaks a rule may hold anything, and goes into no log.
        current_call().read(request)

        members = operation.request.to_aws(request)
        token = choose_token(operation, request, metadata, current_caller())
        if operation.token is not None and token is not None:
            members[operation.token.member] = token.value
            current_call().take_token(token)

        async def announce() -> None:
            if token is not None:
                try:
                    await context.send_initial_metadata(((IDEMPOTENCY_TOKEN, token.value),))
                except Exception:
                    if context.done():
                        # The caller has gone and nothing is sent yet: leave it at that, as if it had cancelled in time.
                        raise asyncio.CancelledError from None
                    raise
                sent["idempotency_token"] = token.value

        # Only now: a request that breaks a rule is told so whatever the load.
        admission = self._reads if operation.token is None else self._writes
        async with admission.place(deadline):
            request_id = await self._fetch(operation, members, deadline, response, before_sending=announce)
        current_call().read(response, request_id)
        if request_id:
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
        return response


def deadline_of(context: Context) -> Deadline | None:
    """Return the caller's deadline, less what the way back takes; None if it set none."""
    remaining = context.time_remaining()
    if remaining is None:
        return None
    kept_back = min(remaining * _MOST_SHARE, _WAY_BACK_SECONDS + remaining * _ROUNDING_SHARE)
    return Deadline(remaining - kept_back)
