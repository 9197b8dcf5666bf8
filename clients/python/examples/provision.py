"""Provisions a bucket in the sandbox, updates it and gives it another owner.

Run it against `make run`: `.venv/bin/python clients/python/examples/provision.py [HOST:PORT]`
"""

import sys
import time

import grpc
from servicecatalog.v1 import provisioning_pb2, provisioning_service_pb2, provisioning_service_pb2_grpc

SANDBOX = "127.0.0.1:50051"
SECONDS_PER_RECORD = 2.5


def main(address: str) -> None:
    """Go through the three operations and print what each answers."""
    with grpc.insecure_channel(address) as channel:
        stub = provisioning_service_pb2_grpc.ProvisioningServiceStub(channel)

        provisioned = stub.ProvisionProduct(
            provisioning_service_pb2.ProvisionProductRequest(
                product_name="s3-bucket",
                provisioning_artifact_name="v1",
                provisioned_product_name="example",
                provisioning_parameters=[
                    provisioning_pb2.ProvisioningParameter(key="BucketName", value="example-bucket")
                ],
                provision_token="example-1",  # a repeat with it never provisions a second time
            ),
            timeout=10,
        )
        print(provisioned)
        time.sleep(SECONDS_PER_RECORD)

        updated = stub.UpdateProvisionedProduct(
            provisioning_service_pb2.UpdateProvisionedProductRequest(
                provisioned_product_id=provisioned.record_detail.provisioned_product_id,
                provisioning_artifact_name="v2",
            ),
            timeout=10,
        )
        print(updated)
        time.sleep(SECONDS_PER_RECORD)

        changed = stub.UpdateProvisionedProductProperties(
            provisioning_service_pb2.UpdateProvisionedProductPropertiesRequest(
                provisioned_product_id=provisioned.record_detail.provisioned_product_id,
                provisioned_product_properties={"OWNER": "arn:aws:iam::123456789012:role/team"},
            ),
            timeout=10,
        )
        print(changed)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:] or [SANDBOX])
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
