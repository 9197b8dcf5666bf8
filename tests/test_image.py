"""The image of the Dockerfile: what is in it, and that it serves with no more rights than it gets in a cluster."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import ANSWER, provision
from facade import environment
from images import Builder, Container, Image
from otlp import free_port
from packaging.requirements import Requirement
from servicecatalog.v1.provisioning_service_pb2_grpc import ProvisioningServiceStub
from upstream import Upstream, until
from waiting import wait_for

ROOT = Path(__file__).parent.parent
BASE = Path(sys.prefix) / "base.tar"
HOME = "opt/servicecatalog-grpc"
SERVICE = "servicecatalog.v1.ProvisioningService"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if not BASE.exists():
        pytest.skip("no base image, in CI too: make image makes one, with root and debootstrap, in two minutes")
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("no builder, in CI too: that is buildah, and root to run it")
    scratch = tmp_path_factory.mktemp("image")
    builder = Builder(scratch)
    try:
        builder.make_base(BASE, "localhost/base")
        yield builder.build(ROOT, "localhost/servicecatalog-grpc", base="localhost/base", scratch=scratch)
    finally:
        builder("rm", "--all")
        shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def container(image: Image) -> Iterator[Container]:
    with image.container() as container:
        yield container


@contextmanager
def serving(container: Container, upstream: Upstream) -> Iterator[tuple["subprocess.Popen[str]", dict[str, str]]]:
    """Start what the image is for, and give its variables beside."""
    aws = {name: value for name, value in environment(upstream.url).items() if name.startswith("AWS_")}
    env = {**aws, "SERVICECATALOG_GRPC_LISTEN": f"127.0.0.1:{free_port()}"}
    with container.start(env=env) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == f"ready: gRPC on {env['SERVICECATALOG_GRPC_LISTEN']}\n"
            yield process, env
        finally:
            process.kill()


def status_of(process: "subprocess.Popen[str]") -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def in_python(container: Container, code: str) -> Any:
    """Return what the code prints as JSON, in the Python of the image's program."""
    return json.loads(container.run(f"/{HOME}/bin/python", "-c", f"import json, sys; print(json.dumps({code}))"))


def test_it_serves_and_drains_as_nobody_and_writes_nothing(container: Container, image: Image) -> None:
    with closing(Upstream()) as upstream, serving(container, upstream) as (process, env):
        status = status_of(process)
        assert status["Uid"].split() == status["Gid"].split() == ["65532"] * 4
        assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
        options = Path(f"/proc/{process.pid}/mountinfo").read_text()
        assert {line.split()[5].split(",")[0] for line in options.splitlines() if line.split()[4] == "/"} == {"ro"}

        check = image.config["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        for service in ("", SERVICE):
            assert container.run(*check[1:], "--service", service, env=env) == "SERVING\n"

        answered = threading.Event()
        upstream.behave(until(answered, ANSWER))
        with grpc.insecure_channel(env["SERVICECATALOG_GRPC_LISTEN"]) as channel:
            call = ProvisioningServiceStub(channel).ProvisionProduct.future(provision())
            wait_for(lambda: upstream.requests)
            process.terminate()
            answered.set()
            assert call.result(10).record_detail.record_id == "rec-1"
        assert process.wait(20) == 0


def test_it_has_the_packages_of_the_lock(container: Container) -> None:
    found = in_python(
        container,
        "{each.name: each.version for each in __import__('importlib.metadata').metadata.distributions()}",
    )
    version = in_python(container, "'.'.join(map(str, sys.version_info[:3]))")
    environment = {"python_full_version": version, "python_version": version.rpartition(".")[0]}
    lock = (ROOT / "requirements" / "serve.txt").read_text()
    requirements = [Requirement(line) for line in re.findall(r"^[\w-][^\n\\]*", lock, re.MULTILINE)]
    locked = {
        each.name: str(each.specifier).removeprefix("==")
        for each in requirements
        if each.marker is None or each.marker.evaluate(environment)
    }
    own = {"servicecatalog-grpc", "servicecatalog-grpc-client"}
    assert own <= found.keys()
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items() if name not in own}
    assert normal == locked


def test_it_adds_the_program_to_its_base_and_nothing_else(container: Container) -> None:
    with tarfile.open(BASE) as base:
        before = {os.path.normpath(name) for name in base.getnames()}
    # What the build had mounted leaves its place behind, empty.
    files = [path for path in container.root.rglob("*") if not path.is_symlink()]
    filled = [path for path in files if path.is_file() and path.stat().st_size]
    added = {str(path.relative_to(container.root)) for path in filled} - before
    assert {name for name in added if not name.startswith(f"{HOME}/") and "/__pycache__/" not in name} == set()
    program = [path for path in files if path.is_relative_to(container.root / HOME)]
    assert [path for path in program if path.name == "pip" or path.stat().st_mode & 0o022] == []
    assert {path.owner() for path in program} == {"root"}


def test_nothing_is_compiled_when_it_starts(container: Container) -> None:
    with container.start("python", "-v", "-c", "import servicecatalog_grpc.app") as process:
        _, told = process.communicate(timeout=60)
    assert "servicecatalog_grpc/app" in told
    assert re.findall(r"^# code object from (/.*\.py)$", told, re.MULTILINE) == []


def test_it_says_what_it_is_and_how_it_wants_to_be_run(image: Image) -> None:
    config = image.config
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert config["Entrypoint"] == ["servicecatalog-grpc"]
    assert config["ExposedPorts"].keys() == {"50051/tcp"}
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert (labels["title"], labels["licenses"]) == ("servicecatalog-grpc", "Apache-2.0")
