"""deploy/kubernetes: what kustomize makes of it is what Kubernetes takes, fits the server, and lets it serve."""

import argparse
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
from calls import ANSWER, provision
from certificates import Authority
from facade import COMMAND, Facade, environment
from grpc_health.v1 import health_pb2, health_pb2_grpc
from manifests import KUBERNETES, Manifest, base_with, build, container_of, mounted, one, pod_of, settings_of
from otlp import free_port
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.config import ENVIRONMENT_PREFIX, Settings, add_flags, read_settings, split_address
from servicecatalog_grpc.policy.loading import load_policy
from status import Details
from upstream import Upstream

# The first that knows `sleep` in preStop, and the last whose schemas are here.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
HOME = "/etc/servicecatalog-grpc"
ORDERS = "spiffe://example.org/ns/shop/sa/orders"


@pytest.fixture(scope="module", params=["base", "example"])
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(KUBERNETES / request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_each_object_and_knows_all_of_its_fields(manifests: list[Manifest], version: str) -> None:
    for each in manifests:
        kubernetes_validate.validate(each, version, strict=True)


def settings_in(manifests: list[Manifest]) -> Settings:
    """Return the settings as the server reads them, from variables alone."""
    parser = argparse.ArgumentParser()
    add_flags(parser, Settings)
    return read_settings(Settings, parser.parse_args([]), settings_of(manifests))


def test_each_setting_is_one_of_the_servers_and_each_file_that_it_names_is_mounted(manifests: list[Manifest]) -> None:
    known = {ENVIRONMENT_PREFIX + each.name.upper() for each in fields(Settings)}
    given = settings_of(manifests)
    assert {name for name in given if name.startswith(ENVIRONMENT_PREFIX)} <= known
    settings_in(manifests)
    files = mounted(manifests, dict.fromkeys(("tls.crt", "tls.key", "ca.crt"), ""))
    assert {value for value in given.values() if value.startswith("/")} == files.keys()


def test_files_that_are_followed_are_mounted_so_that_they_change(manifests: list[Manifest]) -> None:
    for mount in container_of(manifests)["volumeMounts"]:
        assert mount["readOnly"]
        assert "subPath" not in mount


def test_the_policies_have_no_mistakes(manifests: list[Manifest], tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(mounted(manifests, {})[f"{HOME}/policy/policy.yaml"])
    load_policy(path)


def test_ports_are_those_that_the_server_listens_on(manifests: list[Manifest]) -> None:
    settings = settings_in(manifests)
    listening = {"grpc": split_address(settings.listen)[1], "metrics": split_address(settings.metrics_listen)[1]}
    assert {each["name"]: each["containerPort"] for each in container_of(manifests)["ports"]} == listening
    for service in (each for each in manifests if each["kind"] == "Service"):
        assert [(each["port"], each["targetPort"]) for each in service["spec"]["ports"]] == [(50051, "grpc")]
    rules = one(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert [each["ports"] for each in rules] == [[{"port": "grpc"}], [{"port": "metrics"}]]


def test_a_pod_has_the_time_to_drain(manifests: list[Manifest]) -> None:
    settings = settings_in(manifests)
    assert settings.grace > settings.default_deadline
    sleep = container_of(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    last_telemetry = 2
    assert pod_of(manifests)["terminationGracePeriodSeconds"] > sleep + settings.grace + last_telemetry


def test_no_rollout_and_no_drain_of_nodes_takes_the_last_pod(manifests: list[Manifest]) -> None:
    deployment = one(manifests, "Deployment")["spec"]
    assert "replicas" not in deployment
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert one(manifests, "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2


def test_every_selector_finds_the_pods(manifests: list[Manifest]) -> None:
    deployment = one(manifests, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"],
        one(manifests, "PodDisruptionBudget")["spec"]["selector"],
        one(manifests, "NetworkPolicy")["spec"]["podSelector"],
        *(each["labelSelector"] for each in pod_of(manifests)["topologySpreadConstraints"]),
        *({"matchLabels": each["spec"]["selector"]} for each in manifests if each["kind"] == "Service"),
    ]
    assert len(selectors) == 7
    for selector in selectors:
        assert selector == {"matchLabels": labels}


def test_the_pods_may_do_nothing_that_they_need_not(manifests: list[Manifest]) -> None:
    """They fit https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and write nothing."""
    pod, container = pod_of(manifests), container_of(manifests)
    assert pod["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": 65532}.items()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert {kind for volume in pod["volumes"] for kind in volume} <= {"name", "configMap", "secret"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    account = one(manifests, "ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False


def test_callers_without_a_mesh_find_every_pod(manifests: list[Manifest]) -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "Service"}
    assert services["servicecatalog-grpc-headless"]["clusterIP"] == "None"
    assert "clusterIP" not in services["servicecatalog-grpc"]


def test_the_image_of_the_example_is_one_that_nobody_can_move() -> None:
    assert "@sha256:" in container_of(build(KUBERNETES / "example"))["image"]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@contextmanager
def running(
    manifests: list[Manifest], upstream: Upstream, directory: Path, authority: Authority, **variables: str
) -> Iterator[tuple[Facade, dict[str, str]]]:
    """Serve as a pod does: with its variables and its files, which lie in the directory. Gives its variables, too."""
    chain, key = authority.issue("servicecatalog-grpc")
    secret = {"tls.crt": chain.decode(), "tls.key": key.decode(), "ca.crt": authority.pem.decode()}
    for name, text in mounted(manifests, secret).items():
        path = directory / name.removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    settings = {name: value.replace(HOME, f"{directory}{HOME}") for name, value in settings_of(manifests).items()}
    settings[f"{ENVIRONMENT_PREFIX}LISTEN"] = f"127.0.0.1:{free_port()}"
    settings[f"{ENVIRONMENT_PREFIX}METRICS_LISTEN"] = "127.0.0.1:0"
    env = environment(upstream.url, **settings, **variables)
    with Facade("serve", env=env) as facade:
        yield facade, env


def answers(manifests: list[Manifest], facade: Facade, env: Mapping[str, str]) -> list[str]:
    """Return what the kubelet gets to hear from its probes."""
    return [_answer(container_of(manifests)[probe], facade, env) for probe in PROBES]


def _answer(probe: Mapping[str, Any], facade: Facade, env: Mapping[str, str]) -> str:
    """Ask by gRPC, which the kubelet does without TLS, or by a command in the container."""
    timeout = probe.get("timeoutSeconds", 1)
    if "exec" in probe:
        program, *arguments = probe["exec"]["command"]
        assert program == COMMAND.name
        command = [COMMAND, *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=timeout)
        return done.stdout.strip() or done.stderr
    with grpc.insecure_channel(facade.address) as channel:
        request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(check(request, timeout=timeout).status))


@pytest.fixture(params=[[], ["mtls"]], ids=["plaintext", "mtls"])
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> list[Manifest]:
    return base_with(request.param, tmp_path)


def test_a_pod_is_ready(variant: list[Manifest], authority: Authority, tmp_path: Path) -> None:
    with closing(Upstream()) as upstream, running(variant, upstream, tmp_path, authority) as (facade, env):
        assert answers(variant, facade, env) == ["SERVING", "SERVING", "SERVING"]


def test_a_pod_without_aws_credentials_lives_and_is_not_ready(
    variant: list[Manifest], authority: Authority, tmp_path: Path
) -> None:
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    with closing(Upstream()) as upstream, running(variant, upstream, tmp_path, authority, **nothing) as (facade, env):
        assert answers(variant, facade, env) == ["SERVING", "SERVING", "NOT_SERVING"]


def test_with_the_mtls_component_a_caller_of_the_policy_is_served(authority: Authority, tmp_path: Path) -> None:
    manifests = base_with(["mtls"], tmp_path)
    with closing(Upstream()) as upstream, running(manifests, upstream, tmp_path, authority) as (facade, _):
        upstream.behave(ANSWER)
        chain, key = authority.issue(ORDERS)
        credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
        options = (("grpc.ssl_target_name_override", "servicecatalog-grpc"),)
        with grpc.secure_channel(facade.address, credentials, options) as channel:
            request = provision(product_id=None, product_name="s3-bucket", provisioned_product_name="orders-1")
            assert ProvisioningServiceStub(channel).ProvisionProduct(request).record_detail.record_id == "rec-1"


def test_without_it_nobody_proves_who_calls_and_nobody_is_served(authority: Authority, tmp_path: Path) -> None:
    with (
        closing(Upstream()) as upstream,
        running(build(KUBERNETES / "base"), upstream, tmp_path, authority) as (facade, _),
        grpc.insecure_channel(facade.address) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        ProvisioningServiceStub(channel).ProvisionProduct(provision())
    assert Details(raised.value).info.reason == "CALLER_NOT_ALLOWED"
