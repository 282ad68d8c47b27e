"""Debian's Prometheus and Alertmanager as a test's own processes, on free ports of loopback."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "monitoring"
PATIENCE_S = 60.0
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}


def program(name: str) -> str:
    """Where a program is; without it a test is skipped, in CI it fails."""
    found = shutil.which(name)
    if found is not None:
        return found
    message = f"{name} is not installed: apt-get install --no-install-recommends {PACKAGES[name]}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def run(name: str, *arguments: str) -> str:
    """What a program prints, which has to succeed."""
    done = subprocess.run(  # noqa: S603  # the distribution's own program
        [program(name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def until(true: Callable[[], Any], what: str) -> Any:  # noqa: ANN401  # whatever it gives
    """Wait for something true; what it is."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def asked(url: str, **query: str) -> Any:  # noqa: ANN401  # any JSON document
    """The JSON document at an address."""
    address = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310  # loopback
        return json.loads(response.read())


class Observatory:
    """Prometheus and Alertmanager, with the repository's configuration at a quicker pace.

    Args:
        folder: where they keep what they have.
        started: ends them.
    """

    def __init__(self, folder: Path, started: ExitStack) -> None:
        self.folder = folder
        self._started = started
        self.prometheus = ""
        self.alertmanager = ""

    def start_alertmanager(self, webhook: str, key: str) -> None:
        """Serve `alertmanager.yml`, which tells this webhook."""
        config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text("utf-8"))
        config["route"] |= {"group_wait": "100ms", "group_interval": "1s"}
        (told,) = config["receivers"][0]["webhook_configs"]
        told["url"] = webhook
        (self.folder / told["http_config"]["authorization"]["credentials_file"]).write_text(key)
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        port = _free_port()
        self.alertmanager = f"http://127.0.0.1:{port}"
        self._serve(
            "prometheus-alertmanager",
            f"--config.file={self.folder}/alertmanager.yml",
            f"--storage.path={self.folder}/alertmanager",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        )
        self._until_ready(self.alertmanager)

    def start_prometheus(self, server: str, *, quick_rules: bool = False) -> None:
        """Serve `prometheus.yml`, which scrapes this server.

        Args:
            server: address of the server.
            quick_rules: rules fire after seconds instead of minutes, and stop at once.
        """
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["scrape_configs"] = [
            {
                "job_name": "batteryops",
                "static_configs": [{"targets": [server.removeprefix("http://")]}],
            }
        ]
        alertmanagers = [self.alertmanager.removeprefix("http://")] if self.alertmanager else []
        (told,) = config["alerting"]["alertmanagers"]
        told["static_configs"] = [{"targets": alertmanagers}]
        rules = yaml.safe_load((MONITORING / "alert-rules.yml").read_text("utf-8"))
        if quick_rules:
            for rule in (rule for group in rules["groups"] for rule in group["rules"]):
                if "for" in rule:  # what comes first for its minute still does
                    rule["for"] = "2s" if rule["for"] == "1m" else "5s"
                rule.pop("keep_firing_for", None)
        (self.folder / "alert-rules.yml").write_text(yaml.safe_dump(rules))
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = _free_port()
        self.prometheus = f"http://127.0.0.1:{port}"
        self._serve(
            "prometheus",
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/prometheus",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        self._until_ready(self.prometheus)

    def query(self, expr: str) -> list[Any]:
        """The series that an expression yields now."""
        answer = asked(f"{self.prometheus}/api/v1/query", query=expr)
        assert answer["status"] == "success", answer
        found: list[Any] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = asked(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def alerts(self) -> dict[str, bool]:
        """Alerts that Alertmanager knows, by name: whether something silences all of that name."""
        found = asked(f"{self.alertmanager}/api/v2/alerts")
        names = {one["labels"]["alertname"] for one in found}
        return {
            name: all(
                one["status"]["inhibitedBy"] for one in found if one["labels"]["alertname"] == name
            )
            for name in names
        }

    def _serve(self, name: str, *arguments: str) -> None:
        log = self.folder / f"{name}.log"
        with log.open("wb") as told:
            process = subprocess.Popen(  # noqa: S603  # the distribution's own program
                [program(name), *arguments], stdout=told, stderr=told, cwd=self.folder
            )

        def end() -> None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self._started.callback(end)

    def _until_ready(self, url: str) -> None:
        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as response:  # noqa: S310  # loopback
                    return bool(response.status == 200)
            except (URLError, ConnectionError):
                return False

        logs = "\n".join(str(log) for log in self.folder.glob("*.log"))
        until(ready, f"{url} is not ready; see {logs}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
