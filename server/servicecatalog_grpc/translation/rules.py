"""AWS's rules that stand only in its prose: written by hand, each with its source.

Everything that AWS's model states (required, lengths, ranges, patterns, enums) is checked from the model itself and has
no place here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import regex
from google.protobuf.message import Message
from servicecatalog.v1 import catalog_service_pb2, provisioned_product_service_pb2, record_service_pb2
from servicecatalog.v1 import provisioning_service_pb2 as pb

from servicecatalog_grpc.failure import Violation
from servicecatalog_grpc.translation.values import entry_path

# The requests of a rule share fields and no base class, which leaves Any to type them.
Rule = Callable[[Any], Iterator[Violation]]

_LANGUAGES = ("en", "jp", "zh")
_SORT_FIELDS = ("arn", "id", "name", "lastRecordId")
_HISTORY_KEYS = ("product", "provisionedproduct")

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html: a path of printable ASCII, then a name.
_NAME = r"[A-Za-z0-9_+=,.@-]+"
_ARN = r"arn:aws(?:-[a-z]+)*:{service}::[0-9]{{12}}:{resource}"
ROLE_ARN = _ARN.format(service="iam", resource=rf"role/(?:[!-~]+/)?{_NAME}")
_USER = _ARN.format(service="iam", resource=rf"user/(?:[!-~]+/)?{_NAME}")
_ASSUMED_ROLE = _ARN.format(service="sts", resource=rf"assumed-role/{_NAME}/{_NAME}")
_PROPERTY_ARNS = {
    "LAUNCH_ROLE": (regex.compile(ROLE_ARN), "the ARN of an IAM role"),
    "OWNER": (
        regex.compile(rf"{_USER}|{ROLE_ARN}|{_ASSUMED_ROLE}"),
        "the ARN of an IAM user, an IAM role or an STS assumed role",
    ),
}


def broken_rules(request: Message) -> Iterator[Violation]:
    """Yield every violation of a prose rule in the request."""
    for rule in _RULES.get(request.DESCRIPTOR.full_name, ()):
        yield from rule(request)


def _needs(oneof: str) -> Rule:
    """Require one of an id and a name, which AWS's model leaves optional because either will do.

    The pages of the operations say so, or give no other way to name what the operation is about, e.g.
    https://docs.aws.amazon.com/servicecatalog/latest/dg/API_DescribeProvisioningParameters.html
    """

    def rule(request: Message) -> Iterator[Violation]:
        if request.WhichOneof(oneof) is None:
            choices = " or ".join(field.name for field in request.DESCRIPTOR.oneofs_by_name[oneof].fields)
            yield Violation(oneof, f"is required: give {choices}")

    return rule


def _names_are_not_empty(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_ProvisionProduct.html: the model gives these names no least
    # length, and nothing has an empty one.
    for name in ("product_name", "provisioning_artifact_name"):
        if request.HasField(name) and not getattr(request, name):
            yield Violation(name, "must not be empty")


def _language_is_known(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_ProvisionProduct.html, AcceptLanguage
    if request.accept_language and request.accept_language not in _LANGUAGES:
        yield Violation("accept_language", f"must be one of {', '.join(_LANGUAGES)}")


def _parameters_have_keys(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_ProvisioningParameter.html: the model marks nothing as
    # required there, but says that a key has at least one character, and without one no parameter is named.
    for index, parameter in enumerate(request.provisioning_parameters):
        if not parameter.key:
            yield Violation(f"provisioning_parameters[{index}].key", "is required")


def _preferences_agree(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_ProvisioningPreferences.html
    if not request.HasField("provisioning_preferences"):
        return
    preferences, path = request.provisioning_preferences, "provisioning_preferences"
    for kind in ("failure_tolerance", "max_concurrency"):
        count, percentage = f"stack_set_{kind}_count", f"stack_set_{kind}_percentage"
        if preferences.HasField(count) and preferences.HasField(percentage):
            yield Violation(f"{path}.{percentage}", f"must not be given together with {count}")
    if preferences.HasField("stack_set_max_concurrency_count") and not preferences.HasField(
        "stack_set_failure_tolerance_percentage"
    ):
        most = max(preferences.stack_set_failure_tolerance_count, 0) + 1
        if preferences.stack_set_max_concurrency_count > most:
            yield Violation(
                f"{path}.stack_set_max_concurrency_count",
                f"must be at most one more than stack_set_failure_tolerance_count (0 if absent): at most {most}",
            )


def _properties_are_principals(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_UpdateProvisionedProductProperties.html
    for key, value in request.provisioned_product_properties.items():
        if key in _PROPERTY_ARNS:
            pattern, kind = _PROPERTY_ARNS[key]
            if not pattern.fullmatch(value):
                yield Violation(entry_path("provisioned_product_properties", key), f"must be {kind}")


def _access_is_own(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_AccessLevelFilter.html
    if request.access_level_filter.value not in ("", "self"):
        yield Violation("access_level_filter.value", "must be self")


def _history_is_of_a_product(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_ListRecordHistorySearchFilter.html
    if request.search_filter.key and request.search_filter.key not in _HISTORY_KEYS:
        yield Violation("search_filter.key", f"must be one of {', '.join(_HISTORY_KEYS)}")


def _sort_field_is_known(request: Any) -> Iterator[Violation]:
    # https://docs.aws.amazon.com/servicecatalog/latest/dg/API_SearchProvisionedProducts.html, SortBy
    if request.sort_by and request.sort_by not in _SORT_FIELDS:
        yield Violation("sort_by", f"must be one of {', '.join(_SORT_FIELDS)}")


_RULES: Mapping[str, tuple[Rule, ...]] = {
    pb.ProvisionProductRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _needs("product"),
        _needs("provisioning_artifact"),
        _names_are_not_empty,
        _parameters_have_keys,
        _preferences_agree,
    ),
    pb.UpdateProvisionedProductRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _needs("provisioned_product"),
        _names_are_not_empty,
        _parameters_have_keys,
        _preferences_agree,
    ),
    pb.UpdateProvisionedProductPropertiesRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _properties_are_principals,
    ),
    record_service_pb2.DescribeRecordRequest.DESCRIPTOR.full_name: (_language_is_known,),
    record_service_pb2.WatchRecordRequest.DESCRIPTOR.full_name: (_language_is_known,),
    record_service_pb2.ListRecordHistoryRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _access_is_own,
        _history_is_of_a_product,
    ),
    catalog_service_pb2.SearchProductsRequest.DESCRIPTOR.full_name: (_language_is_known,),
    catalog_service_pb2.DescribeProductRequest.DESCRIPTOR.full_name: (_language_is_known, _needs("product")),
    catalog_service_pb2.ListLaunchPathsRequest.DESCRIPTOR.full_name: (_language_is_known,),
    catalog_service_pb2.DescribeProvisioningParametersRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _needs("product"),
        _needs("provisioning_artifact"),
    ),
    provisioned_product_service_pb2.DescribeProvisionedProductRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _needs("provisioned_product"),
    ),
    provisioned_product_service_pb2.SearchProvisionedProductsRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _access_is_own,
        _sort_field_is_known,
    ),
    provisioned_product_service_pb2.GetProvisionedProductOutputsRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _needs("provisioned_product"),
    ),
    provisioned_product_service_pb2.TerminateProvisionedProductRequest.DESCRIPTOR.full_name: (
        _language_is_known,
        _needs("provisioned_product"),
    ),
}
