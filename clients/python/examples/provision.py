"""Provisions a bucket in the sandbox, updates it and terminates it, and waits for the end of each.

Run it against `make run`: `.venv/bin/python clients/python/examples/provision.py [HOST:PORT]`
"""

import sys
import uuid

import servicecatalog
from servicecatalog.v1.provisioned_product_service_pb2 import TerminateProvisionedProductRequest
from servicecatalog.v1.provisioning_pb2 import ProvisioningParameter
from servicecatalog.v1.provisioning_service_pb2 import ProvisionProductRequest, UpdateProvisionedProductRequest
from servicecatalog.v1.record_pb2 import RecordDetail, RecordStatus

SANDBOX = "127.0.0.1:50051"


def main(address: str) -> None:
    """Go through the life of a provisioned product."""
    name = f"example-{uuid.uuid4().hex[:8]}"
    with servicecatalog.connect(address, plaintext=True) as client:
        finish(client, provision(client, name))
        finish(client, update(client, name))
        finish(client, terminate(client, name))


def provision(client: servicecatalog.Client, name: str) -> RecordDetail:
    """Begin to provision a bucket."""
    response = client.provisioning.ProvisionProduct(
        ProvisionProductRequest(
            product_name="s3-bucket",
            provisioning_artifact_name="v1",
            provisioned_product_name=name,
            provisioning_parameters=[ProvisioningParameter(key="BucketName", value=name)],
        )
    )
    return response.record_detail


def update(client: servicecatalog.Client, name: str) -> RecordDetail:
    """Begin to bring it to the next version of the product."""
    response = client.provisioning.UpdateProvisionedProduct(
        UpdateProvisionedProductRequest(provisioned_product_name=name, provisioning_artifact_name="v2")
    )
    return response.record_detail


def terminate(client: servicecatalog.Client, name: str) -> RecordDetail:
    """Begin to delete it."""
    response = client.provisioned_products.TerminateProvisionedProduct(
        TerminateProvisionedProductRequest(provisioned_product_name=name)
    )
    return response.record_detail


def finish(client: servicecatalog.Client, record: RecordDetail) -> None:
    """Wait until the record has ended, and print how."""
    ended = client.wait(record.record_id, timeout=600)
    detail = ended.record_detail
    print(f"{detail.record_type} {detail.provisioned_product_name}: {RecordStatus.Name(detail.status)}")
    for output in ended.record_outputs:
        print(f"  {output.output_key} = {output.output_value}")
    if detail.status == RecordStatus.RECORD_STATUS_FAILED:
        sys.exit("; ".join(f"{error.code}: {error.description}" for error in detail.record_errors))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:] or [SANDBOX])
    except servicecatalog.Failure as failure:
        sys.exit(str(failure))
