"""The real Envoy, with a configuration of deploy/envoy or with one like Istio's, on free ports."""

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import yaml
from tools import need
from waiting import wait_for

ROOT = Path(__file__).parent.parent
START_SECONDS = 20

Config = dict[str, Any]


def deployed(name: str, *facades: str) -> Config:
    """Return the configuration deploy/envoy/NAME.yaml, on free ports, in front of these façades."""
    return _placed(ROOT / "deploy" / "envoy" / f"{name}.yaml", facades)


def deployed_with_tls(facade: str, tls: Path, directory: Path) -> Config:
    """Return deploy/envoy/sidecar-mtls.yaml in front of the façade, with tls.crt, tls.key and ca.crt of a directory.

    What else it needs is written to the other directory.
    """
    for name in ("certificate", "callers"):
        text = (ROOT / "deploy" / "envoy" / f"{name}.yaml").read_text()
        (directory / f"{name}.yaml").write_text(text.replace("/etc/envoy/tls", str(tls)))
    config = json.dumps(deployed("sidecar-mtls", facade)).replace("/etc/envoy", str(directory))
    return json.loads(config)  # type: ignore[no-any-return]


def like_istio(*facades: str) -> Config:
    """Return what Istio makes for a service that it has been told nothing about."""
    return _placed(Path(__file__).with_name("istio.yaml"), facades)


def _placed(path: Path, facades: Iterable[str]) -> Config:
    config: Config = yaml.safe_load(path.read_text())
    for place in (config["admin"], *config["static_resources"]["listeners"]):
        place["address"]["socket_address"].update(address="127.0.0.1", port_value=0)
    if facades:
        cluster(config)["load_assignment"]["endpoints"] = [{"lb_endpoints": [_endpoint(each) for each in facades]}]
    return config


def cluster(config: Config) -> Config:
    """Return the cluster of the façades."""
    (found,) = config["static_resources"]["clusters"]
    return found  # type: ignore[no-any-return]


def manager(config: Config) -> Config:
    """Return the connection manager of the listener."""
    (listener,) = config["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]  # type: ignore[no-any-return]


def routes(config: Config) -> list[Config]:
    """Return the routes, the first match first."""
    (host,) = manager(config)["route_config"]["virtual_hosts"]
    return host["routes"]  # type: ignore[no-any-return]


def _endpoint(address: str) -> Config:
    if address.startswith("unix:"):
        return {"endpoint": {"address": {"pipe": {"path": address.removeprefix("unix:")}}}}
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


class Envoy:
    """A running Envoy. `access` has its access log and `log` what else it says, `address` is that of its listener."""

    def __init__(self, config: Config, directory: Path) -> None:
        self._directory = directory
        self._config = directory / "envoy.json"
        self._config.write_text(json.dumps(config))
        self.log: list[str] = []
        self.access: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        admin = self._directory / "admin"
        flags = ("--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--file-flush-interval-msec", "50")
        self.process = subprocess.Popen(
            [need("envoy"), "-c", self._config, "--admin-address-path", admin, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [threading.Thread(target=each) for each in (self._read_access, self._read_log)]
        for reader in self._readers:
            reader.start()
        try:
            wait_for(lambda: self.process.poll() is not None or (admin.exists() and admin.read_text()), START_SECONDS)
            self._admin = f"http://{admin.read_text()}"
            wait_for(lambda: self.ask("/ready").strip() == "LIVE", START_SECONDS)
        except (AssertionError, OSError):
            self.__exit__(None)
            raise AssertionError("".join(["Envoy is not ready\n", *self.log])) from None
        (listener,) = json.loads(self.ask("/listeners?format=json"))["listener_statuses"]
        found = listener["local_address"]["socket_address"]
        self.address = f"{found['address']}:{found['port_value']}"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            for reader in self._readers:
                reader.join()

    def ask(self, path: str) -> str:
        """Return what the admin interface says."""
        try:
            with urllib.request.urlopen(f"{self._admin}{path}", timeout=10) as response:
                return response.read().decode()  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def stat(self, name: str) -> int:
        """Return a counter or gauge of the cluster."""
        found = json.loads(self.ask(f"/stats?format=json&filter=^cluster[.]facade[.]{name}$"))["stats"]
        return sum(each.get("value", 0) for each in found)

    def _read_access(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self.access.append(json.loads(line))

    def _read_log(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            self.log.extend(lines)


class Discovery:
    """Tells an Envoy where the façades are, as a control plane does: by a file that Envoy watches."""

    def __init__(self, config: Config, directory: Path, *facades: str) -> None:
        """Make the configuration look into a file in the directory, which begins with these façades."""
        self._path = directory / "facades.json"
        self.tell(*facades)
        found = cluster(config)
        del found["load_assignment"]
        source = {"path_config_source": {"path": str(self._path)}}
        found.update(type="EDS", eds_cluster_config={"eds_config": source})
        config["node"] = {"id": "tests", "cluster": "tests"}

    def tell(self, *facades: str) -> None:
        """Let these be the façades from now on."""
        resource = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "facade",
            "endpoints": [{"lb_endpoints": [_endpoint(each) for each in facades]}],
        }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"resources": [resource]}))
        # Envoy looks at a file that is moved there.
        new.replace(self._path)
