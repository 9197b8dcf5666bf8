"""What callers see of the catalogue, and what they need to provision from it."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from moto.servicecatalog.models import Product

from servicecatalog_grpc.sandbox.catalog import Catalog, Request, one_of
from servicecatalog_grpc.sandbox.errors import InvalidParametersException
from servicecatalog_grpc.sandbox.paging import page
from servicecatalog_grpc.sandbox.templates import describe

_PAGE_SIZE = 100

_FILTERS: Mapping[str, Callable[[Product, str], bool]] = {
    "FullTextSearch": lambda product, text: any(
        text.lower() in value.lower() for value in product.to_dict().values() if isinstance(value, str)
    ),
    "Owner": lambda product, owner: product.owner == owner,
    "ProductType": lambda product, type_: product.product_type == type_,
    # No product of the sandbox is a copy of another, so that each is its own source.
    "SourceProductId": lambda product, id_: product.id == id_,
}
_AGGREGATED = {"ProductType": "Type", "Owner": "Owner"}


class Products:
    """The products of a catalogue; every method is named as in AWS and may be called from any thread."""

    def __init__(self, catalog: Catalog) -> None:
        """Show what is in `catalog`."""
        self._catalog = catalog
        self._sort_keys: Mapping[str, Callable[[Product], Any]] = {
            "Title": lambda product: product.name.lower(),
            "VersionCount": lambda product: len(catalog.artifacts(product.id)),
            "CreationDate": lambda product: product.created_time,
        }

    def search_products(self, request: Request) -> dict[str, Any]:
        """Follow API_SearchProducts; the caller has access to whatever has a launch path."""
        found = [product for product in self._catalog.products() if self._catalog.paths(product.id)]
        for name, values in request.get("Filters", {}).items():
            if name not in _FILTERS:
                raise InvalidParametersException(f"Filters has no {name}.")
            found = [product for product in found if any(_FILTERS[name](product, value) for value in values)]
        if sort_by := request.get("SortBy"):
            if sort_by not in self._sort_keys:
                raise InvalidParametersException(f"SortBy has no {sort_by}.")
            found.sort(key=self._sort_keys[sort_by], reverse=request.get("SortOrder") == "DESCENDING")
        summaries = [self._summary(product) for product in found]
        return {
            **page("ProductViewSummaries", summaries, request, _PAGE_SIZE),
            "ProductViewAggregations": {
                name: [
                    {"Value": value, "ApproximateCount": count}
                    for value, count in Counter(summary[member] for summary in summaries).items()
                ]
                for name, member in _AGGREGATED.items()
            },
        }

    def describe_product(self, request: Request) -> dict[str, Any]:
        """Follow API_DescribeProduct."""
        one_of(request, "Id", "Name", required=True)
        product = self._catalog.product(request.get("Id"), request.get("Name"))
        return {
            "ProductViewSummary": self._summary(product),
            "ProvisioningArtifacts": [artifact.detail() for artifact in self._catalog.artifacts(product.id)],
            "Budgets": [],
            "LaunchPaths": [
                {"Id": path_id, "Name": portfolio.display_name}
                for path_id, portfolio in self._catalog.paths(product.id).items()
            ],
        }

    def list_launch_paths(self, request: Request) -> dict[str, Any]:
        """Follow API_ListLaunchPaths."""
        product = self._catalog.product(request["ProductId"])
        summaries = [
            {"Id": path_id, "ConstraintSummaries": [], "Tags": portfolio.tags, "Name": portfolio.display_name}
            for path_id, portfolio in self._catalog.usable_paths(product).items()
        ]
        return page("LaunchPathSummaries", summaries, request)

    def describe_provisioning_parameters(self, request: Request) -> dict[str, Any]:
        """Follow API_DescribeProvisioningParameters; there are neither constraints, tag options nor stack sets."""
        one_of(request, "ProductId", "ProductName", required=True)
        product = self._catalog.product(request.get("ProductId"), request.get("ProductName"))
        artifact = self._catalog.artifact(product, request)
        self._catalog.path(product, request)
        return {**describe(artifact.template), "ConstraintSummaries": [], "TagOptions": []}

    def _summary(self, product: Product) -> dict[str, Any]:
        """Return AWS's `ProductViewSummary`."""
        return {**product.to_dict(), "HasDefaultPath": len(self._catalog.paths(product.id)) == 1}
