"""Starting, stopping and serving."""

import http.client
import socket
import time
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import EndpointConnectionError
from sandbox_fixtures import Aws, aws
from servicecatalog_grpc.sandbox import Sandbox

__all__ = ["aws"]


def test_a_port_in_use_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Sandbox(port=taken.getsockname()[1]).start()


def test_it_stops_quickly_with_records_running_and_starts_again_empty() -> None:
    sandbox = Sandbox(port=0, record_seconds=60)
    sandbox.start()
    first = Aws(sandbox.url)
    first.provision()
    port = urlsplit(sandbox.url).port
    began = time.monotonic()
    sandbox.stop()
    sandbox.stop()
    assert time.monotonic() - began < 1
    with pytest.raises(EndpointConnectionError):
        first.catalog.list_portfolios()
    first.close()
    with (
        Sandbox(port=port or 0, record_seconds=0) as again,
        closing(Aws(again.url)) as second,
    ):
        assert second.catalog.search_provisioned_products()["ProvisionedProducts"] == []
        assert second.buckets() == {"sandbox-templates"}
        assert second.provisioned()["RecordDetail"]["Status"] == "SUCCEEDED"


def test_it_has_an_address_only_while_it_runs() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = Sandbox().url


def test_one_connection_serves_many_requests(aws: Aws) -> None:
    address = urlsplit(aws.url)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port)) as connection:
        connection.connect()
        used = connection.sock
        statuses = []
        for method, body in (("HEAD", None), ("PUT", b"body"), ("GET", None)):
            connection.request(method, "/sandbox-templates/key", body)
            with connection.getresponse() as answer:
                answer.read()
            statuses.append(answer.status)
            assert connection.sock is used
    assert statuses == [404, 200, 403]  # the object is there but private


def test_it_says_nothing_on_standard_error(aws: Aws, capfd: pytest.CaptureFixture[str]) -> None:
    aws.provisioned()
    assert capfd.readouterr() == ("", "")
