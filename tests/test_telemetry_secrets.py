"""What callers entrust to the server is in no span, log, metric or error, at whichever level it logs."""

import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import ANSWER, properties, provision, update
from facade import Facade, environment
from google.protobuf.message import Message
from otlp import collector
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Behaviour, Upstream, after, error, raw, reply

CANARY = "cAnArY-5e3c2e7"
TOKEN = "token-entrusted-to-us"

PARAMETERS = [{"key": "Password", "value": CANARY}]
TAGS = [{"key": f"name-{CANARY}", "value": CANARY}]
REQUESTS = (
    provision(provisioning_parameters=PARAMETERS, tags=TAGS, provision_token=TOKEN),
    update(provisioning_parameters=PARAMETERS, tags=TAGS, update_token=TOKEN),
    properties(
        provisioned_product_properties={"LAUNCH_ROLE": f"arn:aws:iam::123456789012:role/{CANARY}"},
        idempotency_token=TOKEN,
    ),
)
BAD_REQUESTS = (
    provision(provisioning_parameters=[{"value": CANARY}], tags=[{"key": f"aws:{CANARY}", "value": CANARY * 50}]),
    update(provisioning_parameters=[{"key": "Password", "value": CANARY * 1000}], tags=TAGS),
    properties(provisioned_product_properties={"OWNER": CANARY, "LAUNCH_ROLE": CANARY}),
)
# AWS may quote what it was sent. Its message is for the caller, and for nobody else.
QUOTES = (
    error("InvalidParametersException", f"{CANARY} is not a password"),
    error("NewException", CANARY),
    reply(503, CANARY.encode()),
    reply(200, f"{{{CANARY}".encode()),
    raw(f"{CANARY}\r\n\r\n".encode()),
)


@pytest.mark.parametrize("level", ["debug", "error"])
def test_a_canary_gets_no_further_than_to_aws(tmp_path: Path, level: str) -> None:
    errors: list[str] = []
    with closing(Upstream()) as upstream, collector(tmp_path) as received:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
            "OTEL_LOGS_EXPORTER": "otlp,console",
            "OTEL_TRACES_EXPORTER": "otlp,console",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={CANARY}",
        }
        flags = ("--log-level", level, "--max-attempts", "1", "--metrics-listen", "127.0.0.1:0")
        env = environment(upstream.url, **variables)
        env["OTEL_EXPORTER_PROMETHEUS_HOST"] = "127.0.0.1"
        with (
            Facade("serve", "--listen", "127.0.0.1:0", *flags, env=env) as facade,
            grpc.insecure_channel(facade.address) as channel,
        ):
            for request in REQUESTS:
                assert CANARY.encode() in request.SerializeToString()
                make(channel, upstream, request, ANSWER)
                make(channel, upstream, request, after(0.4, ANSWER), timeout=0.2)
                make(channel, upstream, request, after(0.3, ANSWER), cancel_after=0.1)
                for quote in QUOTES:
                    make(channel, upstream, request, quote)
            errors += [make(channel, upstream, request, ANSWER) for request in BAD_REQUESTS]
            shown = "".join(
                urllib.request.urlopen(line.split("metrics on ")[1].split('"')[0], timeout=5).read().decode()
                for line in facade.log
                if "metrics on " in line
            )
            assert facade.stop() == 0
        told = {
            "collector": received.path.read_text(),
            "stderr": "".join(facade.log),
            "stdout": "".join(facade.output),
            "metrics": shown,
            "errors": "".join(errors),
        }
        assert len(received.spans()) == len(REQUESTS) * (3 + len(QUOTES)) * 2 + len(BAD_REQUESTS)
    assert [where for where, text in told.items() if CANARY in text] == []
    assert [where for where, text in told.items() if TOKEN in text] == []
    assert all("INVALID_REQUEST" in each for each in errors)


def make(
    channel: grpc.Channel,
    upstream: Upstream,
    request: Message,
    behaviour: Behaviour,
    *,
    timeout: float = 10,
    cancel_after: float = 0,
) -> str:
    """Make the call and return all that its caller sees if it fails."""
    upstream.behave(behaviour)
    method = getattr(ProvisioningServiceStub(channel), request.DESCRIPTOR.name.removesuffix("Request"))
    call: Any = method.future(request, timeout=timeout)
    if cancel_after:
        time.sleep(cancel_after)
        call.cancel()
    return f"{call.code()} {call.details()} {call.initial_metadata()} {call.trailing_metadata()}"
