"""Intents to provision: callers that carry them out whatever is lost on the way, and what AWS must have in the end."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from facade import Facade, environment
from grpc_status import rpc_status
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.sandbox.aws import client

INTENTS = 1000
CALLERS = 16
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
Identify = Callable[[int], Identity]


def by_token(intent: int) -> Identity:
    return f"token-{intent}", ()


def by_idempotency_key(intent: int) -> Identity:
    return "", (("idempotency-key", f"order {intent}"),)


def by_request_id(intent: int) -> Identity:
    """One id for every two intents, as where one incoming request makes a service call twice."""
    return "", (("x-request-id", f"{intent // 2:032x}"),)


def by_nothing(_: int) -> Identity:
    """The caller gives nothing. A proxy may repeat its call with an id, and failures tell it the token for its own repeats."""
    return "", ()


def in_turn(*ways: Identify) -> Identify:
    """Return the way that takes these ways in turn."""
    return lambda intent: ways[intent % len(ways)](intent)


@contextmanager
def sandbox() -> Iterator[str]:
    """Yield a sandbox's embedded AWS. Its records take long: stacks would only take time from what this is about."""
    arguments = ("--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--record-seconds", "3600")
    with Facade("sandbox", *arguments, env=environment()) as running:
        yield running.endpoint_url


def carry_out(address: str, identify: Identify, intents: int = INTENTS) -> list[str]:
    """Carry out every intent, repeating as the failures say, and return the record of each.

    Empty for one that its caller had to give up: it gave nothing, and a proxy lost the answer.
    """
    patience = time.monotonic() + PATIENCE_SECONDS
    # No hidden repeats: what is repeated here is what a caller repeats.
    options = (("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 500))
    with grpc.insecure_channel(address, options=options) as channel, ThreadPoolExecutor(CALLERS) as callers:
        stub = ProvisioningServiceStub(channel)

        def provision(intent: int) -> str:
            token, metadata = identify(intent)
            request = request_of(intent)
            request.provision_token = token
            while True:
                try:
                    response = stub.ProvisionProduct(request, timeout=CALL_SECONDS, metadata=metadata)
                except grpc.RpcError as error:
                    if not _may_be_repeated(error) or time.monotonic() > patience:
                        raise
                    if not (token or metadata):
                        request.provision_token = _token_in(error)
                        if not request.provision_token and not _is_of_facade(error):
                            return ""
                    time.sleep(0.02)
                else:
                    return response.record_detail.record_id

        return list(callers.map(provision, range(intents)))


def request_of(intent: int) -> pb.ProvisionProductRequest:
    request = pb.ProvisionProductRequest(
        product_name="sqs-queue",
        provisioning_artifact_name="v1",
        provisioned_product_name=f"intent-{intent}",
    )
    request.provisioning_parameters.add(key="QueueName", value=f"queue-{intent}")
    return request


def assert_exactly_once(endpoint: str, records: list[str]) -> None:
    """See that AWS has one product for each intent, with the record that its caller got, and for one given up at most one."""
    found = products(endpoint)
    assert max(Counter(product["Name"] for product in found).values()) == 1
    by_name = {product["Name"]: product["LastRecordId"] for product in found}
    for intent, record in enumerate(records):
        assert by_name.pop(f"intent-{intent}", "") == record or not record
    assert not by_name


def products(endpoint: str) -> list[Any]:
    """Return all provisioned products that AWS has."""
    search = client("servicecatalog", endpoint).search_provisioned_products
    page = search(PageSize=100)
    found = list(page["ProvisionedProducts"])
    while token := page.get("NextPageToken"):
        page = search(PageSize=100, PageToken=token)
        found += page["ProvisionedProducts"]
    return found


def _may_be_repeated(error: Any) -> bool:
    """Say whether the code allows it, or no façade made the failure: what happened is unknown then."""
    return error.code() in REPEATED or not _is_of_facade(error)


def _is_of_facade(error: Any) -> bool:
    """Say whether the façade made the failure, and not gRPC or a proxy on the way."""
    return rpc_status.from_call(error) is not None


def _token_in(error: Any) -> str:
    """Return the token in force for the call that failed, if its response had begun."""
    return str(dict(error.initial_metadata() or ()).get("idempotency-token", ""))
