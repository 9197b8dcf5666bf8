"""One intent is one product, whatever is lost on the way: real state behind a proxy that loses a third of the calls."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from facade import Facade, environment
from fault_proxy import FAULTS, FaultProxy, random_faults
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.sandbox.aws import client

INTENTS = 1000
CALLERS = 16
FAULT_SHARE = 0.3
CALL_SECONDS = 10
PATIENCE_SECONDS = 150

REPEATED = {
    grpc.StatusCode.UNKNOWN,  # OUTCOME_UNKNOWN: the same token finds out
    grpc.StatusCode.DEADLINE_EXCEEDED,  # the same
    grpc.StatusCode.UNAVAILABLE,  # nothing happened, or the façade died with the call in its hands
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # nothing happened
}

# What makes the repeats of an intent one: the token in its request, and its metadata.
Identity = tuple[str, tuple[tuple[str, str], ...]]


def by_token(intent: int) -> Identity:
    return f"token-{intent}", ()


def by_idempotency_key(intent: int) -> Identity:
    return "", (("idempotency-key", f"order {intent}"),)


def by_request_id(intent: int) -> Identity:
    """One id for every two intents, as where one incoming request makes a service call twice."""
    return "", (("x-request-id", f"{intent // 2:032x}"),)


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The sandbox's embedded AWS. Its records take long: stacks would only take time from what this is about."""
    arguments = ("--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--record-seconds", "3600")
    with Facade("sandbox", *arguments, env=environment()) as sandbox:
        yield sandbox.endpoint_url


@pytest.mark.parametrize("identify", [by_token, by_idempotency_key, by_request_id])
def test_a_thousand_intents_are_a_thousand_products(endpoint: str, identify: Callable[[int], Identity]) -> None:
    proxy = FaultProxy(endpoint, random_faults(seed=20, share=FAULT_SHARE))
    with Facade("serve", "--listen", "127.0.0.1:0", env=environment(proxy.url)) as facade:
        records = _provision_all(facade.address, identify)
    proxy.close()
    _assert_exactly_once(endpoint, records)
    seen = Counter(proxy.faults)
    assert set(seen) == set(FAULTS), seen
    assert len(proxy.faults) > INTENTS * FAULT_SHARE


def test_a_facade_that_is_killed_in_the_middle_loses_and_doubles_nothing(endpoint: str) -> None:
    proxy = FaultProxy(endpoint, random_faults(seed=21, share=FAULT_SHARE))
    with Facade("serve", "--listen", "127.0.0.1:0", env=environment(proxy.url)) as first:
        address = first.address
        second = Facade("serve", "--listen", address, env=environment(proxy.url))

        def kill_and_restart() -> None:
            time.sleep(1.5)
            first.process.kill()
            first.process.wait()
            second.__enter__()

        killer = threading.Thread(target=kill_and_restart)
        killer.start()
        records = _provision_all(address, by_idempotency_key)
        killer.join()
        second.__exit__(None, None, None)
    proxy.close()
    assert first.process.returncode == -9
    _assert_exactly_once(endpoint, records)


def _provision_all(address: str, identify: Callable[[int], Identity]) -> list[str]:
    """Carry out every intent, repeating as the codes say, and return the record of each."""
    patience = time.monotonic() + PATIENCE_SECONDS
    # No hidden repeats: what is repeated here is what a caller repeats.
    options = (("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 500))
    with grpc.insecure_channel(address, options=options) as channel, ThreadPoolExecutor(CALLERS) as callers:
        stub = ProvisioningServiceStub(channel)

        def provision(intent: int) -> str:
            token, metadata = identify(intent)
            request = pb.ProvisionProductRequest(
                product_name="sqs-queue",
                provisioning_artifact_name="v1",
                provisioned_product_name=f"intent-{intent}",
                provision_token=token,
            )
            request.provisioning_parameters.add(key="QueueName", value=f"queue-{intent}")
            while True:
                try:
                    response = stub.ProvisionProduct(request, timeout=CALL_SECONDS, metadata=metadata)
                except grpc.RpcError as error:
                    if error.code() not in REPEATED or time.monotonic() > patience:
                        raise
                    time.sleep(0.02)
                else:
                    return response.record_detail.record_id

        return list(callers.map(provision, range(INTENTS)))


def _assert_exactly_once(endpoint: str, records: list[str]) -> None:
    assert len(set(records)) == INTENTS
    products = []
    pages = client("servicecatalog", endpoint).search_provisioned_products
    page = pages(PageSize=100)
    products += page["ProvisionedProducts"]
    while token := page.get("NextPageToken"):
        page = pages(PageSize=100, PageToken=token)
        products += page["ProvisionedProducts"]
    assert Counter(product["Name"] for product in products) == Counter(f"intent-{i}" for i in range(INTENTS))
    assert {product["LastRecordId"] for product in products} == set(records)
