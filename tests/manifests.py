"""What kustomize makes of deploy/kubernetes, and a façade that runs as its pods would, without a cluster."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tools import need

KUBERNETES = Path(__file__).parent.parent / "deploy" / "kubernetes"

Manifest = dict[str, Any]


def build(directory: Path) -> list[Manifest]:
    """Return the objects that a kustomization is made of."""
    done = subprocess.run(
        [need("kustomize"), "build", directory], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def base_with(components: list[str], directory: Path) -> list[Manifest]:
    """Return the objects of the base with these components; the directory is for a kustomization that says so."""
    kubernetes = Path(os.path.relpath(KUBERNETES, directory))
    kustomization = {
        "resources": [str(kubernetes / "base")],
        "components": [str(kubernetes / "components" / each) for each in components],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(directory)


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the only object of this kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


def pod_of(manifests: list[Manifest]) -> Manifest:
    """Return what the deployment says of its pods."""
    spec: Manifest = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def container_of(manifests: list[Manifest]) -> Manifest:
    """Return what the deployment says of their only container."""
    (container,) = pod_of(manifests)["containers"]
    assert isinstance(container, dict)
    return container


def settings_of(manifests: list[Manifest]) -> dict[str, str]:
    """Return the variables of the container."""
    (source,) = container_of(manifests)["envFrom"]
    return _config_map(manifests, source["configMapRef"]["name"])


def mounted(manifests: list[Manifest], secret: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each file that the container gets to see, by its path; of any secret, what is given."""
    volumes = {volume["name"]: volume for volume in pod_of(manifests)["volumes"]}
    files: dict[str, str] = {}
    for mount in container_of(manifests)["volumeMounts"]:
        volume = volumes[mount["name"]]
        held = _config_map(manifests, volume["configMap"]["name"]) if "configMap" in volume else secret
        files |= {f"{mount['mountPath']}/{name}": text for name, text in held.items()}
    return files


def _config_map(manifests: list[Manifest], name: str) -> dict[str, str]:
    (found,) = (each for each in manifests if each["kind"] == "ConfigMap" and each["metadata"]["name"] == name)
    data: dict[str, str] = found["data"]
    return data
