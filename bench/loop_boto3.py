"""Calls AWS with plain boto3: in a loop, or from threads. The benchmark runs it and says by lines of JSON what to do."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import boto3
import botocore
from botocore.config import Config
from mypy_boto3_servicecatalog import ServiceCatalogClient

from bench import loop

_EXECUTOR = ThreadPoolExecutor(64)


@cache
def _client(url: str, callers: int) -> ServiceCatalogClient:
    # All defaults, but that more than ten threads keep their connections: the default would close and open one a call.
    config = Config(max_pool_connections=callers) if callers > 1 else Config()
    return boto3.client("servicecatalog", endpoint_url=url, config=config)


def load(url: str, callers: int, seconds: float, rate: float = 0.0) -> loop.Load:
    """Call for so many seconds from so many threads: one call after the other, or so many a second together."""
    client = _client(url, callers)
    began = time.monotonic()

    def run(caller: int) -> loop.Load:
        result = loop.Load()
        if rate:
            for moment in loop.arrivals(rate, seconds, callers, caller):
                time.sleep(max(0.0, began + moment - time.monotonic()))
                result.milliseconds.append(loop.timed(lambda: client.provision_product(**loop.REQUEST)))
                result.calls += 1
        else:
            while time.monotonic() < began + seconds:
                client.provision_product(**loop.REQUEST)
                result.calls += 1
        return result

    # One caller is this thread, as in a script.
    results = [run(0)] if callers == 1 else list(_EXECUTOR.map(run, range(callers)))
    return loop.Load(
        calls=sum(each.calls for each in results),
        seconds=time.monotonic() - began,
        milliseconds=[milliseconds for each in results for milliseconds in each.milliseconds],
    )


if __name__ == "__main__":
    loop.answer(f"boto3 {boto3.__version__}, botocore {botocore.__version__}", load)
