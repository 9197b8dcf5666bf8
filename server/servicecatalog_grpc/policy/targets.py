"""What a call is about, as far as a policy can speak of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from google.protobuf.message import Message
from servicecatalog.v1.record_pb2 import RecordDetail


class Facet(StrEnum):
    """What a call can be about, by the keys under which a policy lists what it may be."""

    PRODUCT_NAME = "product_names"
    PRODUCT_ID = "product_ids"
    PROVISIONED_PRODUCT_NAME = "provisioned_product_names"


class _Fields(NamedTuple):
    """The fields by which a request names what it is about."""

    product_id: str = ""
    product_name: str = ""
    provisioned_product_id: str = ""
    provisioned_product_name: str = ""
    record: str = ""


# Every RPC. What is not here, a policy cannot see: a field that names something has to be added when it comes.
_FIELDS: Mapping[str, _Fields] = {
    "ProvisionProduct": _Fields("product_id", "product_name", "", "provisioned_product_name"),
    "UpdateProvisionedProduct": _Fields(
        "product_id", "product_name", "provisioned_product_id", "provisioned_product_name"
    ),
    "UpdateProvisionedProductProperties": _Fields(provisioned_product_id="provisioned_product_id"),
    "DescribeRecord": _Fields(record="id"),
    "WatchRecord": _Fields(record="id"),
    "ListRecordHistory": _Fields(),
    "SearchProducts": _Fields(),
    "DescribeProduct": _Fields("id", "name"),
    "ListLaunchPaths": _Fields("product_id"),
    "DescribeProvisioningParameters": _Fields("product_id", "product_name"),
    "DescribeProvisionedProduct": _Fields("", "", "id", "name"),
    "SearchProvisionedProducts": _Fields(),
    "GetProvisionedProductOutputs": _Fields("", "", "provisioned_product_id", "provisioned_product_name"),
    "TerminateProvisionedProduct": _Fields("", "", "provisioned_product_id", "provisioned_product_name"),
}

METHODS = frozenset(_FIELDS)

# What a record tells of itself: AWS gives it the product's id, and not its name
# (https://docs.aws.amazon.com/servicecatalog/latest/dg/API_RecordDetail.html).
_OF_RECORDS = frozenset({Facet.PRODUCT_ID, Facet.PROVISIONED_PRODUCT_NAME})


@dataclass(frozen=True, kw_only=True)
class Target:
    """A method and what a call of it is about.

    `named` is what is known of that, and `later` what AWS has to tell first: of the provisioned product with the id or ARN
    `provisioned_product`, or of the record, which is what `record` says. `words` is what the request says, for people.
    """

    method: str
    named: Mapping[Facet, str]
    later: frozenset[Facet] = frozenset()
    provisioned_product: str = ""
    record: bool = False
    words: tuple[str, ...] = ()


def target_of(request: Message) -> Target:
    """Return what the call with this request is about."""
    method = request.DESCRIPTOR.name.removesuffix("Request")
    fields = _FIELDS[method]

    def value(field: str) -> str:
        return str(getattr(request, field)) if field else ""

    if fields.record:
        words = _words(record=value(fields.record))
        return Target(method=method, named={}, later=_OF_RECORDS, record=True, words=words)
    given = {
        Facet.PRODUCT_ID: value(fields.product_id),
        Facet.PRODUCT_NAME: value(fields.product_name),
        Facet.PROVISIONED_PRODUCT_NAME: value(fields.provisioned_product_name),
    }
    by_id = value(fields.provisioned_product_id)
    if _is_arn(given[Facet.PROVISIONED_PRODUCT_NAME]):
        by_id = given.pop(Facet.PROVISIONED_PRODUCT_NAME)
    product = given[Facet.PRODUCT_ID] or given[Facet.PRODUCT_NAME]
    provisioned_product = by_id or given.get(Facet.PROVISIONED_PRODUCT_NAME)
    return Target(
        method=method,
        named={facet: name for facet, name in given.items() if name},
        later=frozenset({Facet.PROVISIONED_PRODUCT_NAME} if by_id else ()),
        provisioned_product=by_id,
        words=_words(product=product, provisioned_product=provisioned_product or ""),
    )


def named_by(record: RecordDetail) -> dict[Facet, str]:
    """Return what the record is about."""
    named = {
        Facet.PRODUCT_ID: record.product_id,
        Facet.PROVISIONED_PRODUCT_NAME: record.provisioned_product_name,
    }
    return {facet: name for facet, name in named.items() if name}


def facets_of(method: str) -> frozenset[Facet]:
    """Return what calls of the method can be asked for; for the others no condition on it is ever met."""
    fields = _FIELDS[method]
    if fields.record:
        return _OF_RECORDS
    facets = {
        Facet.PRODUCT_ID: fields.product_id,
        Facet.PRODUCT_NAME: fields.product_name,
        Facet.PROVISIONED_PRODUCT_NAME: fields.provisioned_product_name or fields.provisioned_product_id,
    }
    return frozenset(facet for facet, there in facets.items() if there)


def _words(**names: str) -> tuple[str, ...]:
    return tuple(f"{kind.replace('_', ' ')} {name}" for kind, name in names.items() if name)


def _is_arn(name: str) -> bool:
    """Say whether it is an ARN, which updates and terminations take in the place of a name, and no name looks like.

    A glob for names has nothing to say about one: `a*` would fit them all.
    """
    return ":" in name
