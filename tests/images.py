"""Images: built by buildah from a Dockerfile, and run as Kubernetes does where it is strict: as nobody, on a root for reading.

No registry and no container runtime is needed. The base is a tar file that `scripts/base-image` makes, and a container a
process in a mount namespace of its own that has changed its root.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Keeps the root from being written to before the program gets it, and gives up root's powers for good.
_ENTER = """
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec setpriv --no-new-privs chroot --userspec="$user" "$root" "$@"
"""


class Builder:
    """A buildah with a store of its own. It needs root and no network but that of what it runs."""

    def __init__(self, store: Path) -> None:
        self._command = ("buildah", "--root", f"{store}/root", "--runroot", f"{store}/run")
        self._env = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(store)}

    def __call__(self, *arguments: str, timeout: float = 600) -> str:
        """Run a command and return what it says."""
        done = subprocess.run(
            [*self._command, *arguments], env=self._env, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def make_base(self, root: Path, name: str) -> None:
        """Make an image of a tar file."""
        container = self("from", "scratch")
        self("add", container, str(root), "/")
        self("commit", "--rm", container, name)

    def build(self, context: Path, name: str, *, base: str, scratch: Path) -> "Image":
        """Build the image of a Dockerfile on this base. Its pip is configured as that of this machine is."""
        volumes = [argument for volume in _pip_volumes(scratch) for argument in ("--volume", volume)]
        # Docker's own format, because OCI's has no health check.
        arguments = ("build", "--pull-never", "--format", "docker", "--build-arg", f"BASE={base}", "--tag", name)
        self(*arguments, *volumes, str(context))
        return Image(self, name)


class Image:
    """An image. `config` is what it says of how to run it."""

    def __init__(self, builder: Builder, name: str) -> None:
        self._builder = builder
        self._name = name
        self.config: Mapping[str, Any] = json.loads(builder("inspect", "--type", "image", name))["Docker"]["config"]

    @contextmanager
    def container(self) -> Iterator["Container"]:
        container = self._builder("from", "--pull-never", self._name)
        try:
            yield Container(Path(self._builder("mount", container)), self.config)
        finally:
            self._builder("rm", container)


class Container:
    """What runs of an image. `root` is where its files are."""

    def __init__(self, root: Path, config: Mapping[str, Any]) -> None:
        self.root = root
        self._config = config

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a command, without one what the image is for, with the image's variables and these."""
        own = dict(each.split("=", 1) for each in self._config["Env"])
        arguments = command or (*self._config["Entrypoint"], *self._config["Cmd"])
        return subprocess.Popen(
            [*_ENTERING, "sh", "-euc", _ENTER, "sh", self.root, self._config["User"], *arguments],
            env={**own, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """Run a command to its good end and return what it says."""
        with self.start(*command, env=env) as process:
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, output + errors
        return output


_ENTERING = ("/usr/bin/unshare", "--mount", "--propagation", "private")


def _pip_volumes(scratch: Path) -> Sequence[str]:
    """Return, as volumes of a build, the configuration of this machine's pip and the files that it names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    configuration = scratch / "pip.conf"
    configuration.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items()), ""]))
    paths = {part for value in settings.values() for part in value.split() if part.startswith("/")}
    return [
        f"{configuration}:/etc/pip.conf:ro",
        *(f"{path}:{path}:ro" for path in sorted(paths) if Path(path).exists()),
    ]
