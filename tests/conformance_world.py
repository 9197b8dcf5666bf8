"""What a row needs around it: an AWS with real state, faults in front of it, façades, and things already provisioned."""

import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from conformance_front import Front
from conformance_rows import METHODS, Row, fill
from facade import Facade, environment
from fault_proxy import FaultProxy
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from servicecatalog_grpc.sandbox import Sandbox
from servicecatalog_grpc.sandbox.aws import client
from upstream import Behaviour, Request, error, reply, silence

RECORD_SECONDS = 0.1
_PATIENCE_SECONDS = 30

# Records are looked at often, so that a watch ends soon after its record.
_FLAGS = ("serve", "--listen", "127.0.0.1:0", "--poll-first", "0.05", "--poll-longest", "0.2", "--poll-rate", "200")
_ONE_ATTEMPT = ("--max-attempts", "1")
FACADES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "one attempt": _ONE_ATTEMPT,
    "restarted": _ONE_ATTEMPT,
    "policy": (*_ONE_ATTEMPT, "--policy", str(Path(__file__).with_name("conformance") / "policy.yaml")),
    # One turn in 20 s.
    "slow pace": (*_ONE_ATTEMPT, "--aws-rate", "ProvisionProduct=0.05"),
    "no credentials": _ONE_ATTEMPT,
    "cut off from AWS": _ONE_ATTEMPT,
}

# By which a façade asks whether AWS takes its credentials; no row is about it.
_PROBE = "rec-credentials-check"

_IN_PROGRESS = {"RecordDetail": {"Status": "IN_PROGRESS", "RecordErrors": []}, "RecordOutputs": []}

MEANWHILE = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}


class World:
    """All of it, for one run of the table. One row at a time: `begin` and `end`."""

    def __init__(self) -> None:
        self._sandbox = Sandbox(port=0, record_seconds=RECORD_SECONDS)
        self._sandbox.start()
        self._catalog = client("servicecatalog", self._sandbox.url)
        self._proxy = FaultProxy(self._sandbox.url, self._choose)
        self._facades: dict[str, Facade] = {}
        self._numbers = itertools.count(1)
        self._shared: dict[str, str] = {}
        self._lock = threading.Lock()
        self._row: Row | None = None
        self._script: list[Any] = []
        self._restarting: threading.Thread | None = None
        self._seen = threading.Event()
        self.front: Front | None = None
        self.sent_to_aws: list[Any] = []

    def close(self) -> list[str]:
        """Stop everything and return what was wrong with a façade."""
        problems = []
        self.end()
        for facade in self._facades.values():
            facade.process.terminate()
        for kind, facade in self._facades.items():
            try:
                facade.__exit__(None, None, None)
            except AssertionError as wrong:
                problems.append(f"the façade {kind!r}: {wrong}")
        self._proxy.close()
        self._catalog.close()
        self._sandbox.stop()
        return problems

    def begin(self, row: Row) -> tuple[Row, dict[str, str], str]:
        """Prepare everything for the row; return it with its placeholders filled, their values, and an address."""
        number = next(self._numbers)
        # Of one length: none is a part of another, which a search would find too.
        variables = {"name": f"conformance-{number:05}", "token": f"token-{number:05}"}
        facade = self._facade(row.facade)
        with self._lock:
            self._row, self._script = row, []
            self.sent_to_aws = []
        self._seen.clear()
        for given in row.given:
            GIVEN[given](self, row, variables)
        filled = row.filled(variables)
        with self._lock:
            self._row, self._script = filled, list(filled.aws)
        if filled.meanwhile:
            self._restarting = threading.Thread(target=self._restart, args=(row.facade, MEANWHILE[filled.meanwhile]))
            self._restarting.start()
        if filled.direct:
            return filled, variables, facade.address
        self.front = Front(facade.address, filled.front)
        return filled, variables, self.front.address

    def end(self) -> None:
        """Forget the row."""
        if self._restarting:
            self._seen.set()
            self._restarting.join()
            self._restarting = None
        if self.front:
            self.front.close()
            self.front = None
        with self._lock:
            self._row, self._script = None, []

    def products(self, name: str) -> int:
        """Return how many provisioned products of this name there are."""
        found = self._catalog.search_provisioned_products(Filters={"SearchQuery": [f"name:{name}"]})
        return sum(product["Name"] == name for product in found["ProvisionedProducts"])

    def _facade(self, kind: str) -> Facade:
        if kind not in self._facades:
            endpoint = f"http://127.0.0.1:{_closed_port()}" if kind == "cut off from AWS" else self._proxy.url
            variables = environment(endpoint)
            if kind == "no credentials":
                variables = {name: value for name, value in variables.items() if "ACCESS_KEY" not in name}
            self._facades[kind] = Facade(*_FLAGS, *FACADES[kind], env=variables).__enter__()
        return self._facades[kind]

    def _restart(self, kind: str, number: signal.Signals) -> None:
        """Once the record is watched, end the façade and start it again where it was."""
        self._seen.wait(_PATIENCE_SECONDS)
        time.sleep(0.1)
        old = self._facades[kind]
        old.stop(number)
        old.__exit__(None, None, None)
        again = ("serve", "--listen", old.address, *_FLAGS[3:], *FACADES[kind])
        self._facades[kind] = Facade(*again, env=environment(self._proxy.url)).__enter__()

    def _choose(self, request: Request) -> str | Behaviour | None:
        body = request.json
        with self._lock:
            row = self._row
            if row is None or body.get("Id") == _PROBE or not request.target.endswith(f".{row.aws_operation}"):
                return None
            if row.wait and body["Id"] != row.request["id"]:
                return None  # of a watch that nobody follows any more
            self.sent_to_aws.append(body)
            step = self._script.pop(0) if self._script else "pass"
        self._seen.set()
        if row.wait and self._is_breaking():
            step = {"alter": _IN_PROGRESS}
        return self._behaviour(step)

    def _is_breaking(self) -> bool:
        """Say whether there is more to break for a wait, whose record must not end before."""
        restarting, front = self._restarting, self.front
        return (restarting is not None and restarting.is_alive()) or (front is not None and front.scripted)

    def _behaviour(self, step: Any) -> str | Behaviour | None:
        """Return what a step of a row's script means. Raises KeyError."""
        if step == "pass":
            return None
        if step == "silence":
            return silence
        if isinstance(step, str):
            return step
        if "error" in step:
            return error(step["error"], step.get("message", ""), step.get("status", 400))
        if "reply" in step:
            return reply(body=step["reply"])
        return self._proxy.altering(lambda answer: _merged(answer, step["alter"]))

    # What rows may have as given; each adds to the variables.

    def _provision(self, variables: dict[str, str], product: str = "s3-bucket", suffix: str = "") -> Any:
        name = variables["name"] + suffix
        parameters = [] if product == "always-fails" else [{"Key": "BucketName", "Value": name}]
        record = self._catalog.provision_product(
            ProductName=product,
            ProvisioningArtifactName="v1",
            ProvisionedProductName=name,
            ProvisioningParameters=parameters,
        )["RecordDetail"]
        variables |= {
            "record_id": record["RecordId"],
            "provisioned_product_id": record["ProvisionedProductId"],
            "product_id": record["ProductId"],
            "artifact_id": record["ProvisioningArtifactId"],
            "path_id": record["PathId"],
        }
        return record

    def _ended(self, variables: Mapping[str, str]) -> None:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up:
            record = self._catalog.describe_record(Id=variables["record_id"])["RecordDetail"]
            if record["Status"] in {"SUCCEEDED", "FAILED"}:
                return
            time.sleep(0.01)
        raise TimeoutError(variables["record_id"])

    def given_bucket_under_way(self, _: Row, variables: dict[str, str]) -> None:
        self._provision(variables)

    def given_failure_under_way(self, _: Row, variables: dict[str, str]) -> None:
        self._provision(variables, "always-fails")

    def given_bucket(self, _: Row, variables: dict[str, str]) -> None:
        self._provision(variables)
        self._ended(variables)

    def given_two_buckets(self, row: Row, variables: dict[str, str]) -> None:
        self._provision(variables, suffix="-other")
        self._ended(variables)
        self.given_bucket(row, variables)

    def given_catalog(self, _: Row, variables: dict[str, str]) -> None:
        described = self._catalog.describe_product(Name="s3-bucket")
        variables |= {
            "product_id": described["ProductViewSummary"]["ProductId"],
            "artifact_id": described["ProvisioningArtifacts"][0]["Id"],
            "other_artifact_id": described["ProvisioningArtifacts"][1]["Id"],
            "path_id": described["LaunchPaths"][0]["Id"],
        }

    def given_same_call(self, row: Row, variables: dict[str, str]) -> None:
        """Make the row's own call, by raw gRPC and with what it says, so that the client's is a repeat of it."""
        response = self._call(row, variables)
        variables["first_record_id"] = response["recordDetail"]["recordId"]

    def given_turn_taken(self, row: Row, variables: dict[str, str]) -> None:
        """Use up the turn of the façade with the slow pace, whether or not it has been used up before."""
        with suppress(grpc.RpcError):
            self._call(row, {**variables, "name": f"{variables['name']}-first"})
        with self._lock:
            self.sent_to_aws = []

    def _call(self, row: Row, variables: Mapping[str, str]) -> Any:
        method = METHODS[row.method]
        request = ParseDict(fill(row.request, variables), GetMessageClass(method.input_type)())
        with grpc.insecure_channel(self._facade(row.facade).address) as channel:
            call: Any = channel.unary_unary(f"/{row.full_method}")
            metadata = tuple(fill(row.metadata, variables).items())
            answer = call(request.SerializeToString(), timeout=_PATIENCE_SECONDS, metadata=metadata)
        return MessageToDict(GetMessageClass(method.output_type).FromString(answer))


Given = Callable[[World, Row, dict[str, str]], None]

GIVEN: Mapping[str, Given] = {
    "a bucket that is being provisioned": World.given_bucket_under_way,
    "a product that fails is being provisioned": World.given_failure_under_way,
    "a provisioned bucket": World.given_bucket,
    "two provisioned buckets": World.given_two_buckets,
    "the catalogue": World.given_catalog,
    "the same call was made before": World.given_same_call,
    "the façade's turn is taken": World.given_turn_taken,
}


def _merged(answer: Any, changes: Any) -> Any:
    if isinstance(answer, dict) and isinstance(changes, Mapping):
        return {**answer, **{key: _merged(answer.get(key), change) for key, change in changes.items()}}
    return changes


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
