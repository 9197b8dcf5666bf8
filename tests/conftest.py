"""What the tests share: a façade in a process of its own, something in the place of AWS, and stubs."""

import signal
from collections.abc import Iterator

import grpc
import pytest
from facade import Facade, environment
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream

# What a shell has started in the background ignores Ctrl-C, and so does whatever that starts: a test would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def facade(_upstream: Upstream) -> Iterator[Facade]:
    """The façade in front of `upstream`, with one attempt for each call."""
    with Facade("serve", "--listen", "127.0.0.1:0", "--max-attempts", "1", env=environment(_upstream.url)) as running:
        yield running


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    """A server in the place of AWS; the test says how it behaves."""
    _upstream.behave()
    return _upstream


@pytest.fixture(scope="session")
def _channel(facade: Facade) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(facade.address) as channel:
        yield channel


@pytest.fixture
def stub(_channel: grpc.Channel) -> ProvisioningServiceStub:
    """A stub of the façade in front of `upstream`."""
    return ProvisioningServiceStub(_channel)
