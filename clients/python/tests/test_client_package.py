"""The distribution: what it promises about its dependencies is what its generated code says."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEPENDENCIES = dict(
    dependency.split(">=")
    for dependency in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
)


def test_the_lower_bounds_are_those_of_the_generated_code() -> None:
    generated = "".join(path.read_text() for path in (ROOT / "servicecatalog/v1").glob("*.py"))
    assert set(re.findall(r"GRPC_GENERATED_VERSION = '(.*)'", generated)) == {DEPENDENCIES["grpcio"]}
    assert set(re.findall(r"# Protobuf Python Version: (.*)", generated)) == {DEPENDENCIES["protobuf"]}
