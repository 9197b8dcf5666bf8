"""All services of the façade through one object."""

from typing import TYPE_CHECKING, Any

import grpc
from servicecatalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from servicecatalog.v1.provisioned_product_service_pb2_grpc import ProvisionedProductServiceStub
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_service_pb2_grpc import RecordServiceStub


class Stubs:
    """The stubs of all services on one channel, each RPC by its name."""

    def __init__(self, channel: grpc.Channel) -> None:
        for stub in (ProvisioningServiceStub, RecordServiceStub, CatalogServiceStub, ProvisionedProductServiceStub):
            vars(self).update(vars(stub(channel)))

    if TYPE_CHECKING:

        def __getattr__(self, rpc: str) -> Any: ...
