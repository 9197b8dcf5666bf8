"""Older and newer contracts get along: an older client with this server, and an older server with this client.

The older contract is this one without some of its fields, from stubs of its own, in a process of its own.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import properties, provision, refusal_of, update
from facade import Facade, environment
from google.protobuf.message import Message
from servicecatalog.v1 import (
    catalog_service_pb2,
    provisioned_product_service_pb2,
    provisioning_pb2,
    provisioning_service_pb2,
    record_pb2,
    record_service_pb2,
)
from servicecatalog_grpc.failure import Violation
from servicecatalog_grpc.translation.unknown import unknown_fields
from stubs import Stubs
from upstream import Upstream, reply

PROTO = Path(__file__).parents[1] / "proto"

# What the older contract lacks, by file: lines of it.
REMOVED = {
    "record.proto": [
        "string launch_role_arn = 14;",
        "RECORD_STATUS_IN_PROGRESS_IN_ERROR = 3;",
    ],
    "provisioning.proto": [
        "repeated string stack_set_regions = 2;",
        "optional bool use_previous_value = 3;",
    ],
    "provisioning_service.proto": [
        "repeated string notification_arns = 12;",
    ],
    "provisioned_product_service.proto": [
        "bool retain_physical_resources = 6;",
    ],
    "catalog_service.proto": [
        "optional int32 page_size = 3;",
    ],
    "record_service.proto": [
        "string value = 2;",
    ],
}

ANSWER = {
    "RecordDetail": {
        "RecordId": "rec-1",
        "Status": "IN_PROGRESS_IN_ERROR",
        "LaunchRoleArn": "arn:aws:iam::123456789012:role/launch",
        "RecordTags": [{"Key": "team", "Value": "blue"}],
    }
}

OLDER = "is not known to this server, which is older than its caller"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with stubs of an older contract."""
    directory = tmp_path_factory.mktemp("older")
    proto, stubs = directory / "proto", directory / "stubs"
    shutil.copytree(PROTO, proto)
    for name, lines in REMOVED.items():
        path = proto / "servicecatalog" / "v1" / name
        text = path.read_text("utf-8")
        for line in lines:
            assert f"  {line}\n" in text
            text = text.replace(f"  {line}\n", "")
        path.write_text(text, "utf-8")
    stubs.mkdir()
    files = [str(path.relative_to(proto)) for path in proto.rglob("*.proto")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
    subprocess.run([*command, *files], cwd=proto, check=True, timeout=60)
    for package in (stubs / "servicecatalog", stubs / "servicecatalog" / "v1"):
        (package / "__init__.py").touch()
    return stubs


# An older client and this server.

CLIENT = """
import json, sys
import grpc
from servicecatalog.v1 import provisioning_service_pb2 as pb, record_pb2
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub

assert not hasattr(record_pb2.RecordDetail(), "launch_role_arn")
assert "notification_arns" not in pb.ProvisionProductRequest.DESCRIPTOR.fields_by_name
with grpc.insecure_channel(sys.argv[1]) as channel:
    response = ProvisioningServiceStub(channel).ProvisionProduct(
        pb.ProvisionProductRequest(
            product_id="prod-1",
            provisioning_artifact_id="pa-1",
            provisioned_product_name="mine",
            provision_token="order-17",
        ),
        timeout=10,
    )
detail = response.record_detail
known = record_pb2.RecordStatus.values()
tags = [(tag.key, tag.value) for tag in detail.record_tags]
print(json.dumps([detail.record_id, detail.status, detail.status in known, tags]))
# What it does not know goes through it unharmed.
sys.stdout.write(response.SerializeToString().hex())
"""


def test_an_older_client_works_with_what_it_knows(older: Path, facade: Facade, upstream: Upstream) -> None:
    upstream.behave(reply(body=ANSWER))
    variables = environment(PYTHONPATH=str(older))
    command = [sys.executable, "-c", CLIENT, facade.address]
    run = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60)
    understood, passed_on = run.stdout.splitlines()
    # An enum's value that it does not know is the number that it is.
    in_error = record_pb2.RecordStatus.RECORD_STATUS_IN_PROGRESS_IN_ERROR
    assert json.loads(understood) == ["rec-1", in_error, False, [["team", "blue"]]]
    response = provisioning_service_pb2.ProvisionProductResponse.FromString(bytes.fromhex(passed_on))
    assert response.record_detail.launch_role_arn == ANSWER["RecordDetail"]["LaunchRoleArn"]
    assert response.record_detail.status == in_error


# This client and an older server.


@pytest.fixture(scope="module")
def older_server(older: Path, _upstream: Upstream) -> Iterator[Stubs]:
    arguments = ("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1")
    with (
        Facade(*arguments, env=environment(_upstream.url, PYTHONPATH=str(older))) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        yield Stubs(channel)


def test_an_older_server_answers_what_it_knows(older_server: Stubs, upstream: Upstream) -> None:
    upstream.behave(reply(body={**ANSWER, "RecordDetail": {**ANSWER["RecordDetail"], "Status": "SUCCEEDED"}}))
    response = older_server.ProvisionProduct(provision(), timeout=10)
    assert response.record_detail.record_id == "rec-1"
    assert response.record_detail.status == record_pb2.RecordStatus.RECORD_STATUS_SUCCEEDED
    assert response.record_detail.launch_role_arn == ""


def preferences(**fields: Any) -> Any:
    return provisioning_pb2.ProvisioningPreferences(stack_set_failure_tolerance_count=0, **fields)


def parameter(key: str, **fields: Any) -> Any:
    return provisioning_pb2.UpdateProvisioningParameter(key=key, **fields)


@pytest.mark.parametrize(
    ("request_", "violations"),
    [
        (provision(notification_arns=["arn:aws:sns:us-east-1:123456789012:a"]), {"request": 12}),
        (provision(notification_arns=["arn:a", "arn:b"]), {"request": 12}),
        (provision(provisioning_preferences=preferences(stack_set_regions=["x"])), {"provisioning_preferences": 2}),
        (
            update(provisioning_parameters=[parameter("a"), parameter("b", use_previous_value=True)]),
            {"provisioning_parameters[1]": 3},
        ),
        # Presence counts: the caller has said it.
        (update(provisioning_parameters=[parameter("a", use_previous_value=False)]), {"provisioning_parameters[0]": 3}),
        (
            provisioned_product_service_pb2.TerminateProvisionedProductRequest(
                provisioned_product_id="pp-1", retain_physical_resources=True
            ),
            {"request": 6},
        ),
        (
            provision(
                notification_arns=["arn:a"],
                provisioning_preferences=preferences(stack_set_regions=["x"]),
            ),
            {"request": 12, "provisioning_preferences": 2},
        ),
    ],
)
def test_an_older_server_refuses_a_write_that_it_would_not_do_as_asked(
    older_server: Stubs, upstream: Upstream, request_: Message, violations: dict[str, int]
) -> None:
    upstream.behave(reply(body=ANSWER))
    with pytest.raises(grpc.RpcError) as raised:
        getattr(older_server, request_.DESCRIPTOR.name.removesuffix("Request"))(request_, timeout=10)
    refusal = refusal_of(raised.value)
    assert refusal.violations == [(field, f"field number {number} {OLDER}") for field, number in violations.items()]
    assert upstream.requests == []


def test_an_older_server_names_what_else_is_wrong(older_server: Stubs, upstream: Upstream) -> None:
    upstream.behave(reply(body=ANSWER))
    with pytest.raises(grpc.RpcError) as raised:
        older_server.ProvisionProduct(provision(product_id=None, notification_arns=["arn:a"]), timeout=10)
    assert [field for field, _ in refusal_of(raised.value).violations] == ["request", "product"]


def test_an_older_server_takes_default_values_that_nobody_has_said(older_server: Stubs, upstream: Upstream) -> None:
    upstream.behave(reply(body={"RecordDetail": {"RecordId": "rec-1"}}))
    request = provisioned_product_service_pb2.TerminateProvisionedProductRequest(
        provisioned_product_id="pp-1", retain_physical_resources=False
    )
    assert older_server.TerminateProvisionedProduct(request, timeout=10).record_detail.record_id == "rec-1"


def test_an_older_server_passes_over_what_it_does_not_know_of_a_read(older_server: Stubs, upstream: Upstream) -> None:
    upstream.behave(reply(body={"LaunchPathSummaries": [{"Id": "lpv2-1"}]}))
    request = catalog_service_pb2.ListLaunchPathsRequest(product_id="prod-1", page_size=7)
    (path,) = older_server.ListLaunchPaths(request, timeout=10).launch_path_summaries
    assert path.id == "lpv2-1"
    assert upstream.requests[0].json == {"ProductId": "prod-1"}

    upstream.behave(reply(body={"RecordDetails": []}))
    history = record_service_pb2.ListRecordHistoryRequest(page_size=7)
    history.search_filter.key = "product"
    history.search_filter.value = "prod-1"
    older_server.ListRecordHistory(history, timeout=10)
    assert upstream.requests[0].json == {"PageSize": 7, "SearchFilter": {"Key": "product"}}


# Fields that no contract has yet.

NEW = b"\xfa\x7f\x03abc"  # number 2047, three bytes


@pytest.mark.parametrize("request_", [provision(), update(), properties()])
def test_this_server_is_an_older_one_some_day(facade: Facade, upstream: Upstream, request_: Message) -> None:
    upstream.behave(reply(body=ANSWER))
    method = f"/servicecatalog.v1.ProvisioningService/{request_.DESCRIPTOR.name.removesuffix('Request')}"
    with grpc.insecure_channel(facade.address) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as raised:
            call(request_.SerializeToString() + NEW, timeout=10)
    assert refusal_of(raised.value).violations == [("request", f"field number 2047 {OLDER}")]
    assert upstream.requests == []


def test_unknown_fields_are_found_wherever_messages_are() -> None:
    request = provisioned_product_service_pb2.SearchProvisionedProductsRequest()
    request.filters["SearchQuery"].values.append("name:mine")
    assert list(unknown_fields(request)) == []
    request.filters["Größe"].MergeFromString(NEW)
    request.access_level_filter.MergeFromString(NEW + NEW)
    request.MergeFromString(b"\xf8\x7f\x01" + NEW)
    assert list(unknown_fields(request)) == [
        Violation("request", f"field number 2047 {OLDER}"),
        Violation("access_level_filter", f"field number 2047 {OLDER}"),
        Violation('filters["Größe"]', f"field number 2047 {OLDER}"),
    ]
