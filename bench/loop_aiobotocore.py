"""Calls AWS with aiobotocore from tasks. The benchmark runs it in the environment of requirements/bench.txt."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import aiobotocore
import botocore
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from bench import loop


class Loops:
    """An event loop and the clients in it, kept from one load to the next."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._clients: dict[str, Any] = {}
        self.stack = AsyncExitStack()

    def load(self, url: str, callers: int, seconds: float) -> loop.Load:
        """Call for so many seconds from so many tasks, one call after the other in each."""
        return self._runner.run(self._load(url, callers, seconds))

    async def _load(self, url: str, callers: int, seconds: float) -> loop.Load:
        if url not in self._clients:
            # As many connections as tasks; the default is ten.
            client = get_session().create_client(
                "servicecatalog", endpoint_url=url, config=AioConfig(max_pool_connections=16)
            )
            self._clients[url] = await self.stack.enter_async_context(client)
        client = self._clients[url]
        began = time.monotonic()

        async def run() -> int:
            calls = 0
            while time.monotonic() < began + seconds:
                await client.provision_product(**loop.REQUEST)
                calls += 1
            return calls

        calls = sum(await asyncio.gather(*(run() for _ in range(callers))))
        return loop.Load(calls=calls, seconds=time.monotonic() - began)


def main() -> None:
    """Answer until there are no more commands."""
    with asyncio.Runner() as runner:
        loops = Loops(runner)
        loop.answer(f"aiobotocore {aiobotocore.__version__}, botocore {botocore.__version__}", loops.load)
        runner.run(loops.stack.aclose())


if __name__ == "__main__":
    main()
