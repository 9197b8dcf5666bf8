"""Who may do what, over the wire: certificates, a policy, and every RPC."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import grpc
import pytest
from callers import Mesh, arn, asked, aws, policed
from calls import OWNER
from facade import Facade
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servicecatalog.v1 import catalog_service_pb2 as catalog
from servicecatalog.v1 import provisioned_product_service_pb2 as products
from servicecatalog.v1 import provisioning_service_pb2 as provisioning
from servicecatalog.v1 import record_service_pb2 as records
from servicecatalog_grpc.app import SERVICES
from status import Details
from stubs import Stubs
from upstream import Upstream, error

ORDERS = "spiffe://example.org/ns/shop/sa/orders"
SHIPPING = "spiffe://example.org/ns/shop/sa/shipping"
READER = "reader.example.org"
ADMIN = "spiffe://example.org/ns/ops/sa/admin"
NOBODY = "spiffe://example.org/ns/shop/sa/nobody"
STRANGER = "spiffe://example.org/ns/elsewhere/sa/orders"
ANONYMOUS = ""

# The canary must never reach a caller: no call names it.
POLICY = """
callers:
  - identity: spiffe://example.org/ns/shop/sa/orders
    grants:
      - methods: [ProvisionProduct, UpdateProvisionedProduct]
        product_names: [s3-*, canary-product]
        product_ids: [prod-s3]
        provisioned_product_names: [orders-*]
      - methods:
          - UpdateProvisionedProductProperties
          - DescribeProvisionedProduct
          - GetProvisionedProductOutputs
          - TerminateProvisionedProduct
          - DescribeRecord
          - WatchRecord
        provisioned_product_names: [orders-*, canary-*]
      - methods: [DescribeProduct, DescribeProvisioningParameters]
        product_names: [s3-*]
        product_ids: [prod-s3]
      - methods: [ListLaunchPaths, DescribeRecord]
        product_ids: [prod-s3]
  - identity: spiffe://example.org/ns/shop/sa/nobody
  - identity: spiffe://example.org/ns/shop/*
    grants:
      - methods: [ProvisionProduct]
        product_names: [sqs-*-queue]
      - methods: "*"
        provisioned_product_names: ["*"]
  - identity: reader.example.org
    grants: [{methods: [SearchProducts, SearchProvisionedProducts, ListRecordHistory, DescribeRecord, WatchRecord]}]
  - identity: spiffe://example.org/ns/ops/*
    grants: [{methods: ["*"]}]
  - identity: anonymous
    grants: [{methods: [SearchProducts]}]
"""


def provision(product: str, name: str) -> Message:
    field = "product_id" if product.startswith("prod-") else "product_name"
    fields: Any = {field: product, "provisioning_artifact_id": "pa-1", "provisioned_product_name": name}
    return provisioning.ProvisionProductRequest(**fields)


def update(**fields: Any) -> Message:
    return provisioning.UpdateProvisionedProductRequest(**fields)


def properties(identifier: str) -> Message:
    return provisioning.UpdateProvisionedProductPropertiesRequest(
        provisioned_product_id=identifier, provisioned_product_properties={"OWNER": OWNER}
    )


def terminate(**fields: Any) -> Message:
    return products.TerminateProvisionedProductRequest(**fields)


def describe(**fields: Any) -> Message:
    return products.DescribeProvisionedProductRequest(**fields)


def outputs(**fields: Any) -> Message:
    return products.GetProvisionedProductOutputsRequest(**fields)


def parameters(**fields: Any) -> Message:
    return catalog.DescribeProvisioningParametersRequest(provisioning_artifact_id="pa-1", **fields)


# A request of each RPC that names what `orders` may have, as far as the RPC lets it.
EACH: list[Message] = [
    provision("s3-bucket", "orders-1"),
    update(provisioned_product_name="orders-1", product_name="s3-bucket"),
    properties("pp-orders"),
    records.DescribeRecordRequest(id="rec-orders"),
    records.WatchRecordRequest(id="rec-orders"),
    records.ListRecordHistoryRequest(),
    catalog.SearchProductsRequest(),
    catalog.DescribeProductRequest(name="s3-bucket"),
    catalog.ListLaunchPathsRequest(product_id="prod-s3"),
    parameters(product_name="s3-bucket"),
    describe(name="orders-1"),
    products.SearchProvisionedProductsRequest(),
    outputs(provisioned_product_name="orders-1"),
    terminate(provisioned_product_name="orders-1"),
]

LIE = arn("pp-billing").replace("billing-1", "orders-1")

LOOK = ["DescribeProvisionedProduct"]
READ = ["DescribeRecord"]


class World(NamedTuple):
    upstream: Upstream
    facade: Facade
    mesh: Mesh

    def call(self, identity: str, request: Message) -> None:
        """Make the call as the caller of that identity, from whom AWS hears for the first time."""
        self.upstream.behave(aws)
        with self.mesh.channel(self.facade.address, *filter(None, [identity])) as channel:
            answer = getattr(Stubs(channel), method_of(request))(request, timeout=20)
            if isinstance(request, records.WatchRecordRequest):
                assert len(list(answer)) == 1

    def refusal(self, identity: str, request: Message) -> Details:
        """Make the call, and return how it is refused."""
        with pytest.raises(grpc.RpcError) as raised:
            self.call(identity, request)
        return Details(raised.value)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("authorization")
    policy = directory / "policy.yaml"
    policy.write_text(POLICY)
    mesh = Mesh(directory)
    with closing(Upstream()) as upstream, policed(upstream, mesh, policy) as facade:
        yield World(upstream, facade, mesh)


def method_of(request: Message) -> str:
    return request.DESCRIPTOR.name.removesuffix("Request")


def short(value: object) -> str:
    """Name a row of a table."""
    if isinstance(value, Message):
        text = " ".join(str(value).split())
        return f"{method_of(value)}({text})"
    return str(value).rpartition("/")[2] or "anonymous" if isinstance(value, str) else ""


def test_the_table_has_each_rpc() -> None:
    assert [method_of(request) for request in EACH] == [
        method.name for service in SERVICES for method in service.methods
    ]


# Allowed: whoever calls, and what AWS is asked for the call.
ALLOWED: list[tuple[str, Message]] = [
    *((ADMIN, request) for request in EACH),
    *((ORDERS, request) for request in EACH if not method_of(request).startswith(("Search", "List"))),
    (ORDERS, provision("prod-s3", "orders-2")),
    (ORDERS, update(provisioned_product_id="pp-orders", product_id="prod-s3")),
    (ORDERS, update(provisioned_product_name=arn("pp-orders"), product_id="prod-s3")),
    (ORDERS, terminate(provisioned_product_id="pp-orders")),
    (ORDERS, terminate(provisioned_product_name=arn("pp-orders"))),
    (ORDERS, describe(id="pp-orders")),
    (ORDERS, outputs(provisioned_product_id="pp-orders")),
    (ORDERS, catalog.DescribeProductRequest(id="prod-s3")),
    (ORDERS, catalog.ListLaunchPathsRequest(product_id="prod-s3")),
    (ORDERS, parameters(product_id="prod-s3")),
    (SHIPPING, provision("sqs-fifo-queue", "anything")),
    (SHIPPING, provision("anything", "anything")),
    (SHIPPING, terminate(provisioned_product_id="pp-billing")),
    (SHIPPING, records.DescribeRecordRequest(id="rec-billing")),
    (READER, catalog.SearchProductsRequest()),
    (READER, products.SearchProvisionedProductsRequest()),
    (READER, records.ListRecordHistoryRequest()),
    (READER, records.DescribeRecordRequest(id="rec-billing")),
    (READER, records.WatchRecordRequest(id="rec-billing")),
    (ANONYMOUS, catalog.SearchProductsRequest()),
]


@pytest.mark.parametrize(("identity", "request_"), ALLOWED, ids=short)
def test_what_is_granted_is_done(identity: str, request_: Message, world: World) -> None:
    world.call(identity, request_)
    operation = method_of(request_).replace("WatchRecord", "DescribeRecord")
    assert asked(world.upstream)[-1] == operation
    assert set(asked(world.upstream)) <= {operation, *LOOK}


# Denied: whoever calls, what AWS may have to be asked to know that, and how the message says what is not granted.
DENIED: list[tuple[str, Message, list[str], str]] = [
    *((NOBODY, request, [], "") for request in EACH),
    *((STRANGER, request, [], "") for request in EACH),
    *((ANONYMOUS, request, [], "") for request in EACH if method_of(request) != "SearchProducts"),
    (ORDERS, provision("sqs-queue", "orders-1"), [], "on product sqs-queue, provisioned product orders-1"),
    (ORDERS, provision("s3-bucket", "billing-1"), [], "on product s3-bucket, provisioned product billing-1"),
    (ORDERS, provision("prod-sqs", "orders-1"), [], "on product prod-sqs, provisioned product orders-1"),
    (ORDERS, provision("S3-bucket", "orders-1"), [], ""),
    (ORDERS, provision("", "orders-1"), [], "on provisioned product orders-1"),
    (ORDERS, provisioning.ProvisionProductRequest(), [], "may not ProvisionProduct"),
    (ORDERS, update(provisioned_product_name="orders-1"), [], "on provisioned product orders-1"),
    (ORDERS, update(provisioned_product_name="billing-1", product_name="s3-bucket"), [], ""),
    (ORDERS, update(provisioned_product_id="pp-billing", product_name="s3-bucket"), LOOK, ""),
    # What may not be done anyway AWS is not asked about.
    (ORDERS, update(provisioned_product_id="pp-orders", product_name="sqs-queue"), [], ""),
    (ORDERS, update(provisioned_product_name=arn("pp-billing"), product_name="s3-bucket"), LOOK, ""),
    (ORDERS, properties("pp-billing"), LOOK, "on provisioned product pp-billing"),
    (ORDERS, terminate(provisioned_product_name="billing-1"), [], "on provisioned product billing-1"),
    (ORDERS, terminate(provisioned_product_id="pp-billing"), LOOK, "on provisioned product pp-billing"),
    (ORDERS, terminate(provisioned_product_name=arn("pp-billing")), LOOK, ""),
    # An ARN whose name and id are of two products: AWS may go by either.
    (ORDERS, terminate(provisioned_product_name=arn("pp-orders").replace("orders-1", "billing-1")), LOOK, ""),
    (ORDERS, terminate(provisioned_product_name=LIE), LOOK, ""),
    (SHIPPING, terminate(provisioned_product_name=LIE), LOOK, ""),
    (ORDERS, terminate(provisioned_product_name="arn:aws:servicecatalog:x"), [], ""),
    (ORDERS, terminate(provisioned_product_id="orders-/*"), [], ""),
    (ORDERS, terminate(), [], "may not TerminateProvisionedProduct"),
    (ORDERS, describe(name="billing-1"), [], ""),
    (ORDERS, describe(id="pp-billing"), LOOK, ""),
    (ORDERS, outputs(provisioned_product_name="billing-1"), [], ""),
    (ORDERS, outputs(provisioned_product_id="pp-billing"), LOOK, ""),
    (ORDERS, records.DescribeRecordRequest(id="rec-billing"), READ, "on record rec-billing"),
    (ORDERS, records.WatchRecordRequest(id="rec-billing"), READ, "on record rec-billing"),
    (ORDERS, catalog.DescribeProductRequest(name="sqs-queue"), [], "on product sqs-queue"),
    (ORDERS, catalog.DescribeProductRequest(id="prod-sqs"), [], "on product prod-sqs"),
    (ORDERS, catalog.ListLaunchPathsRequest(product_id="prod-sqs"), [], ""),
    (ORDERS, parameters(product_name="sqs-queue"), [], ""),
    (ORDERS, catalog.SearchProductsRequest(), [], "may not SearchProducts"),
    (ORDERS, products.SearchProvisionedProductsRequest(), [], ""),
    (ORDERS, records.ListRecordHistoryRequest(), [], ""),
    # A list names nothing, so no condition on it is met, not even *.
    (SHIPPING, catalog.SearchProductsRequest(), [], ""),
    (SHIPPING, catalog.DescribeProductRequest(name="sqs-queue"), [], ""),
    (READER, provision("s3-bucket", "orders-1"), [], ""),
    (READER, describe(name="orders-1"), [], ""),
]


@pytest.mark.parametrize(("identity", "request_", "looked", "said"), DENIED, ids=short)
def test_what_is_not_granted_is_denied_before_anything_is_done(
    identity: str, request_: Message, looked: list[str], said: str, world: World
) -> None:
    details = world.refusal(identity, request_)
    assert (details.code, details.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
    assert details.info.metadata == {"caller": identity or "anonymous"}
    assert details.message.startswith(f"{identity or 'anonymous'} may not {method_of(request_)}")
    assert details.message.endswith(said)
    assert "idempotency-token" not in details.initial
    # Names that it knows by now it does not ask for again.
    assert asked(world.upstream) in ([], looked)


@pytest.mark.parametrize(("identity", "request_", "looked", "said"), DENIED, ids=short)
def test_a_denial_says_nothing_that_the_caller_has_not_said(
    identity: str, request_: Message, looked: list[str], said: str, world: World
) -> None:
    """Neither the policy nor what AWS told of somebody else's product."""
    details = world.refusal(identity, request_)
    told = f"{details.message} {details.info} {details.trailing}"
    theirs = {"orders-1", "billing-1", "prod-billing", "pp-billing"} - {
        each for each in ("orders-1", "billing-1", "prod-billing", "pp-billing") if each in str(request_)
    }
    assert [text for text in ("canary", "orders-*", "s3-*", "policy", "line", *theirs) if text in told] == []


@pytest.mark.parametrize("request_", EACH, ids=short)
def test_who_may_not_call_learns_nothing_of_the_rules_for_requests(request_: Message, world: World) -> None:
    broken = (
        type(request_)(accept_language="xx") if "accept_language" in request_.DESCRIPTOR.fields_by_name else request_
    )
    assert world.refusal(NOBODY, broken).info.reason == "CALLER_NOT_ALLOWED"


def test_who_may_call_is_told_what_is_wrong_with_a_request(world: World) -> None:
    assert world.refusal(ADMIN, provisioning.ProvisionProductRequest()).info.reason == "INVALID_REQUEST"
    assert asked(world.upstream) == []


def test_what_aws_says_of_a_product_that_it_does_not_have_is_passed_on(world: World) -> None:
    details = world.refusal(ORDERS, terminate(provisioned_product_id="pp-gone"))
    assert (details.code, details.info.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert details.info.metadata["aws_operation"] == "DescribeProvisionedProduct"
    assert asked(world.upstream) == LOOK


def test_where_aws_cannot_be_asked_nothing_is_done(world: World) -> None:
    world.upstream.behave(error("InternalFailure", status=500))
    with (
        world.mesh.channel(world.facade.address, ORDERS) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        Stubs(channel).TerminateProvisionedProduct(terminate(provisioned_product_id="pp-other"))
    assert Details(raised.value).info.reason == "UPSTREAM_UNREACHABLE"
    assert asked(world.upstream) == LOOK


def test_the_name_of_a_provisioned_product_is_asked_once(world: World) -> None:
    """Neither its name nor its id ever changes."""
    request = properties("pp-orders")
    world.call(ORDERS, request)
    world.call(ORDERS, request)
    assert asked(world.upstream) == ["UpdateProvisionedProductProperties"]


def test_health_and_reflection_are_open(world: World) -> None:
    with world.mesh.channel(world.facade.address, NOBODY) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        listed = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=bytes,
            response_deserializer=bytes,
        )(iter([b"\x3a\x01*"]))
        assert b"servicecatalog.v1.ProvisioningService" in next(iter(listed))


def test_names_that_are_too_long_leave_room_for_the_others(world: World) -> None:
    details = world.refusal(ORDERS, provision("p" * 5000, "n" * 5000))
    assert "product ppp" in details.message
    assert "provisioned product nnn" in details.message
    assert len(details.message.encode()) <= 512


def test_a_name_that_is_as_long_as_a_request_may_be_is_soon_denied(world: World) -> None:
    """However many stars the policy has."""
    name = "sqs-" + "-queu" * 150_000
    details = world.refusal(SHIPPING, provisioning.ProvisionProductRequest(product_name=name))
    assert details.info.reason == "CALLER_NOT_ALLOWED"
