"""A soak of mixed faults: `make soak` runs it for ten minutes, `make soak ARGS=120` for two.

A façade with its default settings gets calls from sixteen callers, some of which give up or hang up, while its upstream
answers, errs, stalls, trickles and breaks connections at random. Every ten seconds a line says how the process fares; at
the end its memory must be within 5% of what it was after the first minute, and its threads must be few and its sockets
back.
"""

import random
import socket
import sys
import threading
import time
from collections import Counter

import grpc
from facade import Facade, environment
from process import Health
from servicecatalog.v1 import provisioning_service_pb2 as pb
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Behaviour, Request, Upstream, abort, after, error, hang_up, raw, reply, silence, trickle, truncated

CALLERS = 16
PAUSE_SECONDS = 0.02
REPORT_SECONDS = 10
SETTLE_SECONDS = 60
MAX_GROWTH = 0.05
# A caller that gives up leaves its thread at work until the deadline, and may have called again by then.
MAX_THREADS = 2 * CALLERS + 10

OK = {"RecordDetail": {"RecordId": "rec-1", "Status": "CREATED", "CreatedTime": 1700000000.5}}
BEHAVIOURS: list[tuple[int, Behaviour]] = [
    (60, reply(body=OK)),
    (10, after(0.2, reply(body=OK))),
    (4, hang_up),
    (4, abort),
    (4, error("InternalFailure", "", 500)),
    (4, reply(503, b"<html>no healthy upstream</html>")),
    (4, error("ThrottlingException", "Rate exceeded")),
    (4, error("InvalidParametersException", "Parameters: [A] must have values")),
    (4, truncated(OK, 20)),
    (4, raw(b"this is not HTTP\r\n\r\n")),
    (1, silence),
    (1, trickle),
]


def main(seconds: float) -> int:
    """Soak for so long and return the exit status: 0 if the process is as it was."""
    upstream = Upstream()
    weights, behaviours = zip(*((weight, behaviour) for weight, behaviour in BEHAVIOURS), strict=True)
    generator = random.Random(1)

    def misbehave(connection: socket.socket, request: Request) -> None:
        behaviour: Behaviour = generator.choices(behaviours, weights)[0]
        behaviour(connection, request)

    upstream.behave(misbehave)
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with Facade("serve", "--listen", "127.0.0.1:0", env=environment(upstream.url)) as facade:
        callers = [
            threading.Thread(target=_call, args=(facade.address, seed, end, outcomes)) for seed in range(CALLERS)
        ]
        for caller in callers:
            caller.start()
        settled = _watch(facade.process.pid, end, outcomes, upstream)
        for caller in callers:
            caller.join()
        time.sleep(12)  # longer than any deadline of the callers
        final = Health.of(facade.process.pid)
        print("final", final, dict(outcomes), flush=True)
        log = [line for line in facade.log if "fault of this server" in line or "Traceback" in line]
    growth = final.kibibytes / settled.kibibytes - 1
    print(f"memory {growth:+.1%} since the first minute, {final.threads} threads, faults {len(log)}")
    return int(growth > MAX_GROWTH or final.threads > MAX_THREADS or final.sockets > settled.sockets or bool(log))


def _watch(pid: int, end: float, outcomes: Counter[str], upstream: Upstream) -> Health:
    """Report until the end; return the health after the first minute, or half-way through a shorter soak."""
    settle = time.monotonic() + min(SETTLE_SECONDS, (end - time.monotonic()) / 2)
    settled = None
    while time.monotonic() < end:
        time.sleep(REPORT_SECONDS)
        health = Health.of(pid)
        upstream.requests.clear()
        if settled is None and time.monotonic() > settle:
            settled = health
        print(f"{end - time.monotonic():5.0f} s left", health, sum(outcomes.values()), "calls", flush=True)
    return settled or health


def _call(address: str, seed: int, end: float, outcomes: Counter[str]) -> None:
    generator = random.Random(seed)
    with grpc.insecure_channel(address) as channel:
        stub = ProvisioningServiceStub(channel)
        while time.monotonic() < end:
            request = pb.ProvisionProductRequest(
                product_id="prod-1", provisioning_artifact_id="pa-1", provisioned_product_name="soak"
            )
            request.provisioning_parameters.add(key="Size", value="x" * generator.randrange(4096))
            call = stub.ProvisionProduct.future(request, timeout=generator.choice([0.05, 0.5, 2, 10]))
            if generator.random() < 0.05:
                time.sleep(0.01)
                call.cancel()
            try:
                call.result()
                outcomes["OK"] += 1
            except grpc.RpcError as failure:
                outcomes[failure.code().name] += 1
            except grpc.FutureCancelledError:
                outcomes["cancelled"] += 1
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600))
