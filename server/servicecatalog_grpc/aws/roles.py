"""AWS Service Catalog as the server itself, or in the caller's AWS role, so that IAM decides and CloudTrail has its name."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from servicecatalog_grpc.aws.assuming import AssumeRole
from servicecatalog_grpc.aws.client import BotoServiceCatalog
from servicecatalog_grpc.aws.credentials import KeySource
from servicecatalog_grpc.aws.deadline import Deadline
from servicecatalog_grpc.aws.failures import shutting_down
from servicecatalog_grpc.aws.protocol import Received, Reply
from servicecatalog_grpc.aws.sessions import RoleCredentials, Sessions
from servicecatalog_grpc.caller import current_caller
from servicecatalog_grpc.translation.pairing import Operation

# The roles that a policy once gave and gives no more must not pile up. Each takes 0.4 MB, beside its open connections.
_MAX_POOLS = 100


class Roles:
    """A ServiceCatalog with a pool of connections for itself, and one for each AWS role of its callers."""

    def __init__(
        self,
        own: BotoServiceCatalog,
        make: Callable[[KeySource, str], BotoServiceCatalog],
        assume_role: AssumeRole,
    ) -> None:
        """Ask through `own` for callers without a role, and for others through what `make` makes of credentials and role."""
        self._own = _Pool(own)
        self._make = make
        self._assume_role = assume_role
        self._sessions = Sessions(assume_role)
        # The least recently used first.
        self._pools: dict[str, _Pool] = {}
        self._making = asyncio.Lock()
        self._stopping = False

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
        """See ServiceCatalog."""
        role = current_caller().role
        pool = await self._pool(role) if role else self._own
        pool.calls += 1
        try:
            return await pool.service_catalog.call(
                operation, members, deadline, before_sending=before_sending, receive=receive, repeat=repeat
            )
        finally:
            pool.calls -= 1

    def seconds_left(self) -> Mapping[str, float]:
        """Return how long the sessions of each role are good for, the least of them. May be called from any thread."""
        return self._sessions.seconds_left()

    def stop(self) -> None:
        """Send nothing more, and end what is still at work as if its answer were lost."""
        self._stopping = True
        self._own.service_catalog.stop()
        for pool in self._pools.values():
            pool.service_catalog.stop()
        self._sessions.stop()
        self._assume_role.stop()

    def close(self) -> None:
        """Stop, and let the connections go."""
        self.stop()
        self._assume_role.close()
        self._own.service_catalog.close()
        for pool in self._pools.values():
            pool.service_catalog.close()

    async def _pool(self, role: str) -> "_Pool":
        if role not in self._pools:
            await self._add(role)
        pool = self._pools[role] = self._pools.pop(role)
        return pool

    async def _add(self, role: str) -> None:
        async with self._making:
            if role in self._pools:
                return
            # In a thread, because it reads files.
            made = await asyncio.to_thread(self._make, RoleCredentials(self._sessions, role), role)
            if self._stopping:
                made.close()
                raise shutting_down()
            if len(self._pools) >= _MAX_POOLS:
                self._drop_idle()
            self._pools[role] = _Pool(made)

    def _drop_idle(self) -> None:
        for role, pool in self._pools.items():
            if not pool.calls:
                del self._pools[role]
                pool.service_catalog.close()
                return


@dataclass
class _Pool:
    """A pool, and how many calls use it."""

    service_catalog: BotoServiceCatalog
    calls: int = 0
