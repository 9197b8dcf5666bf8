"""Callers with AWS roles: a policy that gives them, a façade that knows its callers by Envoy's word, and a recorded AWS."""

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from aws_recorder import Recorder, Session, Signed
from facade import Facade, environment
from servicecatalog.v1 import catalog_service_pb2 as catalog
from status import Details
from stubs import Stubs

ACCOUNT = "123456789012"


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def policy(roles: Mapping[str, str]) -> str:
    """Return a policy that lets these identities do everything, each in its role, or as the server where that is empty."""
    entries = "".join(
        f"""
          - identity: {identity}
            {f"role: {arn}" if arn else ""}
            grants: [{{methods: ["*"]}}]
        """
        for identity, arn in roles.items()
    )
    return textwrap.dedent(f"callers:{entries}")


# Two teams with a role each, and one without.
TEAMS = policy(
    {
        "spiffe://example.org/red/*": role("red"),
        "spiffe://example.org/blue/*": role("blue"),
        "spiffe://example.org/plain/*": "",
    }
)


@dataclass
class World:
    """A façade in front of a recorder."""

    facade: Facade
    recorder: Recorder
    stubs: Stubs

    def search(self, identity: str, timeout: float = 20) -> None:
        """Look for products by a text that tells in what AWS gets who did."""
        request = catalog.SearchProductsRequest()
        request.filters["FullTextSearch"].values.append(identity)
        self.stubs.SearchProducts(request, metadata=called_by(identity), timeout=timeout)

    def failure(self, identity: str, timeout: float = 20) -> Details:
        with pytest.raises(grpc.RpcError) as raised:
            self.search(identity, timeout)
        return Details(raised.value)

    def searches(self, identity: str) -> list[Signed]:
        """Return what AWS was asked by `search` for the caller."""
        return [
            signed
            for signed in self.recorder.signed
            if signed.request.json.get("Filters") == {"FullTextSearch": [identity]}
        ]

    def sessions(self, identity: str) -> list[Session]:
        """Return the sessions that STS gave for the caller, the oldest first."""
        end = identity.removeprefix("spiffe://").replace("/", "-")
        return [session for session in self.recorder.sessions if session.name.partition("+")[0] == end]


def called_by(identity: str) -> Any:
    """Return the metadata by which Envoy says whose certificate it has verified."""
    return (("x-forwarded-client-cert", f"URI={identity}"),) if identity else ()


@contextmanager
def serving(endpoint_url: str, directory: Path, *flags: str, text: str = TEAMS, **variables: str) -> Iterator[World]:
    """Serve with the policy, which asks a recorder in front of the endpoint."""
    (directory / "policy.yaml").write_text(text)
    with closing(Recorder(endpoint_url)) as recorder:
        env = environment(recorder.url, AWS_ENDPOINT_URL_STS=recorder.url, **variables)
        arguments = ("--listen", "127.0.0.1:0", "--policy", str(directory / "policy.yaml"))
        with (
            Facade("serve", *arguments, "--forwarded-client-cert", "trust", *flags, env=env) as facade,
            grpc.insecure_channel(facade.address, (("grpc.enable_retries", 0),)) as channel,
        ):
            yield World(facade, recorder, Stubs(channel))


def clockwork(directory: Path, **constants: object) -> str:
    """Return a PYTHONPATH with which a server keeps sessions by these constants, or tests would last an hour."""
    lines = ["from servicecatalog_grpc.aws import sessions"]
    lines += [f"assert sessions.{name}; sessions.{name} = {value!r}" for name, value in constants.items()]
    (directory / "sitecustomize.py").write_text("\n".join(lines))
    return str(directory)
