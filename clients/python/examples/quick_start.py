"""Provisions a bucket in the sandbox that `make run` starts."""

import uuid

import servicecatalog
from servicecatalog.v1.provisioning_pb2 import ProvisioningParameter
from servicecatalog.v1.provisioning_service_pb2 import ProvisionProductRequest
from servicecatalog.v1.record_pb2 import RecordStatus

name = f"bucket-{uuid.uuid4().hex[:8]}"
request = ProvisionProductRequest(
    product_name="s3-bucket",
    provisioning_artifact_name="v1",
    provisioned_product_name=name,
    provisioning_parameters=[ProvisioningParameter(key="BucketName", value=name)],
)
with servicecatalog.connect("127.0.0.1:50051", plaintext=True) as client:
    record = client.provisioning.ProvisionProduct(request).record_detail
    ended = client.wait(record.record_id, timeout=600)
print(RecordStatus.Name(ended.record_detail.status))
