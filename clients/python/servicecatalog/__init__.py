"""A client of servicecatalog-grpc, a gRPC façade over AWS Service Catalog.

    import servicecatalog

    with servicecatalog.connect("127.0.0.1:50051", plaintext=True) as client:
        record = client.provisioning.ProvisionProduct(request).record_detail
        ended = client.wait(record.record_id, timeout=600)

The messages and stubs of the contract are in `servicecatalog.v1`. `servicecatalog.aio` has the same names for asyncio.
"""

from servicecatalog._client import Client, connect
from servicecatalog._failure import Failure, Violation

__all__ = ["Client", "Failure", "Violation", "connect"]
