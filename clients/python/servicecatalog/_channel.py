"""What a channel is made of, synchronous or not."""

import math
from collections.abc import Iterable
from importlib import resources
from typing import Any

import grpc

_OPTIONS = {
    # gRPC itself would pause for up to two minutes between two attempts to connect, long after the façade is back.
    "grpc.max_reconnect_backoff_ms": 5_000,
    # So that a watch does not outlive a connection that died in silence; load balancers forget one after minutes.
    "grpc.keepalive_time_ms": 60_000,
    # gRPC's own keepalive_timeout_ms has no effect in 1.83.
    "grpc.http2.ping_timeout_ms": 20_000,
}


def transport(credentials: grpc.ChannelCredentials | None, *, plaintext: bool) -> grpc.ChannelCredentials | None:
    """Return the credentials of a secure channel, or None for a plaintext one."""
    if plaintext and credentials is not None:
        raise ValueError("plaintext excludes credentials")
    return None if plaintext else credentials or grpc.ssl_channel_credentials()


def channel_options(options: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the caller's options, and this package's where they say nothing else: the retry policy among them."""
    policy = resources.files("servicecatalog").joinpath("v1", "servicecatalog_grpc_service_config.json").read_text()
    return list({"grpc.service_config": policy, **_OPTIONS, **dict(options)}.items())


def positive(default_deadline: float) -> float:
    """Return the seconds if they can be a deadline."""
    if not 0 < default_deadline < math.inf:
        raise ValueError(f"default_deadline must be a positive number of seconds, not {default_deadline}")
    return default_deadline
