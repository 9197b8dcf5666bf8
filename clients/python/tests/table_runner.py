"""Runs the rows of tests/conformance with a client: what it makes of each call is judged there."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from both_clients import BOTH, AnyClient
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from servicecatalog import Failure
from servicecatalog.v1 import error_reason_pb2
from stand_in import METHODS

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("SERVICECATALOG_PYTHON") or ROOT / ".venv/bin/python")
TOKENS = ("provision_token", "update_token", "idempotency_token", "terminate_token")


def run_table(language: str, subtests: pytest.Subtests) -> None:
    """Run each row as a subtest of its name."""
    with harness(language) as ask:
        rows = ask("rows")
        assert rows
        for name in rows:
            with subtests.test(name):
                row = f"rows/{quote(name, safe='')}"
                outcome = run(BOTH[language], ask(f"{row}/begin", {}))
                problems = ask(f"{row}/end", outcome)["problems"]
                assert not problems, "\n".join(problems)


def run(client_class: type[AnyClient], row: Any) -> dict[str, Any]:
    """Do what the row says and return what came of it."""
    method = METHODS[f"/{row['method']}"]
    request = ParseDict(row["request"], GetMessageClass(method.input_type)())
    with client_class(row["address"], plaintext=True) as client:
        outcome = attempt(client, row, request)
        if row["repeat"] and outcome["code"] != "OK":
            for field in TOKENS:
                if field in request.DESCRIPTOR.fields_by_name:
                    setattr(request, field, outcome["token"])
            outcome["repeated"] = attempt(client, row, request)
    return outcome


def attempt(client: AnyClient, row: Any, request: Any) -> dict[str, Any]:
    """Make the call and say how it ended."""
    options = {} if row["deadline"] is None else {"timeout": row["deadline"]}
    try:
        if row["wait"]:
            response: Message = client.wait(request.id, **options)
        else:
            response = client.call(row["method"], request, metadata=tuple(row["metadata"].items()), **options)
    except Failure as failure:
        return {
            "code": failure.code().name,
            "reason": error_reason_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_"),
            "message": failure.message,
            "violations": [{"field": each.field, "description": each.description} for each in failure.violations],
            "retryDelay": failure.retry_delay and failure.retry_delay.total_seconds(),
            "token": failure.token,
        }
    return {"code": "OK", "response": MessageToDict(response)}


@contextmanager
def harness(language: str) -> Iterator[Any]:
    """Start the harness and yield a function that asks it."""
    assert PYTHON.exists(), "run `make install` first"
    command = [str(PYTHON), str(ROOT / "tests/conformance_server.py"), language]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        opener = build_opener(ProxyHandler({}))  # it is on this machine

        def ask(path: str, content: Any = None) -> Any:
            data = None if content is None else json.dumps(content).encode()
            with opener.open(Request(f"{url}/{path}", data), timeout=120) as answer:
                return json.load(answer)

        try:
            yield ask
        finally:
            process.stdin.close()
        assert process.wait(60) == 0
