"""`batteryops retrain check`, `request` and `list`, and the lines that `controller` prints."""

import getpass
import json
import shutil
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from batteryops.cli.controller import summary
from batteryops.errors import RecordsError, RegistryError
from batteryops.lifecycle import controller as loop
from batteryops.lifecycle import schedule
from batteryops.lifecycle.controller import Checked
from batteryops.lifecycle.monitoring import Monitored
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.triggers import Decision, Fired
from batteryops.records.leases import Leases
from batteryops.records.ledger import RETRAINING_STARTED, Ledger
from batteryops.records.retraining_runs import RetrainingRun, RetrainingRuns, State
from batteryops.settings import Settings, load_settings
from cli.running import Run, runner

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WAITING = Decision(
    "wait",
    "error",
    "Wait, though the MAE is 0.0410 Ah: a run is open.",
    (Fired("error", "the MAE is 0.0410 Ah"), Fired("weekly", "it is due")),
    ("a run is open",),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture
def settings(
    trained_home: Path, quick_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A copy of a home with version 1 in service, in force for the test."""
    shutil.copytree(trained_home, tmp_path / "home")
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(quick_config))
    found = load_settings(quick_config, home=tmp_path / "home")
    promote(1, found)
    return found


def a_run(state: State, **document: Any) -> RetrainingRun:  # noqa: ANN401 - any JSON
    return RetrainingRun("run-1", "weekly", "it is due", state, NOW, NOW, document)


def looked(
    monkeypatch: pytest.MonkeyPatch,
    *runs: RetrainingRun,
    decision: Decision | None = None,
    busy: str | None = None,
) -> Checked:
    """Have every look come to this."""
    found = Checked(NOW, busy, decision, runs)
    monkeypatch.setattr(loop, "check", lambda *_: found)
    return found


def test_a_check_of_a_fleet_without_labels_decides_and_begins_nothing(
    run: Run, settings: Settings
) -> None:
    told = run("retrain", "check", "--json")
    assert told.code == 0, told.err
    assert (told.json["busy"], told.json["runs"]) == (None, [])
    assert told.json["decision"]["action"] == "nothing"
    assert "the MAE is not known" in told.json["decision"]["reason"]
    again = run("retrain", "check")
    assert again.code == 0
    assert "nothing: " in again.err
    with RetrainingRuns(settings.predictions_url) as runs:
        assert runs.newest() is None


def test_what_was_asked_for_waits_for_labels_and_says_who_asked(
    run: Run, settings: Settings
) -> None:
    asked = run("retrain", "request", "--reason", "a new depot")
    assert asked.code == 0
    assert "`batteryops retrain check`, or the controller, begins it" in asked.err
    with RetrainingRuns(settings.predictions_url) as runs:
        (request,) = runs.requests()
    assert (request.reason, request.by) == ("a new depot", getpass.getuser())

    told = run("retrain", "check")
    assert told.code == 0
    assert "ask for labels: Ask for labels first, as" in told.err
    assert "a new depot" in told.out  # in the table of triggers
    waits = run("retrain", "check", "--json").json["decision"]
    assert (waits["action"], waits["trigger"]) == ("wait", "manual")
    with Ledger(settings.ledger_url) as ledger:
        assert not ledger.entries(RETRAINING_STARTED)


def test_a_request_as_json_is_what_is_on_record(run: Run, settings: Settings) -> None:
    told = run("retrain", "request", "--reason", "a new depot", "--json")
    with RetrainingRuns(settings.predictions_url) as runs:
        assert [told.json] == [request.to_json() for request in runs.requests()]


def test_a_request_without_words_is_refused(run: Run, settings: Settings) -> None:
    assert run("retrain", "request").code == 2
    assert run("retrain", "request", "--reason", " ").code == 1
    with RetrainingRuns(settings.predictions_url) as runs:
        assert runs.requests() == ()


def test_a_look_that_another_controller_takes_says_so_and_is_no_failure(
    run: Run, settings: Settings
) -> None:
    with RetrainingRuns(settings.predictions_url) as runs:
        now = datetime.now(UTC)
        assert Leases.beside(runs).take(loop.LEASE, "other", seconds=900, now=now) is not None
    told = run("retrain", "check")
    assert told.code == 0
    assert "busy: another controller holds the lease 'controller'" in told.err
    assert run("retrain", "check", "--json").json["decision"] is None


def test_a_look_is_shown_with_what_fired_and_what_held_it_back(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked(monkeypatch, a_run("trial", version=7, strategy="full"), decision=WAITING)
    told = run("retrain", "check", "--home", settings.home)
    assert told.code == 0
    for expected in ("the MAE is 0.0410 Ah", "it is due", "held back", "a run is open", "full"):
        assert expected in told.out
    assert "wait: Wait, though" in told.err


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("trial", 0), ("probation", 0), ("promoted", 0), ("kept", 0), ("rejected", 0),
        ("abandoned", 0), ("failed", 1), ("harmful", 1), ("rolled_back", 1),
    ],
)  # fmt: skip
def test_the_exit_says_whether_a_run_went_wrong(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch, state: State, code: int
) -> None:
    looked(monkeypatch, a_run("kept"), a_run(state, why="so it is"))
    told = run("retrain", "check", "--home", settings.home)
    assert told.code == code
    assert "so it is" in told.out
    assert run("retrain", "check", "--home", settings.home, "--json").code == code


def test_a_store_out_of_reach_ends_with_2(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> Checked:
        raise RegistryError("the registry does not answer")

    monkeypatch.setattr(loop, "check", gone)
    told = run("retrain", "check", "--home", settings.home)
    assert (told.code, "the registry does not answer" in told.err) == (2, True)


def begun(settings: Settings, *days: float) -> None:
    """Put runs on record that were kept, begun so many days ago."""
    now = datetime.now(UTC)
    with RetrainingRuns(settings.predictions_url) as runs:
        lease = Leases.beside(runs).take("controller", "test", seconds=900, now=now)
        assert lease is not None
        for ago in days:
            started = runs.start(
                trigger="error",
                reason=f"begun {ago:g} days ago",
                at=now - timedelta(days=ago),
                document={},
                lease=lease,
            )
            told = {"why": "nothing was better"}
            runs.move(started, "kept", at=now, document=told, lease=lease)


def test_retrainings_are_listed_the_newest_first(run: Run, settings: Settings) -> None:
    begun(settings, 40.0, 20.0, 2.0)
    told = run("retrain", "list")
    assert told.code == 0
    places = [told.out.index(f"begun {days} days ago") for days in (2, 20, 40)]
    assert places == sorted(places)
    assert told.out.count("nothing was better") == 3
    listed = run("retrain", "list", "--days", 30, "--json").json
    assert [one["reason"] for one in listed] == ["begun 2 days ago", "begun 20 days ago"]
    assert {one["state"] for one in listed} == {"kept"}


def test_that_there_are_none_is_said(run: Run, settings: Settings) -> None:
    begun(settings, 40.0)
    told = run("retrain", "list", "--days", 30)
    assert (told.code, told.out) == (0, "")
    assert "retrainings: none was begun in the last 30 days" in told.err
    assert run("retrain", "list", "--days", 30, "--json").json == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Checked(NOW, "another holds the lease", None, ()), "another holds the lease"),
        (Checked(NOW, None, None, ()), "a trial or a probation goes on"),
        (
            Checked(NOW, None, WAITING, ()),
            "wait: Wait, though the MAE is 0.0410 Ah: a run is open.",
        ),
        (
            Checked(NOW, None, replace(WAITING, action="ask_for_labels", reason="Ask."), ()),
            "ask for labels: Ask.",
        ),
        (
            Checked(NOW, None, None, (a_run("rolled_back", why="it errs"), a_run("trial"))),
            "weekly retraining: rolled back, it errs; weekly retraining: trial",
        ),
        (
            Checked(NOW, None, WAITING, (a_run("kept", why="no gain"),)),
            f"weekly retraining: kept, no gain; wait: {WAITING.reason}",
        ),
    ],
)
def test_a_look_is_one_sentence(found: Checked, told: str) -> None:
    assert summary(found) == told


def monitored() -> Monitored:
    """A monitoring run, as far as the line of it goes."""
    parts = (
        SimpleNamespace(verdict="ok", why="all is well"),
        SimpleNamespace(verdict="alert", why="the MAE is 0.0410 Ah"),
        SimpleNamespace(verdict="alert", why="much drifts"),
    )
    return cast(
        "Monitored",
        SimpleNamespace(verdict="alert", parts=parts, document={"verdict": "alert"}),
    )


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller whose looks came to three things, and who was told to stop then."""

    def keep(_settings: Settings, _progress: object, hear: schedule.Heard, _stop: object) -> None:
        hear(Checked(NOW, None, WAITING, ()))
        hear(monitored())
        hear(RecordsError("gone"))

    monkeypatch.setattr(schedule, "keep_checking", keep)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("heard")
def test_the_controller_prints_a_line_for_each_look(run: Run, settings: Settings) -> None:
    told = run("controller", "--home", settings.home)
    assert told.code == 0
    first, *lines = told.err.splitlines()
    assert "monitoring every 60 minutes, looking every 60; Ctrl-C stops" in first
    for line, label, says in zip(
        lines,
        ("looked", "monitored", "error"),
        ("wait: Wait, though", "alert: the MAE is 0.0410 Ah; much drifts", "gone"),
        strict=True,
    ):
        assert line.startswith(f"{label}: 20")  # and the time
        assert says in line
        assert "all is well" not in line


@pytest.mark.usefixtures("heard")
def test_the_controller_prints_a_document_for_each_look(run: Run, settings: Settings) -> None:
    told = run("controller", "--home", settings.home, "--json")
    decoder, rest, documents = json.JSONDecoder(), told.out.strip(), []
    while rest:
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    look, monitoring, error = documents
    assert look["decision"]["action"] == "wait"
    assert monitoring == {"verdict": "alert"}
    assert error["error"] == "gone"
    assert told.err == ""
