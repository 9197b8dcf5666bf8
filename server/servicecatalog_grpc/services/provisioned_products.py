"""The servicer of ProvisionedProductService."""

from servicecatalog.v1 import provisioned_product_service_pb2 as pb
from servicecatalog.v1.provisioned_product_service_pb2_grpc import ProvisionedProductServiceServicer

from servicecatalog_grpc.context import Context
from servicecatalog_grpc.services.forwarding import Forwarder


class ProvisionedProductService(ProvisionedProductServiceServicer):
    """Finds, describes and terminates provisioned products."""

    def __init__(self, forward: Forwarder) -> None:
        self._forward = forward

    async def DescribeProvisionedProduct(
        self, request: pb.DescribeProvisionedProductRequest, context: Context
    ) -> pb.DescribeProvisionedProductResponse:
        """Return a provisioned product."""
        return await self._forward(request, context, pb.DescribeProvisionedProductResponse)

    async def SearchProvisionedProducts(
        self, request: pb.SearchProvisionedProductsRequest, context: Context
    ) -> pb.SearchProvisionedProductsResponse:
        """Find provisioned products."""
        return await self._forward(request, context, pb.SearchProvisionedProductsResponse)

    async def GetProvisionedProductOutputs(
        self, request: pb.GetProvisionedProductOutputsRequest, context: Context
    ) -> pb.GetProvisionedProductOutputsResponse:
        """Return outputs of a provisioned product."""
        return await self._forward(request, context, pb.GetProvisionedProductOutputsResponse)

    async def TerminateProvisionedProduct(
        self, request: pb.TerminateProvisionedProductRequest, context: Context
    ) -> pb.TerminateProvisionedProductResponse:
        """Begin to delete a provisioned product with its resources."""
        return await self._forward(request, context, pb.TerminateProvisionedProductResponse)
