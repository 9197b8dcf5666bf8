"""Lists in maps, enums in AWS's mixed case, and pages that the server gathers, beside AWS's model."""

from typing import Any

import pytest
from botocore.model import ServiceModel
from servicecatalog.v1.record_service_pb2 import DescribeRecordRequest
from servicecatalog_grpc.app import SERVICES
from servicecatalog_grpc.translation.pairing import ContractError, Operation, pair_services
from test_translation_pairing import Model, model

__all__ = ["model"]


def _pair(model: Model) -> tuple[dict[str, Operation], list[str]]:
    return pair_services(SERVICES, ServiceModel(model, "servicecatalog"))


@pytest.mark.parametrize(
    ("shape", "becomes", "field"),
    [
        ("ProductViewFilterValues", {"type": "string"}, "servicecatalog.v1.ProductViewFilterValues"),
        ("ProductViewFilterValues", {"type": "structure", "members": {}}, "ProductViewFilterValues.values"),
        ("ProductViewFilterValue", {"type": "integer"}, "ProductViewFilterValues.values"),
        ("ProductViewFilterBy", {"type": "integer"}, "SearchProductsRequest.FiltersEntry.key"),
        ("ProductViewFilters", {"type": "list", "member": {"shape": "Id"}}, "SearchProductsRequest.filters"),
        (
            "ProductViewAggregationValues",
            {"type": "list", "member": {"shape": "Id"}},
            "servicecatalog.v1.ProductViewAggregationValue",
        ),
        (
            "ProvisionedProductProperties",
            {"type": "map", "key": {"shape": "PropertyKey"}, "value": {"shape": "Tags"}},
            "ProvisionedProductPropertiesEntry.value",
        ),
    ],
)
def test_a_map_that_does_not_fit_stops_the_server(
    shape: str, becomes: dict[str, Any], field: str, model: Model
) -> None:
    model["shapes"][shape] = becomes
    with pytest.raises(ContractError) as raised:
        _pair(model)
    assert field in str(raised.value)


def test_enums_in_mixed_case_lose_and_gain_values_as_others_do(model: Model) -> None:
    model["shapes"]["ProductViewSortBy"]["enum"].append("AverageRating")
    assert _pair(model)[1] == ["ProductViewSortBy=AverageRating"]
    model["shapes"]["ProductViewSortBy"]["enum"].remove("VersionCount")
    with pytest.raises(ContractError, match=r"servicecatalog\.v1\.ProductViewSortBy: .*VERSION_COUNT"):
        _pair(model)


def test_a_member_below_a_map_that_aws_added_is_drift(model: Model) -> None:
    model["shapes"]["ProductViewAggregationValue"]["members"]["Share"] = {"shape": "Id"}
    assert _pair(model)[1] == ["ProductViewAggregationValue.Share"]


@pytest.mark.parametrize(
    ("shape", "member"),
    [
        ("DescribeRecordInput", "PageSize"),
        ("DescribeRecordInput", "PageToken"),
        ("DescribeRecordOutput", "NextPageToken"),
    ],
)
def test_pages_cannot_be_gathered_without_the_members_for_it(shape: str, member: str, model: Model) -> None:
    del model["shapes"][shape]["members"][member]
    with pytest.raises(ContractError, match=rf"DescribeRecord\w+: {shape} has no {member}"):
        _pair(model)


def test_only_the_page_members_of_gathered_operations_are_left_out(model: Model) -> None:
    for shape in ("DescribeRecordInput", "DescribeRecordOutput", "DescribeProductInput"):
        model["shapes"][shape]["members"]["Sort"] = {"shape": "Id"}
    model["shapes"]["DescribeProductInput"]["members"]["PageToken"] = {"shape": "PageToken"}
    operations, drift = _pair(model)
    assert set(drift) == {
        "DescribeRecordInput.Sort",
        "DescribeRecordOutput.Sort",
        "DescribeProductInput.Sort",
        "DescribeProductInput.PageToken",
    }
    assert {operation.name for operation in operations.values() if operation.pages} == {"DescribeRecord"}


def test_pages_are_as_large_as_aws_makes_them(model: Model) -> None:
    def first_page() -> dict[str, Any]:
        pages = _pair(model)[0][DescribeRecordRequest.DESCRIPTOR.full_name].pages
        assert pages is not None
        return pages.members("")

    assert first_page() == {"PageSize": 20}
    model["shapes"]["PageSize"]["max"] = 100
    assert first_page() == {"PageSize": 100}
    del model["shapes"]["PageSize"]["max"]
    assert first_page() == {}
