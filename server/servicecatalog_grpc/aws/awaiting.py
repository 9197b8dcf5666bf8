"""Lets synchronous code wait for the event loop without holding a thread, so that boto3 runs in the loop's own thread.

The code runs in a greenlet, which is left where it has to wait and entered again when there is something to go on with.
SQLAlchemy does the same for its database drivers: https://docs.sqlalchemy.org/en/20/orm/extensions/asyncio.html
"""

from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

Result = TypeVar("Result")


async def run(function: Callable[[], Result], context: Context) -> Result:
    """Run the function in the context, where it may call `wait_for`, and return or raise what it does.

    The context must be nobody else's: a greenlet is in it for as long as it runs.
    """
    running = greenlet(function)
    running.gr_context = context
    awaited: Any = running.switch()
    while not running.dead:
        try:
            result = await awaited
        except BaseException as error:  # noqa: BLE001 - the function's to handle, a cancellation too
            awaited = running.throw(error)
        else:
            awaited = running.switch(result)
    returned: Result = awaited
    return returned


def wait_for(awaitable: Awaitable[Result]) -> Result:
    """Wait, in a function that `run` runs, and return or raise what comes of the awaitable."""
    caller: Any = getcurrent().parent
    result: Result = caller.switch(awaitable)
    return result
