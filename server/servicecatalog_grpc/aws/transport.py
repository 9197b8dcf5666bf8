"""Takes requests to AWS, over connections that stay open, without holding a thread.

It stands where botocore has urllib3, which takes more than half of the CPU of a boto3 call. The exceptions that say how it
failed are botocore's own. Like there, an answer whose body is cut short is an answer: whoever reads the body notices.
"""

import asyncio

from botocore.exceptions import ConnectionClosedError, ConnectTimeoutError

from servicecatalog_grpc.aws.attempt import Attempt
from servicecatalog_grpc.aws.connection import Connection, Response
from servicecatalog_grpc.aws.route import Route

_CONNECT_TIMEOUT_SECONDS = 5


class Transport:
    """The connections to one endpoint: as many as there are requests at a time."""

    def __init__(self, route: Route, max_idle: int) -> None:
        """`max_idle` is how many connections stay open at most while nothing is sent on them."""
        self._route = route
        self._max_idle = max_idle
        # The one that was used last at the end.
        self._idle: list[Connection] = []

    async def send(self, request: bytes, attempt: Attempt) -> Response:
        """Send the whole request and return its answer. Raises botocore's ConnectionError or HTTPClientError.

        A cancellation is heeded until something is sent. After that the attempt goes on, and is marked as left.
        """
        connection = self._take() or await self._open(attempt)
        response = await self._exchange(connection, request, attempt)
        if connection.reusable:
            self._idle.append(connection)
            if len(self._idle) > self._max_idle:
                self._idle.pop(0).abort()
        return response

    def close(self) -> None:
        """Break the connections that are idle."""
        while self._idle:
            self._idle.pop().abort()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            # Of many that AWS has closed at once, the loop may know the first few.
            if connection.reusable and connection.untouched:
                return connection
            connection.abort()
        return None

    async def _open(self, attempt: Attempt) -> Connection:
        # A task, because whatever ends the attempt has to end it.
        opening = asyncio.create_task(self._route.open())
        attempt.ends_by(opening.cancel)
        try:
            await asyncio.wait([opening], timeout=min(_CONNECT_TIMEOUT_SECONDS, attempt.deadline.remaining()))
            if opening.done() and not opening.cancelled():
                return opening.result()
        except asyncio.CancelledError:
            # It may have opened just now, and nobody else knows of it.
            opening.add_done_callback(_abandon)
            raise
        finally:
            opening.cancel()
        raise ConnectTimeoutError(endpoint_url=self._route.endpoint)

    async def _exchange(self, connection: Connection, request: bytes, attempt: Attempt) -> Response:
        attempt.ends_by(connection.abort)
        if not connection.reusable:
            # Ended while it connected.
            raise ConnectionClosedError(endpoint_url=self._route.endpoint)
        attempt.sent = True
        connection.request(request)
        while True:
            try:
                return await connection.answer()
            except asyncio.CancelledError:
                attempt.leave()
            except OSError as error:
                raise ConnectionClosedError(endpoint_url=self._route.endpoint, error=error) from None


def _abandon(opening: "asyncio.Task[Connection]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()
