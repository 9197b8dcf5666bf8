"""Takes whatever is exported to it over OTLP and looks at none of it; ends with its standard input."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


def main() -> None:
    """Serve on a free port and print the address."""
    swallow: Any = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    server = grpc.server(ThreadPoolExecutor(2))
    for kind, service in (("trace", "TraceService"), ("metrics", "MetricsService"), ("logs", "LogsService")):
        name = f"opentelemetry.proto.collector.{kind}.v1.{service}"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": swallow}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever has started it ends it, on Ctrl-C too
    print(f"OTLP on 127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
