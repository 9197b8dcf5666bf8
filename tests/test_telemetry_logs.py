"""What the log says: one line per call, for programs and for people, and the settings without their secrets."""

import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import provision
from facade import COMMAND, Facade, environment
from otlp import collector, wait_for
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from servicecatalog_grpc.telemetry.call import token_digest
from upstream import REQUEST_ID, Upstream, after, error, reply

METHOD = "servicecatalog.v1.ProvisioningService/ProvisionProduct"
SERVE = ("serve", "--listen", "127.0.0.1:0")
RECORD = reply(body={"RecordDetail": {"RecordId": "rec-1", "ProvisionedProductId": "pp-1"}})


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """In the place of AWS, for this module alone."""
    with closing(Upstream()) as server:
        yield server


def access_lines(facade: Facade, count: int) -> list[dict[str, Any]]:
    """Wait for so many access lines, and return them."""

    def found() -> list[str]:
        return [line for line in facade.log if '"servicecatalog_grpc.access"' in line]

    wait_for(lambda: len(found()) >= count)
    return [json.loads(line) for line in found()]


@pytest.mark.parametrize(
    "name",
    ["SERVICECATALOG_GRPC_\udcff", 'SERVICECATALOG_GRPC_"\n\\', "SERVICECATALOG_GRPC_é世\x01"],
    ids=["not Unicode", "quotes", "beyond ASCII"],
)
def test_a_line_is_json_whatever_is_in_it(upstream: Upstream, name: str) -> None:
    with Facade(*SERVE, env=environment(upstream.url, **{name: "1"})) as facade:
        assert facade.stop() == 0
    (line,) = [line for line in facade.log if "is not a setting" in line]
    assert json.loads(line)["message"].startswith(f"{name} is not a setting")


def test_each_call_has_one_line_that_answers_questions(upstream: Upstream) -> None:
    trace = "1" * 32
    with (
        Facade(*SERVE, env=environment(upstream.url)) as facade,
        grpc.insecure_channel(facade.address) as channel,
    ):
        stub = ProvisioningServiceStub(channel)
        upstream.behave(RECORD)
        stub.ProvisionProduct(
            provision(provision_token="mine"), metadata=(("traceparent", f"00-{trace}-00000000000000aa-01"),)
        )
        upstream.behave(error("ThrottlingException"), error("ResourceNotFoundException", "no such product"))
        with pytest.raises(grpc.RpcError):
            stub.ProvisionProduct(provision())
        with pytest.raises(grpc.RpcError):
            stub.ProvisionProduct(provision(product_id=None))
        upstream.behave(after(1, RECORD))
        with pytest.raises(grpc.RpcError):
            stub.ProvisionProduct(provision(), timeout=0.3)
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/nobody.Knows/This")(b"")  # type: ignore[arg-type]  # bytes go as they are
        good, refused, invalid, late, unknown = access_lines(facade, 5)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", good["time"])
    assert 0 < good["duration_ms"] < 5000
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", good["peer"])
    expected = {
        "level": "INFO",
        "method": METHOD,
        "status": "OK",
        "caller": "anonymous",
        "attempts": 1,
        "aws_request_id": REQUEST_ID,
        "record_id": "rec-1",
        "provisioned_product_id": "pp-1",
        "token_digest": token_digest("mine"),
        "token_source": "request",
        "trace_id": trace,
    }
    assert {name: good.get(name) for name in expected} == expected
    assert "reason" not in good

    def short(line: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line.get(name) for name in ("level", "status", "reason", "attempts"))

    assert short(refused) == ("INFO", "NOT_FOUND", "RESOURCE_NOT_FOUND", 2)
    assert refused["aws_request_id"] == REQUEST_ID
    assert short(invalid) == ("INFO", "INVALID_ARGUMENT", "INVALID_REQUEST", None)
    assert short(late) == ("WARNING", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 1)
    assert short(unknown) == ("WARNING", "UNIMPLEMENTED", None, None)
    assert unknown["method"] == "nobody.Knows/This"


def test_every_line_is_json_where_nobody_reads_along(upstream: Upstream) -> None:
    with Facade(*SERVE, "--log-level", "debug", env=environment(upstream.url)) as facade:
        assert facade.stop() == 0
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(json.loads(line)) for line in facade.log))


def test_it_is_readable_on_a_terminal(upstream: Upstream) -> None:
    upstream.behave(RECORD)
    ours, its = pty.openpty()
    process = subprocess.Popen([COMMAND, *SERVE], env=environment(upstream.url), stdout=its, stderr=its)
    os.close(its)
    seen = ""
    try:
        end = time.monotonic() + 20
        while "ready" not in seen or "\n" not in seen.partition("ready")[2]:
            assert time.monotonic() < end
            seen += os.read(ours, 4096).decode()
        address = re.search(r"gRPC on (\S+)", seen)
        assert address
        with grpc.insecure_channel(address[1]) as channel:
            ProvisioningServiceStub(channel).ProvisionProduct(provision())
    finally:
        process.terminate()
    with suppress(OSError):  # a terminal whose last program has gone ends with an error
        while more := os.read(ours, 4096):
            seen += more.decode()
    os.close(ours)
    assert process.wait(20) == 0
    assert re.search(rf"(?m)^[-\d]+ [:,\d]+ INFO servicecatalog_grpc\.access: {METHOD} OK .* record_id=rec-1", seen)
    assert "{" not in seen


def test_the_settings_are_told_and_their_secrets_are_not(upstream: Upstream) -> None:
    variables = {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:secret@collector.example:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
        "AWS_SESSION_TOKEN": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    with Facade(*SERVE, "--grace", "7", env=environment(upstream.url, **variables)) as facade:
        assert facade.stop() == 0
    (line,) = (json.loads(line) for line in facade.log if '"message":"settings"' in line)
    expected = {
        "grace": "7.0",
        "max_writes": "32",
        "AWS_REGION": "us-east-1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://***@collector.example:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "***",
    }
    assert {name: line.get(name) for name in expected} == expected
    assert "secret" not in "".join(facade.log)


def test_the_collector_gets_the_log_where_it_is_wanted(upstream: Upstream, tmp_path: Path) -> None:
    upstream.behave(RECORD)
    with collector(tmp_path) as received:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint, "OTEL_LOGS_EXPORTER": "otlp"}
        with (
            Facade(*SERVE, env=environment(upstream.url, **variables)) as facade,
            grpc.insecure_channel(facade.address) as channel,
        ):
            ProvisioningServiceStub(channel).ProvisionProduct(provision())
            access_lines(facade, 1)
            assert facade.stop() == 0
        (server,) = [span for span in received.spans() if span.kind == "SERVER"]
        (record,) = [each for each in received.logs() if each["body"]["stringValue"].startswith(METHOD)]
    assert record["severityText"] == "INFO"
    assert record["severityNumber"] == 9
    assert (record["traceId"], record["spanId"]) == (server.trace, server.id)


def test_without_variables_nothing_of_the_sdk_is_imported() -> None:
    with Facade(*SERVE, env=environment(PYTHONPROFILEIMPORTTIME="1")) as facade:
        assert facade.stop() == 0
    imported = {line.rpartition("|")[2].strip() for line in facade.log if line.startswith("import time:")}
    assert "servicecatalog_grpc.telemetry.setup" in imported
    heavy = re.compile(r"(opentelemetry\.(sdk|exporter|proto)|prometheus_client|requests)\b")
    assert [name for name in imported if heavy.match(name)] == []
