"""The main job through the command line, with a real server in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import requests

from batteryops.errors import GateError
from batteryops.lifecycle.demo import run_demo, running_server
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.promotion import promote
from batteryops.records.api_keys import ApiKeys
from batteryops.records.ledger import Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.settings import load_settings

pytestmark = pytest.mark.integration


class _References(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_demo_walks_from_cycles_to_a_served_model_and_leaves_a_page(
    tmp_path: Path, quick_config: Path, fleet_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(quick_config))
    elsewhere = f"sqlite:///{tmp_path}/production/"
    for name in ("RECORDS__LEDGER_URL", "RECORDS__PREDICTIONS_URL", "REGISTRY__TRACKING_URI"):
        monkeypatch.setenv(f"BATTERYOPS_{name}", f"{elsewhere}{name}.db")
    settings = load_settings(quick_config, home=tmp_path)

    shown = run_demo(settings, source=str(fleet_file), config=quick_config, progress=Silent())

    document = shown.to_json()
    assert document["gates_passed"] is True
    assert document["version"] == 1
    assert set(document["mae_ah"]) == {
        "random",
        "later_cycles",
        "unseen_assets",
        "unseen_schedules",
    }
    assert not (tmp_path / "production").exists()
    in_demo = settings.in_home(shown.home)
    with Ledger(in_demo.ledger_url) as ledger:
        assert [entry.event for entry in ledger.entries()] == [
            "data_ingested",
            "gate_verdict",
            "model_registered",
            "model_promoted",
            "key_created",
            "key_revoked",
        ]
        assert ledger.verify().intact
    with PredictionLog(in_demo.predictions_url) as log:
        record = log.get(document["answer"]["prediction_id"])
    assert record is not None
    assert record.role == "champion"
    with ApiKeys(in_demo.predictions_url) as keys:
        assert [key.revoked_at is None for key in keys.list()] == [False]

    page = shown.report.read_text("utf-8")
    references = _References()
    references.feed(page)
    assert references.found
    assert all(value.startswith("data:image/png;base64,") for value in references.found)
    assert not re.search(r"url\(|@import|<script", page)
    for heading in ("How the batteries age", "Gates", "An answer over HTTP", "On record"):
        assert heading in page


def test_a_demo_whose_model_fails_a_gate_leaves_the_page_and_promotes_nothing(
    tmp_path: Path, quick_config: Path, fleet_file: Path
) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(quick_config.read_text().replace("'> 0.3'", "'> 0.99999'"))
    settings = load_settings(strict, home=tmp_path)

    with pytest.raises(GateError, match=r"random_r2.*the page: "):
        run_demo(settings, source=str(fleet_file), config=strict, progress=Silent())

    assert "gates failed" in (tmp_path / "demo" / "report.html").read_text("utf-8")
    with Ledger(settings.in_home(tmp_path / "demo").ledger_url) as ledger:
        assert not ledger.entries(event="model_promoted")


def test_the_command_serves_the_champion_until_it_is_told_to_stop(
    tmp_path: Path, trained_home: Path, quick_config: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(trained_home, home)
    settings = load_settings(quick_config, home=home)
    promote(1, settings)
    body = json.loads((Path(__file__).parents[1] / "test_request.json").read_text())
    with ApiKeys(settings.predictions_url) as keys:
        _, secret = keys.create("depot", ["predict"])

    with running_server(settings, quick_config) as url, requests.Session() as asking:
        assert asking.get(f"{url}/healthz", timeout=10).status_code == 200
        assert asking.get(f"{url}/readyz", timeout=10).status_code == 200
        stranger = asking.post(f"{url}/predict", json=body, timeout=10)
        asking.headers["Authorization"] = f"Bearer {secret}"
        version = asking.get(f"{url}/model-version", timeout=10).json()
        answer = asking.post(f"{url}/predict", json=body, timeout=10)
        refused = asking.post(f"{url}/predict", json=body | {"extra": 1}, timeout=10)
        unknown = asking.post(f"{url}/predict", json=body | {"vehicle_id": "?"}, timeout=10)
        metrics = asking.get(f"{url}/metrics", timeout=10).text
    assert secret not in (home / "server.log").read_text()
    assert stranger.status_code == 401

    assert (version["model_version"], version["role"]) == ("1", "champion")
    assert answer.status_code == 200
    assert answer.json()["status"] == "out_of_domain"  # a real cell, of a model of simulated ones
    assert answer.json()["soh"] is None
    for problem in (refused, unknown):
        assert problem.status_code == 422
        assert problem.headers["content-type"] == "application/problem+json"
    assert 'predictions_total{role="champion",version="1"} 1.0' in metrics
    with PredictionLog(settings.predictions_url) as log:
        assert log.get(answer.json()["prediction_id"]) is not None
        assert log.count() == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--insecure-no-auth"], "champion"), ([], "batteryops keys create NAME --scope predict")],
)
def test_a_server_without_a_champion_or_a_key_says_so_and_ends(
    tmp_path: Path, trained_home: Path, quick_config: Path, options: list[str], said: str
) -> None:
    home = shutil.copytree(trained_home, tmp_path / "home")
    ended = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "batteryops", "serve", "--port", "0", *options],
        env=os.environ | {"BATTERYOPS_HOME": str(home), "BATTERYOPS_CONFIG": str(quick_config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
