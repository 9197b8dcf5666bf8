"""A policy that changes while the server runs: for the next call, and for the next message of a watch."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from callers import Mesh, policed
from facade import Facade
from servicecatalog.v1 import catalog_service_pb2 as catalog
from servicecatalog.v1 import record_service_pb2 as records
from servicecatalog.v1.record_pb2 import RecordStatus
from status import Details
from stubs import Stubs
from upstream import Behaviour, Upstream, reply
from waiting import wait_for

ORDERS = "spiffe://example.org/ns/shop/sa/orders"
BILLING = "spiffe://example.org/ns/shop/sa/billing"

SEARCH = f"callers: [{{identity: '{ORDERS}', grants: [{{methods: [SearchProducts]}}]}}]\n"
NOTHING = f"callers: [{{identity: '{ORDERS}'}}]\n"
MISTAKE = f"callers:\n- identity: {ORDERS}\n  grants: [{{methods: [Search]}}]\n"


def watching(names: str) -> str:
    grant = f"{{methods: [WatchRecord], provisioned_product_names: ['{names}']}}"
    return f"callers: [{{identity: '{ORDERS}', grants: [{grant}]}}]\n"


def record(status: str, name: str = "orders-1") -> Behaviour:
    detail = {"RecordId": "rec-1", "ProvisionedProductName": name, "ProductId": "prod-1", "Status": status}
    return reply(body={"RecordDetail": detail})


class World(NamedTuple):
    upstream: Upstream
    facade: Facade
    mesh: Mesh
    stubs: Stubs
    policy: Path

    def change(self, text: str, *, good: bool = True) -> None:
        """Write the policy anew, and wait until the server has seen it."""
        said = "policy: reloaded" if good else "policy: kept the old one"
        before = self._count(said)
        self.policy.write_text(text)
        wait_for(lambda: self._count(said) > before, seconds=30)

    def _count(self, text: str) -> int:
        return sum(text in line for line in self.facade.log)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    mesh, policy = Mesh(tmp_path), tmp_path / "policy.yaml"
    policy.write_text(SEARCH)
    with (
        closing(Upstream()) as upstream,
        policed(upstream, mesh, policy, "--poll-first=0.05", "--poll-longest=0.05", "--poll-rate=100") as facade,
        mesh.channel(facade.address, ORDERS) as channel,
    ):
        upstream.behave(reply(body={}))
        yield World(upstream, facade, mesh, Stubs(channel), policy)


def search(world: World) -> None:
    world.stubs.SearchProducts(catalog.SearchProductsRequest(), timeout=20)


def refusal(call: Any) -> Details:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return Details(raised.value)


def test_a_new_policy_is_in_force_for_the_next_call(world: World) -> None:
    search(world)
    world.change(NOTHING)
    assert refusal(lambda: search(world)).info.reason == "CALLER_NOT_ALLOWED"
    world.change(SEARCH)
    search(world)


def test_a_bad_policy_changes_nothing_but_the_log(world: World) -> None:
    world.change(MISTAKE, good=False)
    search(world)
    (line,) = [json.loads(line) for line in world.facade.log if "kept the old one" in line]
    assert line["level"] == "WARNING"
    assert f"{world.policy}:3: there is no method 'Search'" in line["message"]
    details = refusal(lambda: world.stubs.ListRecordHistory(records.ListRecordHistoryRequest()))
    assert details.info.reason == "CALLER_NOT_ALLOWED"
    world.change(NOTHING)
    assert refusal(lambda: search(world)).info.reason == "CALLER_NOT_ALLOWED"


def test_a_policy_that_has_gone_changes_nothing_but_the_log(world: World) -> None:
    world.policy.unlink()
    wait_for(lambda: any("kept the old one" in line for line in world.facade.log), seconds=30)
    search(world)


def test_a_watch_ends_with_the_next_message_that_is_no_longer_granted(world: World) -> None:
    world.change(watching("orders-*"))
    world.upstream.behave(record("CREATED"))
    watch = iter(world.stubs.WatchRecord(records.WatchRecordRequest(id="rec-1"), timeout=60))
    assert next(watch).record_detail.status == RecordStatus.RECORD_STATUS_CREATED
    world.change(watching("billing-*"))
    world.upstream.behave(record("IN_PROGRESS"))
    details = refusal(lambda: next(watch))
    assert (details.code, details.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
    assert details.message == f"{ORDERS} may not WatchRecord on record rec-1"


def test_a_watch_that_is_still_granted_goes_on(world: World) -> None:
    world.change(watching("orders-*"))
    world.upstream.behave(record("CREATED"))
    watch = iter(world.stubs.WatchRecord(records.WatchRecordRequest(id="rec-1"), timeout=60))
    assert next(watch).record_detail.status == RecordStatus.RECORD_STATUS_CREATED
    world.change(watching("*-1"))
    world.upstream.behave(record("SUCCEEDED"))
    assert [state.record_detail.status for state in watch] == [RecordStatus.RECORD_STATUS_SUCCEEDED]


def test_who_watches_the_same_record_shares_its_polls_and_nobodys_rights(world: World) -> None:
    grant = "grants: [{methods: [WatchRecord], provisioned_product_names: ['%s']}]"
    both = [f"{{identity: '{ORDERS}', {grant % 'orders-*'}}}", f"{{identity: '{BILLING}', {grant % 'billing-*'}}}"]
    world.change(f"callers: [{', '.join(both)}]")
    world.upstream.behave(record("CREATED"))
    request = records.WatchRecordRequest(id="rec-1")
    watch = iter(world.stubs.WatchRecord(request, timeout=60))
    next(watch)
    with world.mesh.channel(world.facade.address, BILLING) as channel:
        other = iter(Stubs(channel).WatchRecord(request, timeout=60))
        assert refusal(lambda: next(other)).info.metadata == {"caller": BILLING}
    world.upstream.behave(record("SUCCEEDED"))
    assert len(list(watch)) == 1
