"""The servicer of ProvisioningService."""

from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceServicer

from servicecatalog_grpc.context import Context
from servicecatalog_grpc.services.forwarding import Forwarder


class ProvisioningService(ProvisioningServiceServicer):
    """Creates and changes provisioned products."""

    def __init__(self, forward: Forwarder) -> None:
        self._forward = forward

    async def ProvisionProduct(
        self, request: pb.ProvisionProductRequest, context: Context
    ) -> pb.ProvisionProductResponse:
        """Begin to provision a product."""
        return await self._forward(request, context, pb.ProvisionProductResponse)

    async def UpdateProvisionedProduct(
        self, request: pb.UpdateProvisionedProductRequest, context: Context
    ) -> pb.UpdateProvisionedProductResponse:
        """Begin to update a provisioned product."""
        return await self._forward(request, context, pb.UpdateProvisionedProductResponse)

    async def UpdateProvisionedProductProperties(
        self, request: pb.UpdateProvisionedProductPropertiesRequest, context: Context
    ) -> pb.UpdateProvisionedProductPropertiesResponse:
        """Change the owner or the launch role of a provisioned product."""
        return await self._forward(request, context, pb.UpdateProvisionedProductPropertiesResponse)
