"""The command line: `serve`, `sandbox`, `health` and `policy check`."""

import argparse
import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from servicecatalog_grpc.config import (
    ENVIRONMENT_PREFIX,
    HealthSettings,
    SandboxSettings,
    Settings,
    SettingsError,
    StartError,
    add_flags,
    read_settings,
    split_address,
)

_PROGRAM = "servicecatalog-grpc"
_OK, _FAILED, _USAGE = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 if it could not start, 2 for a usage error."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # gRPC's C core writes lines of its own to stderr, about a port in use for instance, which is said better here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return int(options.run(options))
    except SettingsError as error:
        return _complain(error, _USAGE)
    except KeyboardInterrupt:
        return _OK  # during the start; from then on the signal is a request to drain


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, description="A gRPC façade over AWS Service Catalog.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version(_PROGRAM)}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="serve gRPC in front of AWS",
        description="Serve gRPC in front of AWS. Credentials, region and endpoint come from AWS's standard chain and "
        "variables: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL_SERVICE_CATALOG and so on.",
        allow_abbrev=False,
    )
    add_flags(serve, Settings)
    serve.set_defaults(run=_serve)

    sandbox = commands.add_parser(
        "sandbox",
        help="serve gRPC in front of an embedded AWS with example products",
        description="Serve gRPC in front of an embedded AWS, which holds example products and speaks AWS's own "
        "protocols: the AWS CLI and any SDK can talk to it too. It keeps nothing when it stops.",
        allow_abbrev=False,
    )
    add_flags(sandbox, SandboxSettings)
    sandbox.set_defaults(run=_sandbox)

    health = commands.add_parser(
        "health",
        help="ask a running server whether it serves",
        description="Ask a running server by the gRPC health protocol. Exits 0 if it serves, 1 if not.",
        allow_abbrev=False,
    )
    add_flags(health, HealthSettings)
    health.set_defaults(run=_health)

    policy = commands.add_parser("policy", help="see what a policy decides", allow_abbrev=False)
    check = policy.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check",
        help="explain what a policy decides on a call, or see that it has no mistakes",
        description="Explain what a policy decides on a call. Exits 0 if it allows the call, 1 if not. Without --identity "
        "and --method, only see that the policy has no mistakes. Of a call that gives a provisioned product by its id, or "
        "asks for a record, give the names that these have at AWS.",
        allow_abbrev=False,
    )
    check.add_argument("--policy", required=True, metavar="FILE", help="the policy, in YAML")
    check.add_argument("--identity", help="who calls: a SPIFFE ID, a DNS name or anonymous")
    check.add_argument("--method", help="the RPC, such as ProvisionProduct")
    check.add_argument("--product-name", metavar="NAME", help="the product, if the call gives it by name")
    check.add_argument("--product-id", metavar="ID", help="the product, if the call gives it by id")
    check.add_argument("--provisioned-product-name", metavar="NAME", help="the provisioned product")
    check.set_defaults(run=_check_policy)
    return parser


def _serve(options: argparse.Namespace) -> int:
    settings = read_settings(Settings, options)
    _start_logging(settings)
    return _run(settings, lambda address: print(f"ready: gRPC on {address}", flush=True))


def _sandbox(options: argparse.Namespace) -> int:
    settings = read_settings(SandboxSettings, options)
    _start_logging(settings)
    if importlib.util.find_spec("moto") is None:
        return _complain("the sandbox is not installed: pip install 'servicecatalog-grpc[sandbox]'", _FAILED)
    from servicecatalog_grpc.sandbox import Sandbox
    from servicecatalog_grpc.sandbox.environment import enter_sandbox, leave_own_settings, welcome

    host, port = split_address(settings.aws_listen)
    sandbox = Sandbox(host, port, record_seconds=settings.record_seconds)

    def greet(address: str) -> None:
        text = welcome(
            address, sandbox.url, python=os.path.relpath(sys.executable), record_seconds=settings.record_seconds
        )
        print(text, flush=True)

    leave_own_settings(os.environ)
    try:
        sandbox.start()
        enter_sandbox(os.environ, sandbox.url)
    except OSError as error:
        return _complain(f"--aws-listen: cannot listen on {settings.aws_listen}: {error.strerror or error}", _FAILED)
    try:
        return _run(settings, greet)
    finally:
        sandbox.stop()


def _run(settings: Settings, on_ready: Callable[[str], None]) -> int:
    from servicecatalog_grpc import app
    from servicecatalog_grpc.event_loop import EventLoop

    try:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(app.serve(settings, on_ready))
    except StartError as error:
        return _complain(error, _FAILED)
    return _OK


def _health(options: argparse.Namespace) -> int:
    import grpc

    from servicecatalog_grpc.health import SERVING, ask, reachable

    settings = read_settings(HealthSettings, options)
    address = settings.address or reachable(os.environ.get(f"{ENVIRONMENT_PREFIX}LISTEN") or Settings.listen)
    try:
        status = ask(address, settings)
    except grpc.RpcError as error:
        return _complain(f"{address}: {error.code().name}", _FAILED)
    print(status)
    return _OK if status == SERVING else _FAILED


def _check_policy(options: argparse.Namespace) -> int:
    from servicecatalog_grpc.caller import ANONYMOUS
    from servicecatalog_grpc.policy.documents import DocumentError
    from servicecatalog_grpc.policy.explaining import explain
    from servicecatalog_grpc.policy.loading import load_policy
    from servicecatalog_grpc.policy.targets import METHODS, Facet, facets_of

    given = {
        Facet.PRODUCT_NAME: options.product_name,
        Facet.PRODUCT_ID: options.product_id,
        Facet.PROVISIONED_PRODUCT_NAME: options.provisioned_product_name,
    }
    named = {facet: name for facet, name in given.items() if name}
    try:
        policy = load_policy(Path(options.policy))
    except DocumentError as error:
        return _complain(error, _USAGE)
    if not (options.identity or options.method or named):
        print(f"{options.policy}: no mistakes")
        return _OK
    if not (options.identity and options.method):
        return _complain(
            "--identity and --method: give both, or neither to see only whether the policy is good", _USAGE
        )
    if options.method not in METHODS:
        return _complain(f"--method: must be one of {', '.join(sorted(METHODS))}, is {options.method!r}", _USAGE)
    if not named.keys() <= facets_of(options.method) or {Facet.PRODUCT_NAME, Facet.PRODUCT_ID} <= named.keys():
        return _complain(f"--method: no call of {options.method} names all that is given", _USAGE)
    identity = "" if options.identity == ANONYMOUS else options.identity
    allowed, reasons = explain(policy, identity, options.method, named)
    print("\n".join(["allowed" if allowed else "denied", *reasons]))
    return _OK if allowed else _FAILED


def _start_logging(settings: Settings) -> None:
    from servicecatalog_grpc.telemetry.logs import start_logging

    start_logging(settings.logging_level)


def _complain(problem: object, status: int) -> int:
    print(f"{_PROGRAM}: {problem}", file=sys.stderr)
    return status
