"""deploy/istio and deploy/linkerd: what the meshes take, and treat calls by as deploy/envoy does."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from envoy import ROOT, deployed, routes
from manifests import Manifest, base_with, one, pod_of, settings_of
from servicecatalog_grpc.app import SERVICES
from servicecatalog_grpc.config import Settings
from tools import need

DEPLOY = ROOT / "deploy"

# Go modules that have the definitions of the meshes' objects among their files. Linkerd has none to be had.
DEFINITIONS = (
    ("istio.io/api@v1.28.0", "kubernetes/customresourcedefinitions.gen.yaml"),
    ("sigs.k8s.io/gateway-api@v1.4.0", "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml"),
)

STREAMS, READS, WRITES = "streams", "reads", "writes"
METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
OTHERS = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


def kind_of(path: str) -> str:
    """Return how a call of the method is to be treated."""
    method = METHODS.get(path)
    if method is None or method.server_streaming:
        return STREAMS
    tokens = {field.name for field in method.input_type.fields if field.name.endswith("_token")} - {"page_token"}
    return WRITES if tokens else READS


# What a route without any match matches.
ANYTHING = {"uri": {"prefix": "/"}}


def objects(path: str) -> list[Manifest]:
    return list(yaml.safe_load_all((DEPLOY / path).read_text()))


@cache
def schemas() -> dict[tuple[str, str], Any]:
    """Return the schema of each kind that the modules define, by its version, so that unknown fields are mistakes."""
    found = {}
    for module, name in DEFINITIONS:
        command = [need("go"), "mod", "download", "-json", module]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        answer = json.loads(done.stdout or "{}")
        if "Dir" not in answer:
            pytest.skip(f"{module} cannot be had: {answer.get('Error', done.stderr)}")
        for definition in yaml.safe_load_all((Path(answer["Dir"]) / name).read_text()):
            spec = definition["spec"]
            for version in spec["versions"]:
                key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                found[key] = _strict(version["schema"]["openAPIV3Schema"])
    return found


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    if "properties" in schema and schema.get("type") == "object":
        strict.setdefault("additionalProperties", False)
    return strict


FILES = [f"{mesh}/{name}.yaml" for mesh in ("istio", "linkerd") for name in ("access", "traffic")]


@pytest.mark.parametrize("name", FILES)
def test_the_objects_are_as_their_definitions_say(name: str) -> None:
    known = schemas()
    for each in objects(name):
        key = each["apiVersion"], each["kind"]
        if key[0].startswith("policy.linkerd.io/"):
            continue
        schema = known[key]
        # These two are Kubernetes' own.
        schema["properties"].update(apiVersion={"type": "string"}, kind={"type": "string"}, metadata={"type": "object"})
        jsonschema.validate(each, schema)


def test_istio_tells_reads_writes_and_streams_apart() -> None:
    http = one(objects("istio/traffic.yaml"), "VirtualService")["spec"]["http"]

    def matches(path: str, match: dict[str, Any]) -> bool:
        ((how, value),) = match["uri"].items()
        if how == "regex":
            return re.fullmatch(value, path) is not None
        return bool(path.startswith(value) if how == "prefix" else path == value)

    for path in (*METHODS, *OTHERS):
        route = next(each for each in http if any(matches(path, match) for match in each.get("match", [ANYTHING])))
        assert route["name"] == kind_of(path), path


def test_istio_retries_what_the_sidecar_retries() -> None:
    http = {each["name"]: each for each in one(objects("istio/traffic.yaml"), "VirtualService")["spec"]["http"]}
    reads, writes = (
        set(each["route"]["retry_policy"]["retry_on"].split(",")) for each in routes(deployed("sidecar"))[-2:]
    )
    assert set(http[READS]["retries"]["retryOn"].split(",")) == reads
    # Istio cannot look at headers.
    assert set(http[WRITES]["retries"]["retryOn"].split(",")) == writes - {"retriable-headers"}
    assert http[STREAMS]["retries"] == {"attempts": 0}
    assert http[STREAMS]["timeout"] == "0s"


def test_calls_without_a_deadline_get_the_facades_and_not_that_of_a_proxy() -> None:
    bounded = [each["route"] for each in routes(deployed("sidecar")) if "max_stream_duration" in each["route"]]
    times = [route["max_stream_duration"]["max_stream_duration"] for route in bounded]
    times += [route["timeout"] for route in one(objects("istio/traffic.yaml"), "VirtualService")["spec"]["http"][1:]]
    times += [
        route["metadata"]["annotations"]["timeout.linkerd.io/request"] for route in objects("linkerd/traffic.yaml")[:2]
    ]
    assert len(times) == 6
    assert all(Settings.default_deadline < float(each.removesuffix("s")) <= 60 for each in times)


def test_linkerd_tells_reads_writes_and_streams_apart() -> None:
    named: dict[str, str] = {}
    for route in objects("linkerd/traffic.yaml"):
        kind = route["metadata"]["name"].removeprefix("servicecatalog-grpc-")
        for path in _paths(route):
            assert path not in named
            named[path] = kind
    assert named == {path: kind_of(path) for path in (*METHODS, *OTHERS)}


def test_linkerd_retries_reads_alone() -> None:
    for route in objects("linkerd/traffic.yaml"):
        annotations = route["metadata"].get("annotations", {})
        kind = route["metadata"]["name"].removeprefix("servicecatalog-grpc-")
        assert any(name.startswith("retry.") for name in annotations) is (kind == READS)
        assert any(name.startswith("timeout.") for name in annotations) is (kind != STREAMS)


def test_linkerd_lets_every_method_in_that_there_is() -> None:
    inbound = [path for each in objects("linkerd/access.yaml") if each["kind"] == "GRPCRoute" for path in _paths(each)]
    assert sorted(inbound) == sorted((*METHODS, *OTHERS))


def _paths(route: Manifest) -> Iterator[str]:
    """Yield the path of each method that the route matches."""
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            service, method = match["method"]["service"], match["method"].get("method")
            yield from (
                path for path in (*METHODS, *OTHERS) if path.startswith(f"/{service}/") and path.endswith(method or "")
            )


@pytest.mark.parametrize("mesh", ["istio", "linkerd"])
def test_the_component_fits_the_base(mesh: str, tmp_path: Path) -> None:
    manifests = base_with([f"../../{mesh}"], tmp_path)
    assert settings_of(manifests)["SERVICECATALOG_GRPC_MAX_CONNECTION_AGE"] == "0"
    template = one(manifests, "Deployment")["spec"]["template"]["metadata"]
    assert any("inject" in name for name in (*template["labels"], *template["annotations"]))
    (port,) = [each["containerPort"] for each in pod_of(manifests)["containers"][0]["ports"] if each["name"] == "grpc"]
    services = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "Service"}
    for each in manifests:
        selector = each["spec"].get("selector") or each["spec"].get("podSelector") if "spec" in each else None
        if selector and "matchLabels" in selector:
            assert selector["matchLabels"].items() <= template["labels"].items()
        if each["kind"] == "GRPCRoute":
            for parent in each["spec"]["parentRefs"]:
                if parent["kind"] == "Service":
                    assert services[parent["name"]]["spec"]["ports"][0]["port"] == parent["port"]
        if each["kind"] == "Server":
            assert each["spec"]["port"] == "grpc"
        if each["kind"] == "VirtualService":
            assert set(each["spec"]["hosts"]) <= services.keys()
        if each["kind"] == "AuthorizationPolicy" and mesh == "istio":
            assert all(rule["to"][0]["operation"]["ports"] == [str(port)] for rule in each["spec"]["rules"])
