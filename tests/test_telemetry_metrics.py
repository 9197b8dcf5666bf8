"""The metrics, as Prometheus and a collector get them, and the dashboard and the alerts that are made from them."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import yaml
from calls import ANSWER, provision
from certificates import DAY, Authority
from facade import COMMAND, Facade, environment
from otlp import collector, wait_for
from prometheus_client.parser import text_string_to_metric_families
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream, error

ROOT = Path(__file__).parent.parent
OBSERVABILITY = ROOT / "deploy" / "observability"
SERVE = ("serve", "--listen", "127.0.0.1:0")
AUTHORITY = Authority()
METHOD = "servicecatalog.v1.ProvisioningService/ProvisionProduct"


def credentials_for(directory: Path, seconds: float) -> dict[str, str]:
    """Return the variables of a process whose AWS credentials expire."""
    expiration = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    keys = {"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "test", "Expiration": expiration}
    (directory / "keys.json").write_text(json.dumps(keys))
    config = directory / "config"
    config.write_text(f"[default]\ncredential_process = cat {directory}/keys.json\n")
    return {"AWS_CONFIG_FILE": str(config)}


@contextmanager
def served(upstream: Upstream, directory: Path) -> Iterator[Facade]:
    env = environment(upstream.url, **credentials_for(directory, 3600))
    del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    certificate, key = AUTHORITY.issue("127.0.0.1", ends=DAY).write(directory, "server")
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with Facade(*SERVE, "--metrics-listen", "127.0.0.1:0", *flags, env=env) as facade:
        yield facade


def make_calls(channel: grpc.Channel, upstream: Upstream) -> None:
    """Make one call each that goes well, that breaks a rule, that is throttled at first, and that AWS refuses."""
    with channel:
        stub = ProvisioningServiceStub(channel)
        upstream.behave(ANSWER)
        stub.ProvisionProduct(provision(provision_token="secret-token"))
        with pytest.raises(grpc.RpcError):
            stub.ProvisionProduct(provision(product_id=None))
        upstream.behave(error("ThrottlingException", "Rate exceeded"), ANSWER)
        stub.ProvisionProduct(provision(), metadata=(("idempotency-key", "secret-key"),))
        upstream.behave(error("ResourceNotFoundException", "secret-id does not exist"))
        with pytest.raises(grpc.RpcError):
            stub.ProvisionProduct(provision())


def scrape(facade: Facade) -> str:
    (url,) = (match[1] for line in facade.log if (match := re.search(r"metrics on (http://[^\s\"]+)", line)))
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
    return text


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with closing(Upstream()) as upstream, served(upstream, tmp_path_factory.mktemp("metrics")) as facade:
        credentials = grpc.ssl_channel_credentials(AUTHORITY.pem)
        make_calls(grpc.secure_channel(facade.address, credentials), upstream)
        wait_for(lambda: 'rpc_response_status_code="NOT_FOUND"' in scrape(facade))
        yield scrape(facade)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    (found,) = (
        number
        for (each, having), number in samples(text).items()
        if each == name and frozenset(labels.items()) <= having
    )
    return found


def test_every_call_and_every_attempt_is_counted(exported: str) -> None:
    calls = "rpc_server_call_duration_seconds_count"
    assert value(exported, calls, rpc_method=METHOD, rpc_response_status_code="OK") == 2
    assert value(exported, calls, rpc_method=METHOD, rpc_response_status_code="INVALID_ARGUMENT") == 1
    assert value(exported, calls, rpc_method=METHOD, rpc_response_status_code="NOT_FOUND") == 1
    attempts, operation = "rpc_client_call_duration_seconds_count", "ServiceCatalog/ProvisionProduct"
    assert value(exported, attempts, rpc_method=operation, error_type="") == 2
    assert value(exported, attempts, rpc_method=operation, error_type="ThrottlingException") == 1
    assert value(exported, attempts, rpc_method=operation, error_type="ResourceNotFoundException") == 1
    assert value(exported, "servicecatalog_grpc_aws_throttles_total", rpc_method=operation) == 1
    assert value(exported, "servicecatalog_grpc_refusals_total", servicecatalog_error_reason="INVALID_REQUEST") == 1
    tokens = "servicecatalog_grpc_tokens_total"
    sources = {"request": 1, "idempotency-key": 1, "random": 1}
    assert {each: value(exported, tokens, servicecatalog_token_source=each) for each in sources} == sources
    for name in ("in_flight", "waiting"):
        for kind in ("write", "read"):
            assert value(exported, f"servicecatalog_grpc_calls_{name}", servicecatalog_grpc_class=kind) == 0
    assert 3500 < value(exported, "servicecatalog_grpc_credentials_expiry_seconds") <= 3600
    day = DAY.total_seconds()
    assert day - 100 < value(exported, "servicecatalog_grpc_certificate_expiry_seconds") <= day


def test_no_label_has_an_id_or_anything_of_a_caller(exported: str) -> None:
    allowed = {
        "rpc_system_name",
        "rpc_method",
        "rpc_response_status_code",
        "error_type",
        "servicecatalog_grpc_class",
        "servicecatalog_error_reason",
        "servicecatalog_token_source",
        "le",
    }
    labels = {name for (metric, having) in samples(exported) if metric != "target_info" for name, _ in having}
    assert labels == allowed
    assert "secret" not in exported


def expressions() -> list[str]:
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    alerts = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [each["query"]["query"] for each in dashboard["templating"]["list"] if isinstance(each["query"], dict)]
    rules = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    return panels + variables + rules


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_and_the_alerts_are_made_from_what_is_exported(exported: str, expression: str) -> None:
    names = {name for name, _ in samples(exported)}
    labels = {name for _, having in samples(exported) for name, _ in having} | {"job"}
    without_labels = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\"[^\"]*\"", "", expression)
    used = set(re.findall(r"\b(?:rpc|servicecatalog_grpc)_\w+", without_labels))
    assert used
    assert used <= names
    matched = re.findall(r"(\w+)(?:=~|!=|=)\"", expression)
    grouped = [name.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for name in group.split(",")]
    assert {*matched, *grouped} <= labels


def test_all_that_is_exported_is_on_the_dashboard(exported: str) -> None:
    shown = " ".join(expressions())
    families = {family.name for family in text_string_to_metric_families(exported)} - {"target_info", "target"}
    assert [name for name in families if name not in shown] == []


def test_a_port_in_use_is_told_in_one_line() -> None:
    with closing(Upstream()) as upstream:
        ended = subprocess.run(
            [COMMAND, *SERVE, "--metrics-listen", f"127.0.0.1:{upstream.port}", "--log-level", "warning"],
            env=environment(upstream.url),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr
        == f"servicecatalog-grpc: cannot serve metrics on 127.0.0.1:{upstream.port}: Address already in use\n"
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "pigeon"}, "$OTEL_TRACES_EXPORTER: no exporter of this name is installed: 'pigeon'"),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
            "$OTEL_EXPORTER_OTLP_PROTOCOL: must be one of grpc, http/protobuf, is 'smoke'",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
            "$OTEL_TRACES_EXPORTER: otlp_proto_grpc",
        ),
    ],
)
def test_a_variable_that_cannot_be_used_is_a_usage_error(variables: dict[str, str], said: str) -> None:
    ended = subprocess.run(
        [COMMAND, *SERVE], env=environment(**variables), capture_output=True, text=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"servicecatalog-grpc: {said}")
    assert ended.stderr.count("\n") == 1


def test_the_collector_gets_the_metrics_with_exemplars_that_name_traces(tmp_path: Path) -> None:
    with closing(Upstream()) as upstream, collector(tmp_path) as received:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        with Facade(*SERVE, env=environment(upstream.url, **variables)) as facade:
            make_calls(grpc.insecure_channel(facade.address), upstream)
            assert facade.stop() == 0
        metrics = received.metrics()
        traces = {span.trace for span in received.spans()}
    for name in ("rpc.server.call.duration", "rpc.client.call.duration"):
        exemplars = [each for point in metrics[name]["histogram"]["dataPoints"] for each in point["exemplars"]]
        assert {each["traceId"] for each in exemplars} <= traces
        assert exemplars
    assert metrics["rpc.server.call.duration"]["unit"] == "s"
    assert len(traces) == 4
