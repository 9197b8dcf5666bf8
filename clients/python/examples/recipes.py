"""What services do around their calls: TLS, failures, repeats, asyncio."""

import asyncio
from pathlib import Path

import grpc
import servicecatalog
import servicecatalog.aio
from servicecatalog.v1.catalog_service_pb2 import SearchProductsRequest, SearchProductsResponse
from servicecatalog.v1.error_reason_pb2 import ErrorReason
from servicecatalog.v1.provisioning_service_pb2 import ProvisionProductRequest, ProvisionProductResponse
from servicecatalog.v1.record_service_pb2 import WatchRecordResponse


def search(address: str, ca_file: Path) -> SearchProductsResponse:
    """Find products, over TLS with a CA of one's own."""
    credentials = grpc.ssl_channel_credentials(ca_file.read_bytes())
    with servicecatalog.connect(address, credentials=credentials, default_deadline=10) as client:
        return client.catalog.SearchProducts(SearchProductsRequest(), timeout=3)


def provision(client: servicecatalog.Client, request: ProvisionProductRequest) -> str | None:
    """Provision, and say what a person can do about a failure."""
    try:
        record = client.provisioning.ProvisionProduct(request).record_detail
    except servicecatalog.Failure as failure:
        for violation in failure.violations:
            print(f"{violation.field}: {violation.description}")
        if failure.reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED:
            print("ask for a higher quota:", failure.message)
        if failure.retry_delay:
            print("try again in", failure.retry_delay)
        return None
    return record.record_id


def provision_for_certain(client: servicecatalog.Client, request: ProvisionProductRequest) -> ProvisionProductResponse:
    """Provision, and where nobody knows what has happened, ask once more."""
    unknown = {
        ErrorReason.ERROR_REASON_UNSPECIFIED,
        ErrorReason.ERROR_REASON_OUTCOME_UNKNOWN,
        ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
    }
    try:
        return client.provisioning.ProvisionProduct(request)
    except servicecatalog.Failure as failure:
        if failure.reason not in unknown or failure.token is None:
            raise
        request.provision_token = failure.token
        return client.provisioning.ProvisionProduct(request)


async def wait_for_all(address: str, record_ids: list[str]) -> list[WatchRecordResponse]:
    """Wait for many records at a time."""
    async with servicecatalog.aio.connect(address, plaintext=True) as client:
        return await asyncio.gather(*(client.wait(each, timeout=600) for each in record_ids))
