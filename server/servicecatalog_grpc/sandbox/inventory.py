"""What has been provisioned and what was done to it, and the operations that only look at it."""

import threading
from collections.abc import Mapping
from typing import Any

from servicecatalog_grpc.sandbox.catalog import Request, one_of
from servicecatalog_grpc.sandbox.errors import InvalidParametersException, ResourceNotFoundException
from servicecatalog_grpc.sandbox.paging import page
from servicecatalog_grpc.sandbox.records import CALLER, ProvisionedProduct, Record

_PAGE_SIZE = 100
_SORT_FIELDS = {"arn": "Arn", "id": "Id", "name": "Name", "lastRecordId": "LastRecordId"}
_HISTORY_FIELDS = {"product": "ProductId", "provisionedproduct": "ProvisionedProductId"}


class Inventory:
    """All provisioned products and records, each by its id; `lock` guards them.

    The operations are named as in AWS, take the lock themselves and may be called from any thread.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.lock = threading.Lock()
        self.products: dict[str, ProvisionedProduct] = {}
        self.records: dict[str, Record] = {}

    def find(self, request: Request, id_member: str, name_member: str) -> ProvisionedProduct:
        """Return the provisioned product that a request names; a name may also be an ARN. Needs the lock.

        Raises InvalidParametersException and ResourceNotFoundException.
        """
        member = one_of(request, id_member, name_member, required=True)
        wanted = request[member or ""]
        for product in self.products.values():
            if wanted in ((product.id,) if member == id_member else (product.name, product.arn)):
                return product
        raise ResourceNotFoundException(f"Provisioned product {wanted} not found.")

    def describe_record(self, request: Request) -> dict[str, Any]:
        """Follow API_DescribeRecord."""
        with self.lock:
            record = self.records.get(request["Id"])
            if not record:
                raise ResourceNotFoundException(f"Record {request['Id']} not found.")
            return {"RecordDetail": record.detail(), **page("RecordOutputs", record.outputs, request)}

    def list_record_history(self, request: Request) -> dict[str, Any]:
        """Follow API_ListRecordHistory: the records of former owners stay theirs."""
        own = _own_only(request, "User")
        wanted = request.get("SearchFilter", {})
        with self.lock:
            records = [record for record in reversed(self.records.values()) if record.owner == CALLER or not own]
            details = [record.detail() for record in records]
        if "Key" in wanted:
            if wanted["Key"] not in _HISTORY_FIELDS:
                raise InvalidParametersException(f"SearchFilter has no {wanted['Key']}.")
            field = _HISTORY_FIELDS[wanted["Key"]]
            details = [detail for detail in details if detail[field] == wanted.get("Value")]
        return page("RecordDetails", details, request)

    def describe_provisioned_product(self, request: Request) -> dict[str, Any]:
        """Follow API_DescribeProvisionedProduct."""
        with self.lock:
            product = self.find(request, "Id", "Name")
            return {"ProvisionedProductDetail": product.detail(), "CloudWatchDashboards": []}

    def search_provisioned_products(self, request: Request) -> dict[str, Any]:
        """Follow API_SearchProvisionedProducts; filters are `member:value` or part of any value."""
        own = _own_only(request, "Account")
        with self.lock:
            found = [product.attribute() for product in self.products.values() if product.owner == CALLER or not own]
        for query in request.get("Filters", {}).get("SearchQuery", ()):
            found = [attribute for attribute in found if _matches(attribute, query)]
        if sort_by := request.get("SortBy"):
            if sort_by not in _SORT_FIELDS:
                raise InvalidParametersException(f"SortBy has no {sort_by}.")
            descending = request.get("SortOrder") == "DESCENDING"
            found.sort(key=lambda attribute: attribute[_SORT_FIELDS[sort_by]], reverse=descending)
        return {**page("ProvisionedProducts", found, request, _PAGE_SIZE), "TotalResultsCount": len(found)}

    def get_provisioned_product_outputs(self, request: Request) -> dict[str, Any]:
        """Follow API_GetProvisionedProductOutputs: AWS, too, has them from the last request that succeeded."""
        keys = request.get("OutputKeys")
        with self.lock:
            product = self.find(request, "ProvisionedProductId", "ProvisionedProductName")
            record = self.records.get(product.last_successful_provisioning_record or "")
            if not record:
                raise InvalidParametersException("Last Successful Provisioning Record doesn't exist.")
            outputs = [output for output in record.outputs if not keys or output["OutputKey"] in keys]
        return page("Outputs", outputs, request)


def _own_only(request: Request, default: str) -> bool:
    """Tell whether a request asks for what is the caller's own. Raises InvalidParametersException."""
    wanted = request.get("AccessLevelFilter", {})
    if wanted.get("Value", "self") != "self":
        raise InvalidParametersException("AccessLevelFilter takes the value self only.")
    return bool(wanted.get("Key", default) != "Account")


def _matches(attribute: Mapping[str, Any], query: str) -> bool:
    """Tell whether a provisioned product fits one search term, ignoring case as AWS does."""
    member, _, value = query.rpartition(":")
    values = {key.lower(): str(text).lower() for key, text in attribute.items() if text}
    if member.lower() in values:
        return values[member.lower()] == value.lower()
    return any(query.lower() in text for text in values.values())
