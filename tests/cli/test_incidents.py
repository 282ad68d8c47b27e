"""`batteryops incidents`: what alerts opened is listed, shown, and closed with a reason."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from batteryops.cli import incidents as commands
from batteryops.errors import RecordsError
from batteryops.records.incidents import Alert, Incidents, Notification
from batteryops.records.ledger import Ledger
from batteryops.settings import load_settings

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `incidents` with these words in a fresh home; what it printed."""
    monkeypatch.setenv("COLUMNS", "220")

    def run(*words: str) -> str:
        command = typer.main.get_command(commands.app)
        command.main([*words, "--home", str(tmp_path)], standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def incident_id(tmp_path: Path) -> str:
    """Of an open incident with one alert."""
    began = datetime.now(UTC) - timedelta(hours=2)
    alert = Alert(
        fingerprint="f",
        firing=True,
        labels={"alertname": "DataDriftDetected", "feature": "delta_T_C", "severity": "critical"},
        annotations={"description": "PSI of delta_T_C is 0.311"},
        started_at=began,
    )
    told = Notification({"cause": "climate"}, True, [alert], "delta_T_C drifts")
    with Incidents(load_settings(home=tmp_path).predictions_url) as opened:
        _, found = opened.receive(told, at=began, quiet=timedelta(minutes=30))
    assert found is not None
    return found.incident_id


def test_without_any_the_list_is_empty(run: Run) -> None:
    assert json.loads(run("list", "--json")) == []
    assert "incidents" in run("list")


def test_an_incident_is_listed_and_shown(run: Run, incident_id: str) -> None:
    listed = run("list", "--open")
    for told in (incident_id, "open", "critical", "climate", "delta_T_C drifts"):
        assert told in listed
    shown = run("show", incident_id)
    for told in ("DataDriftDetected", "delta_T_C", "PSI of delta_T_C is 0.311", "opened"):
        assert told in shown
    (one,) = json.loads(run("list", "--json"))
    assert one == json.loads(run("show", incident_id, "--json"))
    assert (one["incident_id"], one["state"]) == (incident_id, "open")


def test_an_incident_is_closed_with_a_reason_that_is_on_the_ledger(
    run: Run, incident_id: str, tmp_path: Path
) -> None:
    closed = json.loads(
        run("close", incident_id, "--reason", "known winter", "--by", "ada", "--json")
    )
    assert (closed["state"], closed["closed_by"], closed["note"]) == (
        "closed",
        "ada",
        "known winter",
    )
    assert "ada" in run("show", incident_id)
    assert run("list", "--open", "--json").strip() == "[]"
    with Ledger(load_settings(home=tmp_path).ledger_url) as ledger:
        assert [(entry.event, entry.actor) for entry in ledger.entries()] == [
            ("incident_opened", None),
            ("incident_closed", "ada"),
        ]
    with pytest.raises(RecordsError, match="already; there is nothing left to do"):
        run("close", incident_id, "--reason", "again")


@pytest.mark.parametrize("wrong", [("--reason", " "), ("--reason", "a\nb"), ("--by", "\x07")])
def test_what_the_ledger_could_not_keep_is_refused(
    run: Run, incident_id: str, wrong: tuple[str, str]
) -> None:
    words = {"--reason": "mended", "--by": "ada"} | {wrong[0]: wrong[1]}
    with pytest.raises(RecordsError, match=f"{wrong[0]} is .*, expected printable text"):
        run("close", incident_id, *(word for pair in words.items() for word in pair))
    assert json.loads(run("show", incident_id, "--json"))["state"] == "open"


def test_only_an_incident_that_there_is_can_be_shown(run: Run) -> None:
    with pytest.raises(RecordsError, match="there is no incident 'x'"):
        run("show", "x")
