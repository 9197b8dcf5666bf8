"""Callers that prove who they are, the façade that lets them in, and an AWS that knows what they ask for."""

import json
import socket
from pathlib import Path
from typing import Any

import grpc
from certificates import Authority
from facade import Facade, environment
from upstream import Request, Upstream, error, reply

# A call shows what becomes of it once: what a client of its own accord does again would hide that.
NO_RETRIES = (("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0))


class Mesh:
    """An authority whose word a façade takes. `flags` are the façade's."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority()
        certificate, key = self._authority.issue("127.0.0.1", "localhost").write(directory, "server")
        ca = self._authority.write(directory / "ca.pem")
        self.flags = (f"--tls-certificate={certificate}", f"--tls-key={key}", f"--tls-client-ca={ca}")

    def channel(self, address: str, *names: str) -> grpc.Channel:
        """Return a channel of the caller with these names in its certificate."""
        chain, key = self._authority.issue(*names)
        credentials = grpc.ssl_channel_credentials(self._authority.pem, key, chain)
        return grpc.secure_channel(address, credentials, NO_RETRIES)


def policed(upstream: Upstream, mesh: Mesh, policy: Path, *flags: str, **variables: str) -> Facade:
    """Return a façade that knows its callers by their certificates and holds them to the policy."""
    arguments = ("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1", *mesh.flags, f"--policy={policy}", *flags)
    return Facade(*arguments, env=environment(upstream.url, **variables))


def plain_channel(address: str) -> grpc.Channel:
    """Return a channel of a caller that proves nothing."""
    return grpc.insecure_channel(address, NO_RETRIES)


def callers_of(facade: Facade) -> list[str]:
    """Return as whom the façade has seen each of its callers so far."""
    lines = [json.loads(line) for line in facade.log if '"servicecatalog_grpc.access"' in line]
    return [line["caller"] for line in lines]


# What AWS has: provisioned products by their ids, and a record of each.
NAMES = {"pp-orders": "orders-1", "pp-billing": "billing-1"}


def arn(provisioned_product_id: str) -> str:
    """Return the ARN of a provisioned product."""
    name = NAMES[provisioned_product_id]
    return f"arn:aws:servicecatalog:us-east-1:123456789012:stack/{name}/{provisioned_product_id}"


def aws(connection: socket.socket, request: Request) -> None:
    """Answer as an AWS that has these provisioned products, and that says yes to everything else."""
    operation = request.target.rpartition(".")[2]
    body: dict[str, Any] = {"RecordDetail": {"RecordId": "rec-1"}, "RecordId": "rec-1"}
    if operation == "DescribeProvisionedProduct" and "Id" in request.json:
        identifier = request.json["Id"]
        if identifier not in NAMES:
            error("ResourceNotFoundException", "no such provisioned product")(connection, request)
            return
        body = {"ProvisionedProductDetail": {"Id": identifier, "Name": NAMES[identifier], "Arn": arn(identifier)}}
    if operation == "DescribeRecord":
        owner = request.json["Id"].removeprefix("rec-")
        body = {
            "RecordDetail": {
                "RecordId": request.json["Id"],
                "ProvisionedProductName": NAMES[f"pp-{owner}"],
                "ProvisionedProductId": f"pp-{owner}",
                "ProductId": f"prod-{owner}",
                "Status": "SUCCEEDED",
            }
        }
    reply(body=body)(connection, request)


def asked(upstream: Upstream) -> list[str]:
    """Return the operations that AWS has got."""
    return [request.target.rpartition(".")[2] for request in upstream.requests]
