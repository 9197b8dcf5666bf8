"""The servicer of CatalogService."""

from servicecatalog.v1 import catalog_service_pb2 as pb
from servicecatalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer

from servicecatalog_grpc.context import Context
from servicecatalog_grpc.services.forwarding import Forwarder


class CatalogService(CatalogServiceServicer):
    """Finds what can be provisioned, and what a request to provision it needs."""

    def __init__(self, forward: Forwarder) -> None:
        self._forward = forward

    async def SearchProducts(self, request: pb.SearchProductsRequest, context: Context) -> pb.SearchProductsResponse:
        """Find products."""
        return await self._forward(request, context, pb.SearchProductsResponse)

    async def DescribeProduct(self, request: pb.DescribeProductRequest, context: Context) -> pb.DescribeProductResponse:
        """Return a product with its versions and launch paths."""
        return await self._forward(request, context, pb.DescribeProductResponse)

    async def ListLaunchPaths(self, request: pb.ListLaunchPathsRequest, context: Context) -> pb.ListLaunchPathsResponse:
        """List the launch paths of a product."""
        return await self._forward(request, context, pb.ListLaunchPathsResponse)

    async def DescribeProvisioningParameters(
        self, request: pb.DescribeProvisioningParametersRequest, context: Context
    ) -> pb.DescribeProvisioningParametersResponse:
        """Tell what a request to provision a version needs."""
        return await self._forward(request, context, pb.DescribeProvisioningParametersResponse)
