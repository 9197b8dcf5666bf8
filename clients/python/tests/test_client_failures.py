"""A failed call as the caller gets it, and a good one, which is gRPC's own."""

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
import servicecatalog
import servicecatalog.aio
from both_clients import BOTH, AnyClient
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from servicecatalog import Failure, Violation
from servicecatalog.v1.error_reason_pb2 import ErrorReason
from servicecatalog.v1.provisioning_service_pb2 import ProvisionProductRequest, ProvisionProductResponse
from servicecatalog.v1.record_service_pb2 import DescribeRecordRequest, WatchRecordRequest, WatchRecordResponse
from stand_in import StandIn, bad_request, fail, fail_raw, give, hold, info, retry_in, states

PROVISION = "ProvisioningService/ProvisionProduct"
DESCRIBE = "RecordService/DescribeRecord"
UNKNOWN = grpc.StatusCode.UNKNOWN
TOKEN = "idempotency-token"


@pytest.fixture
def facade() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture(params=BOTH)
def client(request: pytest.FixtureRequest, facade: StandIn) -> Iterator[AnyClient]:
    with BOTH[request.param](facade.address, plaintext=True) as client:
        yield client


def failed(client: AnyClient, request: Any = None, **options: Any) -> Failure:
    """Make a call that fails, a write unless a request says otherwise."""
    request = request or ProvisionProductRequest()
    with pytest.raises(Failure) as raised:
        client.call(PROVISION if isinstance(request, ProvisionProductRequest) else DESCRIBE, request, **options)
    return raised.value


def test_all_that_the_facade_says_is_there(client: AnyClient, facade: StandIn) -> None:
    facade.answer(
        fail(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            info("THROTTLED", aws_operation="ProvisionProduct", idempotency_token="order-17"),
            retry_in(1.5),
            message="Rate exceeded",
        )
    )
    failure = failed(client)
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason == ErrorReason.ERROR_REASON_THROTTLED
    assert failure.reason_name == "THROTTLED"
    assert failure.message == failure.details() == "Rate exceeded"
    assert failure.retry_delay == timedelta(seconds=1.5)
    assert failure.violations == ()
    assert failure.token == "order-17"
    assert failure.metadata == {"aws_operation": "ProvisionProduct", "idempotency_token": "order-17"}
    assert str(failure) == "RESOURCE_EXHAUSTED (THROTTLED): Rate exceeded"


def test_violations_are_values(client: AnyClient, facade: StandIn) -> None:
    facade.answer(
        fail(
            grpc.StatusCode.INVALID_ARGUMENT,
            info("INVALID_REQUEST"),
            bad_request([("a[1].b", "is too long"), ("c", "d")]),
        )
    )
    failure = failed(client)
    assert failure.violations == (Violation("a[1].b", "is too long"), Violation("c", "d"))
    assert failure.violations[0].field == "a[1].b"
    assert failure.violations[0].description == "is too long"


def test_a_failure_without_details_has_no_reason(client: AnyClient, facade: StandIn) -> None:
    facade.answer(fail(UNKNOWN, message="a proxy's"))
    failure = failed(client, DescribeRecordRequest())
    assert failure.reason == ErrorReason.ERROR_REASON_UNSPECIFIED
    assert (failure.reason_name, failure.violations, failure.retry_delay, failure.token) == (None, (), None, None)
    assert failure.metadata == {}
    assert str(failure) == "UNKNOWN: a proxy's"


def test_a_reason_that_is_newer_than_the_package_keeps_its_name(client: AnyClient, facade: StandIn) -> None:
    facade.answer(fail(UNKNOWN, info("NEWER")))
    failure = failed(client)
    assert failure.reason == ErrorReason.ERROR_REASON_UNSPECIFIED
    assert failure.reason_name == "NEWER"


def test_the_reasons_of_others_are_not_ours(client: AnyClient, facade: StandIn) -> None:
    facade.answer(fail(UNKNOWN, info("THROTTLED", domain="example.com", idempotency_token="theirs"), retry_in(1)))
    failure = failed(client, DescribeRecordRequest())
    assert failure.reason_name is None
    assert failure.metadata == {}
    assert failure.token is None
    assert failure.retry_delay == timedelta(seconds=1)


MALFORMED = {
    "no protobuf": b"\xff\xff\xff",
    "nothing": b"",
    "a detail of no type": status_pb2.Status(details=[{"value": b"x"}]).SerializeToString(),
    "a broken detail": status_pb2.Status(
        details=[{"type_url": "type.googleapis.com/google.rpc.ErrorInfo", "value": b"\xff"}]
    ).SerializeToString(),
    "a broken delay": status_pb2.Status(
        details=[
            {
                "type_url": "type.googleapis.com/google.rpc.RetryInfo",
                "value": error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2**62)).SerializeToString(),
            }
        ]
    ).SerializeToString(),
    "no delay": status_pb2.Status(
        details=[{"type_url": "type.googleapis.com/google.rpc.RetryInfo", "value": b""}]
    ).SerializeToString(),
}


@pytest.mark.parametrize("status", MALFORMED.values(), ids=MALFORMED)
def test_malformed_details_are_none(client: AnyClient, facade: StandIn, status: bytes) -> None:
    facade.answer(fail_raw(grpc.StatusCode.INTERNAL, status))
    failure = failed(client, DescribeRecordRequest())
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert (failure.reason_name, failure.violations, failure.retry_delay) == (None, (), None)


def test_the_token_is_the_one_in_force(client: AnyClient, facade: StandIn) -> None:
    facade.answer(
        fail(UNKNOWN, info("OUTCOME_UNKNOWN", idempotency_token="of the info"), initial_metadata=((TOKEN, "begun"),))
    )
    assert failed(client).token == "of the info"
    facade.answer(fail(UNKNOWN, info("OUTCOME_UNKNOWN"), initial_metadata=((TOKEN, "begun"),)))
    assert failed(client).token == "begun"
    facade.answer(fail(UNKNOWN))
    assert failed(client, ProvisionProductRequest(provision_token="own")).token == "own"
    facade.received.clear()
    assert failed(client).token == facade.received[0].request.provision_token
    assert failed(client, metadata=(("idempotency-key", "k"),)).token is None


def test_a_token_makes_a_repeat_the_same_intent(client: AnyClient, facade: StandIn) -> None:
    facade.answer(fail(UNKNOWN), give(ProvisionProductResponse()))
    request = ProvisionProductRequest(product_name="p")
    request.provision_token = failed(client, request).token or ""
    client.call(PROVISION, request)
    first, second = facade.received
    assert first.request == second.request


def test_it_is_an_error_of_grpc(client: AnyClient, facade: StandIn) -> None:
    facade.answer(fail(UNKNOWN, info("OUTCOME_UNKNOWN"), initial_metadata=((TOKEN, "t"),)))
    failure = failed(client)
    assert isinstance(failure, grpc.RpcError)
    assert isinstance(failure, grpc.aio.AioRpcError)
    assert dict(failure.initial_metadata())[TOKEN] == "t"
    status = rpc_status.from_call(failure)  # type: ignore[arg-type] # of what a call has, it needs only what a failure has
    assert status is not None
    assert status.code == UNKNOWN.value[0]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda failure: pickle.loads(pickle.dumps(failure))])
def test_it_travels(client: AnyClient, facade: StandIn, again: Any) -> None:
    facade.answer(fail(UNKNOWN, info("OUTCOME_UNKNOWN"), bad_request([("a", "b")]), retry_in(1)))
    failure = failed(client)
    copied = again(failure)
    for name in ("reason", "reason_name", "message", "violations", "retry_delay", "token", "metadata"):
        assert getattr(copied, name) == getattr(failure, name)
    assert str(copied) == str(failure)


def test_a_stream_fails_with_it_too(client: AnyClient, facade: StandIn) -> None:
    facade.answer(states(WatchRecordResponse(), then=fail(grpc.StatusCode.NOT_FOUND, info("RESOURCE_NOT_FOUND"))))
    with pytest.raises(Failure) as raised:
        client.watch(WatchRecordRequest())
    assert raised.value.reason == ErrorReason.ERROR_REASON_RESOURCE_NOT_FOUND


def test_a_closed_client_is_no_failure_of_a_call(facade: StandIn) -> None:
    client = servicecatalog.connect(facade.address, plaintext=True)
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.provisioning.ProvisionProduct(ProvisionProductRequest())
    with pytest.raises(ValueError, match="closed"):
        client.wait("rec-1")


def test_neither_is_a_closed_client_of_asyncio(facade: StandIn) -> None:
    async def calls() -> None:
        client = servicecatalog.aio.connect(facade.address, plaintext=True)
        await client.close()
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            await client.provisioning.ProvisionProduct(ProvisionProductRequest())
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            await client.wait("rec-1")

    asyncio.run(calls())


def test_with_call_gives_the_call(facade: StandIn) -> None:
    facade.answer(give(ProvisionProductResponse(), (TOKEN, "t")))
    with servicecatalog.connect(facade.address, plaintext=True) as client:
        response, call = client.provisioning.ProvisionProduct.with_call(ProvisionProductRequest())
        assert response == ProvisionProductResponse()
        assert isinstance(call, grpc.Call)
        assert dict(call.initial_metadata())[TOKEN] == "t"
        assert dict(call.trailing_metadata())["x-amzn-requestid"] == "request-1"
        assert call.code() is grpc.StatusCode.OK
        facade.answer(fail(UNKNOWN, info("OUTCOME_UNKNOWN")))
        with pytest.raises(Failure, match="OUTCOME_UNKNOWN"):
            client.provisioning.ProvisionProduct.with_call(ProvisionProductRequest())


def test_a_future_fails_with_it(facade: StandIn) -> None:
    facade.answer(fail(UNKNOWN, info("OUTCOME_UNKNOWN")))
    with servicecatalog.connect(facade.address, plaintext=True) as client:
        done: list[Any] = []
        future = client.provisioning.ProvisionProduct.future(ProvisionProductRequest())
        future.add_done_callback(done.append)
        with pytest.raises(Failure, match="OUTCOME_UNKNOWN"):
            future.result(timeout=5)
        failure = future.exception()
        assert isinstance(failure, Failure)
        assert failure.token == facade.received[0].request.provision_token
        assert isinstance(future, grpc.Future)
        assert future.done()
        assert done == [future]


def test_a_good_future_and_a_cancelled_one_are_grpcs(facade: StandIn) -> None:
    facade.answer(give(ProvisionProductResponse(), (TOKEN, "t")))
    with servicecatalog.connect(facade.address, plaintext=True) as client:
        future: Any = client.provisioning.ProvisionProduct.future(ProvisionProductRequest())
        assert future.result(5) == ProvisionProductResponse()
        assert future.exception() is None
        assert dict(future.initial_metadata())[TOKEN] == "t"
        facade.answer(hold(threading.Event()))
        future = client.provisioning.ProvisionProduct.future(ProvisionProductRequest())
        future.cancel()
        assert future.cancelled()
        with pytest.raises(grpc.FutureCancelledError):
            future.result()


def test_a_call_of_asyncio_stays_one(facade: StandIn) -> None:
    async def calls() -> None:
        async with servicecatalog.aio.connect(facade.address, plaintext=True) as client:
            facade.answer(give(ProvisionProductResponse(), (TOKEN, "t")))
            call = client.provisioning.ProvisionProduct(ProvisionProductRequest())
            assert (await call.initial_metadata())[TOKEN] == "t"
            assert await call == ProvisionProductResponse()
            assert (await call.trailing_metadata())["x-amzn-requestid"] == "request-1"
            assert await call.code() is grpc.StatusCode.OK
            facade.answer(fail(UNKNOWN, info("OUTCOME_UNKNOWN")))
            call = client.provisioning.ProvisionProduct(ProvisionProductRequest())
            assert await call.code() is UNKNOWN
            for _ in range(2):
                with pytest.raises(Failure, match="OUTCOME_UNKNOWN"):
                    await call
            facade.answer(states(WatchRecordResponse()))
            stream = client.records.WatchRecord(WatchRecordRequest())
            assert await stream.read() == WatchRecordResponse()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK

    asyncio.run(calls())


def test_a_call_of_asyncio_that_nobody_awaits_is_cancelled(facade: StandIn) -> None:
    async def calls() -> None:
        async with servicecatalog.aio.connect(facade.address, plaintext=True) as client:
            facade.answer(fail(UNKNOWN))
            client.provisioning.ProvisionProduct(ProvisionProductRequest())
            call = client.provisioning.ProvisionProduct(ProvisionProductRequest())
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(calls())
