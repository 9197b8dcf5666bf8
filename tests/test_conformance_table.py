"""The conformance table is whole and can be trusted: what is in it, and what its harness notices."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import conformance_report
import grpc
import pytest
from conformance_compare import CODES, REASONS, UNSPECIFIED, Observed, problems_of
from conformance_front import PASS, Attempt
from conformance_rows import LANGUAGES, METHODS, WATCH, Expect, Row, fill, load
from conformance_world import FACADES, GIVEN, MEANWHILE
from fault_proxy import FAULTS
from google.protobuf.json_format import MessageToDict, ParseDict
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog.v1.record_pb2 import RecordStatus
from waiting import wait_for

ROWS = load()
SERVER = Path(__file__).with_name("conformance_server.py")

# What `given` and the harness may put in the place of a placeholder.
VARIABLES = {
    name: name
    for name in (
        "name",
        "token",
        "record_id",
        "first_record_id",
        "provisioned_product_id",
        "product_id",
        "artifact_id",
        "other_artifact_id",
        "path_id",
    )
}


# The table.


def test_names_are_unique_and_there_are_enough_of_them() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) >= 60
    assert [name for name in names if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)] == []


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_rows_are_well_formed(row: Row) -> None:
    filled = row.filled(VARIABLES)
    filled.request_message()
    assert row.why
    assert row.facade in FACADES
    assert row.meanwhile in {None, *MEANWHILE}
    assert set(row.given) <= set(GIVEN)
    assert not (row.direct and row.front)
    for step in filled.aws:
        assert step in ("pass", "silence", *FAULTS) if isinstance(step, str) else _kind(step) in _AWS_STEPS, step
    for step in filled.front:
        assert step == PASS or (set(step) == {"after", "then"} and _is_end(step["then"])), step
    _assert_expects_what_can_be(Expect(**filled.expect))
    assert row.repeat is (filled.expect.get("repeated") is not None)
    assert not (row.repeat and row.token_field is None)


_AWS_STEPS = ({"error"}, {"error", "message"}, {"error", "message", "status"}, {"reply"}, {"alter"})
_FAILURE = {"code", "message", "reason", "domain", "metadata", "retryDelay", "more", "details"}


def _kind(step: Mapping[str, Any]) -> set[str]:
    return set(step)


def _is_end(then: Any) -> bool:
    if isinstance(then, str):
        return then in ("hang up", "silence", "end")
    return set(then) == {"away"} or (then["code"] in CODES - {"OK"} and set(then) <= _FAILURE)


def _assert_expects_what_can_be(expect: Expect) -> None:
    assert expect.code in CODES
    reasons = [expect.reason] if isinstance(expect.reason, str) else expect.reason or []
    assert set(reasons) <= REASONS
    assert bool(reasons) is (expect.code != "OK")
    if expect.repeated is not None:
        _assert_expects_what_can_be(Expect(**expect.repeated))


def test_every_reason_of_the_contract_occurs() -> None:
    expected = [row.expect.get("reason") for row in ROWS]
    expected += [row.expect.get("repeated", {}).get("reason") for row in ROWS]
    # SHUTTING_DOWN is never the end: the policy repeats a call, and a wait goes on.
    steps = [step for row in ROWS for step in row.front]
    scripted = [step["then"].get("reason") for step in steps if isinstance(step.get("then"), dict)]
    assert REASONS - set(filter(_is_text, expected)) == {"SHUTTING_DOWN"}
    assert {"SHUTTING_DOWN"} <= set(scripted)
    assert UNSPECIFIED in expected


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def test_every_method_succeeds_in_some_row() -> None:
    assert {row.method for row in ROWS if row.expect["code"] == "OK"} == set(METHODS)
    assert len(METHODS) == 14
    assert WATCH in METHODS


# What the comparison notices.

ROW = Row(
    name="a-row",
    why="for the comparison",
    method="ProvisionProduct",
    request={"productName": "p", "provisionedProductName": "mine"},
    metadata={"x-team": "blue"},
    expect={
        "code": "RESOURCE_EXHAUSTED",
        "reason": "THROTTLED",
        "message": "slow down",
        "violations": [{"field": "a", "description": "is"}, {"field": "b[0]"}],
        "retryDelay": [1, 2],
        "token": "filled in",
        "attempts": 2,
        "pauses": [[1, 2]],
        "seconds": [1, 2],
        "aws": {"requests": 2, "tokens": 1, "products": 0, "request": {"ProductName": "p", "Tags": None}},
        "repeated": {"code": "OK", "response": {"recordDetail": {"recordId": "~rec-[0-9]+", "recordTags": []}}},
    },
    repeat=True,
)
TOKEN = "0b6c7d5e-5b1f-4c1d-9a55-6f3a7a3e2b10"
RESPONSE = pb.ProvisionProductResponse()
RESPONSE.record_detail.record_id = "rec-1"
RESPONSE.record_detail.status = RecordStatus.RECORD_STATUS_CREATED

OUTCOME: dict[str, Any] = {
    "code": "RESOURCE_EXHAUSTED",
    "reason": "THROTTLED",
    "message": "please slow down",
    "violations": [{"field": "a", "description": "is required"}, {"field": "b[0]", "description": "is long"}],
    "retryDelay": 1.5,
    "token": TOKEN,
    "repeated": {"code": "OK", "response": MessageToDict(RESPONSE)},
}


def _attempt(at: float, **fields: Any) -> Attempt:
    request = {"product_name": "p", "provisioned_product_name": "mine", "provision_token": TOKEN, **fields}
    return Attempt(
        method="/servicecatalog.v1.ProvisioningService/ProvisionProduct",
        request=pb.ProvisionProductRequest(**request).SerializeToString(),
        metadata={"x-team": "blue"},
        deadline=29.9,
        at=at,
        responses=[RESPONSE.SerializeToString()],
    )


AWS = {"ProductName": "p", "ProvisionToken": TOKEN}
OBSERVED = Observed(attempts=[_attempt(1.0), _attempt(2.5)], aws=[AWS, AWS], products=0, seconds=1.5)


def test_the_right_outcome_has_no_problems() -> None:
    assert problems_of(ROW, OUTCOME, OBSERVED) == []


OTHER_RESPONSE = {"recordDetail": {"recordId": "rec-2", "status": "RECORD_STATUS_CREATED"}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"code": "UNKNOWN"}, "code: expected RESOURCE_EXHAUSTED, got UNKNOWN (please slow down)"),
        ({"code": "Unknown"}, "code: must be one of gRPC's names, is 'Unknown'"),
        ({"code": None}, "code: must be one of gRPC's names, is None"),
        ({"reason": "OVERLOADED"}, "reason: expected THROTTLED, got OVERLOADED"),
        ({"reason": "UNSPECIFIED"}, "reason: expected THROTTLED, got UNSPECIFIED"),
        ({"reason": None}, "reason: expected THROTTLED, got None"),
        ({"reason": "ERROR_REASON_THROTTLED"}, "reason: must be a name of ErrorReason without its prefix"),
        ({"message": "no"}, "message: expected 'slow down' in it, got 'no'"),
        ({"violations": []}, "violations: expected the fields ['a', 'b[0]'], got []"),
        ({"violations": [{"field": "b[0]"}, {"field": "a"}]}, "violations: expected the fields ['a', 'b[0]'], got ['b"),
        (
            {"violations": [{"field": "a", "description": "no"}, {"field": "b[0]", "description": "no"}]},
            "violations: expected 'is' for a, got 'no'",
        ),
        (
            {"violations": [{"field": "a", "description": "is"}, {"field": "b[0]", "description": ""}]},
            "violations: expected 'some description' for b[0], got ''",
        ),
        ({"retryDelay": None}, "retryDelay: expected 1 to 2 s, got None"),
        ({"retryDelay": 1500}, "retryDelay: expected 1 to 2 s, got 1500"),
        ({"token": None}, f"token: expected the one that was filled in, '{TOKEN}', got None"),
        ({"token": "another"}, f"token: expected the one that was filled in, '{TOKEN}', got 'another'"),
        ({"response": {"recordDetail": {}}}, "response: expected none"),
        ({"repeated": None}, "repeated: expected the outcome of the second call, got none"),
        ({"repeated": {"code": "UNKNOWN", "reason": None}}, "repeated: code: expected OK, got UNKNOWN (no message)"),
        ({"repeated": {"code": "OK", "response": None}}, "repeated: response: is not a ProvisionProductResponse"),
        ({"repeated": {"code": "OK", "response": {"x": 1}}}, "repeated: response: is not a ProvisionProductResponse"),
        ({"repeated": {"code": "OK", "response": {}}}, "repeated: response.recordDetail: expected {"),
        (
            {"repeated": {"code": "OK", "response": OTHER_RESPONSE}},
            "repeated: response: is not what came over the wire",
        ),
        ({"repeated": {**OUTCOME["repeated"], "token": TOKEN}}, "repeated: token: expected none, got '"),
        ({"repeated": {**OUTCOME["repeated"], "reason": UNSPECIFIED}}, "repeated: reason: expected None, got UNSPEC"),
        ({"tokens": "x"}, "the outcome has tokens, which the protocol does not"),
    ],
)
def test_a_wrong_outcome_is_noticed(changes: dict[str, Any], problem: str) -> None:
    problems = problems_of(ROW, {**OUTCOME, **changes}, OBSERVED)
    assert any(each.startswith(problem) for each in problems), problems


@pytest.mark.parametrize("outcome", [None, [], "OK", {}])
def test_an_outcome_that_is_none_is_noticed(outcome: Any) -> None:
    assert problems_of(ROW, outcome, OBSERVED) != []


@pytest.mark.parametrize(
    ("expect", "outcome", "problem"),
    [
        ({"token": "the request's"}, {"token": "other"}, "token: expected the request's, 'mine', got 'other'"),
        ({"token": "~key-[0-9]+"}, {"token": "rid-1"}, "token: expected something like key-[0-9]+, got 'rid-1'"),
        ({}, {"token": "mine"}, "token: expected none, got 'mine'"),
        ({}, {"retryDelay": 0}, "retryDelay: expected none, got 0"),
        ({}, {"violations": [{"field": "a"}]}, "violations: expected the fields [], got ['a']"),
        ({"reason": ["INTERNAL", "UNSPECIFIED"]}, {}, "reason: expected INTERNAL or UNSPECIFIED, got THROTTLED"),
        ({}, {"repeated": {"code": "OK"}}, "repeated: expected none, got one"),
    ],
)
def test_what_a_failure_must_not_have_is_noticed(expect: dict[str, Any], outcome: dict[str, Any], problem: str) -> None:
    row = dataclasses.replace(
        ROW,
        request={**ROW.request, "provisionToken": "mine"},
        expect={"code": "UNKNOWN", "reason": "THROTTLED", **expect},
        repeat=False,
    )
    attempts = [_attempt(1.0, provision_token="mine")]
    got = {"code": "UNKNOWN", "reason": "THROTTLED", "message": "", **outcome}
    problems = problems_of(row, got, Observed(attempts=attempts))
    assert len(problems) == 1, problems
    assert problems[0].startswith(problem)


def _second(**changes: Any) -> Observed:
    """Return what was observed, with something else about the second attempt."""
    return dataclasses.replace(OBSERVED, attempts=[_attempt(1.0), dataclasses.replace(_attempt(2.5), **changes)])


@pytest.mark.parametrize(
    ("observed", "problem"),
    [
        (dataclasses.replace(OBSERVED, attempts=[_attempt(1.0)]), "attempts: expected 2, got 1"),
        (_second(at=1.2), "pauses: expected 1 to 2 s before attempt 2, got 0.20 s"),
        (dataclasses.replace(OBSERVED, seconds=9), "seconds: expected 1 to 2 s, got 9"),
        (
            _second(request=_attempt(1.0, provision_token="b").request),
            f"attempt 2: expected the same token as before, '{TOKEN}', got 'b'",
        ),
        (_second(request=_attempt(1.0, provision_token="").request), "attempt 2: expected the same token as before"),
        (_second(request=_attempt(1.0, product_name="q").request), "attempt 2: expected the request {"),
        (_second(request=_attempt(1.0, path_name="").request), "attempt 2: expected the request {"),
        (_second(metadata={}), "attempt 2: expected the metadata x-team: 'blue', got None"),
        (
            _second(method="/x/Y"),
            "attempt 2: expected a call of servicecatalog.v1.ProvisioningService/ProvisionProduct",
        ),
        (_second(deadline=None), "attempt 2: expected a deadline of 25 to 31 s, got None"),
        (_second(deadline=300), "attempt 2: expected a deadline of 25 to 31 s, got 300"),
        (dataclasses.replace(OBSERVED, used=frozenset({TOKEN})), f"the request: its token '{TOKEN}' was filled in"),
        (dataclasses.replace(OBSERVED, aws=[AWS]), "requests to AWS: expected 2, got 1"),
        (dataclasses.replace(OBSERVED, aws=[AWS, {**AWS, "ProvisionToken": "b"}]), "tokens at AWS: expected 1, got 2"),
        (dataclasses.replace(OBSERVED, products=2), "provisioned products: expected 0, got 2"),
        (
            dataclasses.replace(OBSERVED, aws=[AWS, {**AWS, "Tags": []}]),
            "the request to AWS.Tags: expected None, got []",
        ),
    ],
)
def test_what_was_wrong_on_the_way_is_noticed(observed: Observed, problem: str) -> None:
    problems = problems_of(ROW, OUTCOME, observed)
    assert any(each.startswith(problem) for each in problems), problems


@pytest.mark.parametrize("token", ["", "b", TOKEN.upper()])
def test_a_token_that_is_no_uuid_is_noticed(token: str) -> None:
    attempts = [_attempt(1.0, provision_token=token), _attempt(2.5, provision_token=token)]
    problems = problems_of(ROW, {**OUTCOME, "token": token or None}, dataclasses.replace(OBSERVED, attempts=attempts))
    assert "the request: expected a UUID to be filled in as its token" in "".join(problems)


def test_a_token_beside_a_key_is_noticed() -> None:
    row = dataclasses.replace(
        ROW, metadata={"idempotency-key": "k", "x-team": "blue"}, expect={"code": "OK"}, repeat=False
    )
    attempt = dataclasses.replace(_attempt(1.0), metadata={"idempotency-key": "k", "x-team": "blue"})
    outcome = {"code": "OK", "response": MessageToDict(RESPONSE)}
    (problem,) = problems_of(row, outcome, Observed(attempts=[attempt]))
    assert problem == f"the request: expected no token to be filled in beside a key in the metadata, got '{TOKEN}'"


def test_lists_are_three_times_what_they_repeat() -> None:
    spread = fill([{"times": 3, "each": "${name}-${index}"}, "${4 characters}"], {"name": "a"})
    assert spread == ["a-0", "a-1", "a-2", "xxxx"]


# The harness itself.


class Harness:
    """A running harness, and what a runner says to it."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SERVER, "python", directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self._url = json.loads(self.process.stdout.readline())["url"]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def children(self) -> list[Path]:
        """Return the processes that it has started."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [Path(f"/proc/{pid}") for task in tasks for pid in task.read_text().split()]

    def close(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(30)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    running = Harness(tmp_path)
    yield running
    running.close()


def _provision(begun: dict[str, Any], token: str) -> dict[str, Any]:
    """Do what a client has to do for a row of ProvisionProduct, with this token."""
    request = ParseDict(begun["request"], pb.ProvisionProductRequest(provision_token=token))
    with grpc.insecure_channel(begun["address"]) as channel:
        response = ProvisioningServiceStub(channel).ProvisionProduct(request, timeout=30)
    return {"code": "OK", "response": MessageToDict(response)}


def test_the_harness_judges_and_leaves_nothing_behind(harness: Harness, tmp_path: Path) -> None:
    assert harness.get("/rows") == [row.name for row in ROWS]

    begun = harness.post("/rows/provision-by-names/begin")
    assert begun["method"] == "servicecatalog.v1.ProvisioningService/ProvisionProduct"
    assert (begun["metadata"], begun["deadline"], begun["repeat"], begun["wait"]) == ({}, None, False, False)
    token = str(uuid.uuid4())
    assert harness.post("/rows/provision-by-names/end", _provision(begun, token)) == {"problems": []}

    begun = harness.post("/rows/language-and-notifications/begin")
    again = harness.post("/rows/language-and-notifications/end", _provision(begun, token) | {"token": token})[
        "problems"
    ]
    assert f"the request: its token {token!r} was filled in for another call before" in again
    assert f"token: expected none, got {token!r}" in again

    harness.post("/rows/update-by-name-to-another-version/begin")
    harness.post("/rows/a-product-that-is-not-there/begin")
    children = harness.children()
    assert children
    assert harness.close() == 0
    assert [child for child in children if child.exists()] == []
    kept = json.loads((tmp_path / "python.json").read_text("utf-8"))
    assert {name: result["problems"] for name, result in kept.items()} == {
        "provision-by-names": [],
        "language-and-notifications": again,
        "update-by-name-to-another-version": ["it was begun, and another row after it, without an outcome"],
        "a-product-that-is-not-there": ["it was begun, and has no outcome"],
    }


def test_the_harness_ends_with_its_runner(tmp_path: Path) -> None:
    runner = """
import subprocess, sys, time, urllib.request, json
harness = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
url = json.loads(harness.stdout.readline())["url"]
urllib.request.urlopen(urllib.request.Request(url + "/rows/provision-by-names/begin", b"null", method="POST"))
print(harness.pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", runner, sys.executable, str(SERVER), "python", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        harness = Path(f"/proc/{process.stdout.readline().strip()}")
        assert harness.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: not harness.exists() or "\nState:\tZ" in (harness / "status").read_text(), 30)


# The report.


def _write(directory: Path, language: str, change: Callable[[dict[str, Any]], None]) -> None:
    results = {row.name: {"problems": [], "seconds": 0.1} for row in ROWS}
    change(results)
    (directory / f"{language}.json").write_text(json.dumps(results), "utf-8")


def _nothing(_: dict[str, Any]) -> None:
    """Change nothing."""


def test_the_report_is_content_with_whole_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for language in LANGUAGES:
        _write(tmp_path, language, _nothing)
    assert conformance_report.main(["--require", ",".join(LANGUAGES)], tmp_path) == 0
    shown = capsys.readouterr().out
    assert f"Passed, of {len(ROWS)} rows: python {len(ROWS)}, python-aio {len(ROWS)}, go {len(ROWS)}" in shown
    assert f"| {ROWS[0].name} | ok | ok | ok | ok | ok |" in (tmp_path / "matrix.md").read_text("utf-8")


def test_the_report_fails_for_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert conformance_report.main([], tmp_path) == 1
    _write(tmp_path, "go", _nothing)
    assert conformance_report.main([], tmp_path) == 0
    assert conformance_report.main(["--require", "go,java"], tmp_path) == 1
    assert f"java: {len(ROWS)} rows have not been run" in capsys.readouterr().out

    name = ROWS[3].name
    _write(tmp_path, "java", lambda results: results.pop(name))
    assert conformance_report.main([], tmp_path) == 1
    assert f"java: 1 rows have not been run: {name}\n" in capsys.readouterr().out
    _write(tmp_path, "java", lambda results: results[name].update(problems=["code: expected OK", "and more"]))
    assert conformance_report.main([], tmp_path) == 1
    assert f"java: {name}: code: expected OK; and more\n" in capsys.readouterr().out
