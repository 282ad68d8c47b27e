"""Retrainings that were under way when a clock was set back: none is stuck, none is lost for it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.retraining_steps import Loop, advance
from batteryops.records.leases import Leases
from batteryops.records.retraining_runs import RetrainingRun, RetrainingRuns, State
from batteryops.settings import load_settings

NOW = datetime.now(UTC)


@pytest.fixture
def loop(tmp_path: Path, trained_home: Path, quick_config: Path) -> Iterator[Loop]:
    """A home in which version 2 challenges version 1."""
    shutil.copytree(trained_home, tmp_path / "home")
    settings = load_settings(quick_config, home=tmp_path / "home")
    registry = open_registry(settings)
    registry.register(registry.version(1).run_id, tags=registry.version(1).tags)
    promote(1, settings)
    promote(2, settings, to="challenger")
    with RetrainingRuns(settings.predictions_url) as runs:
        lease = Leases.beside(runs).take("controller", "test", seconds=900, now=datetime.now(UTC))
        assert lease is not None
        yield Loop(settings, runs, lease, Silent(), NOW, lambda: NOW)


def under_way(loop: Loop, state: State, since: datetime) -> RetrainingRun:
    """A run of version 2 that began to stand in this state at some time."""
    document = {
        "version": 2,
        "champion": 1,
        "trial_since": since.isoformat(),
        "promoted_at": since.isoformat(),
        "changed": [],
        "asked_since": None,
    }
    run = loop.runs.start(
        trigger="weekly", reason="r", at=since, document=document, lease=loop.lease
    )
    states: tuple[State, ...] = ("candidate", "trial", "probation")
    for one in states[: states.index(state) + 1]:
        run = loop.runs.move(run, one, at=since, lease=loop.lease)
    return run


@pytest.mark.parametrize("ahead", [timedelta(seconds=1), timedelta(days=59)])
def test_a_trial_that_began_a_little_ahead_goes_on(loop: Loop, ahead: timedelta) -> None:
    run = under_way(loop, "trial", NOW + ahead)
    assert advance(loop, run) is None
    found = loop.runs.get(run.run_id)
    assert found.state == "trial"
    assert found.document["verdict"]["days"] == 0.0


def test_a_trial_of_a_clock_that_was_a_year_ahead_ends(loop: Loop) -> None:
    moved = advance(loop, under_way(loop, "trial", NOW + timedelta(days=365)))
    assert moved is not None
    assert moved.state == "abandoned"
    assert "by a clock that was wrong" in moved.document["why"]
    assert open_registry(loop.settings).version(2).status == "archived"


def test_who_became_champion_meanwhile_is_not_archived_for_it(loop: Loop) -> None:
    run = under_way(loop, "trial", NOW + timedelta(days=365))
    promote(2, loop.settings)
    moved = advance(loop, run)
    assert moved is not None
    assert moved.document["trial_ending"] == "promote"
    assert open_registry(loop.settings).version_at("champion").version == 2


@pytest.mark.parametrize("days", [1, 365])
def test_a_probation_that_began_ahead_is_watched_on(loop: Loop, days: int) -> None:
    promote(2, loop.settings)
    run = under_way(loop, "probation", NOW + timedelta(days=days))
    assert advance(loop, run) is None
    found = loop.runs.get(run.run_id)
    assert found.state == "probation"
    assert found.document["probation"]["decision"] == "continue"
