"""The facts that a retraining is decided from, gathered from the records of a small fleet."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from batteryops.features.views import matrix
from batteryops.lifecycle import retraining_facts
from batteryops.lifecycle.loading import LoadedModel, load_model
from batteryops.lifecycle.realignment import Realignment
from batteryops.lifecycle.retraining_facts import DECISION, Observed, gather
from batteryops.lifecycle.triggers import Facts, TriggerRules, decide
from batteryops.models.package import ModelPackage
from batteryops.records.leases import Lease, Leases
from batteryops.records.monitoring_runs import MonitoringRuns
from batteryops.records.retraining_runs import RetrainingRun, RetrainingRuns, State
from batteryops.settings import Settings, load_settings
from lifecycle.updating import VIEW, asked_and_labelled, new_rows, now, put, record

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
TIME = "discharge_time_s"
CLIMATE = {"psi": 0.41, "status": "alert", "cause": "climate"}
NONE: dict[str, Any] = {"action": "nothing", "fired": []}
WEEKLY: dict[str, Any] = {
    "action": "wait",
    "fired": [{"trigger": "weekly", "reason": "due"}, {"trigger": "new_trips", "reason": "many"}],
}
ASKED: dict[str, Any] = {
    "action": "ask_for_labels",
    "fired": [{"trigger": "drift", "reason": "much"}],
}


class Records:
    """What is on record, and a champion of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runs = RetrainingRuns(settings.predictions_url)
        self.champion: LoadedModel = load_model("1", settings)
        self.now = now() + HOUR
        leases = Leases.beside(self.runs)
        lease = leases.take("controller", "test", seconds=900, now=datetime.now(UTC))
        assert lease is not None
        self.lease: Lease = lease

    def gather(
        self, features: dict[str, Any] | None = None, *, monitored: datetime | None = None
    ) -> Facts:
        """The facts of `now`, of a monitoring run of some hour."""
        document = {
            "at": (monitored or self.now - HOUR).isoformat(),
            "drift": {"features": features or {}},
        }
        seen = Observed(self.champion, document, self.runs.requests())
        return gather(self.settings, self.runs, seen, now=self.now)

    def decided(self, at: datetime, document: dict[str, Any], facts: Facts | None = None) -> None:
        """Put a decision on record, as a check does."""
        told = {"facts": facts.to_json() if facts else {}}
        MonitoringRuns.beside(self.runs).add(DECISION, at, {**document, **told})

    def run(
        self, at: datetime, *moves: tuple[State, datetime], promoted: datetime | None = None
    ) -> RetrainingRun:
        """A retraining that was begun, and moved on at such times."""
        run = self.runs.start(trigger="weekly", reason="r", at=at, document={}, lease=self.lease)
        for state, when in moves:
            told = {"promoted_at": promoted.isoformat()} if promoted else {}
            run = self.runs.move(run, state, at=when, document=told, lease=self.lease)
        return run

    def promoted(self, at: datetime, promoted: datetime, *then: tuple[State, datetime]) -> None:
        """One whose version became champion."""
        states: tuple[State, ...] = ("candidate", "trial", "probation")
        self.run(at, *((state, promoted) for state in states), *then, promoted=promoted)


@pytest.fixture
def records(tmp_path: Path, trained_home: Path, quick_config: Path) -> Iterator[Records]:
    shutil.copytree(trained_home, tmp_path / "home")
    found = Records(load_settings(quick_config, home=tmp_path / "home"))
    yield found
    found.runs.close()


def off(champion: ModelPackage, rows: pl.DataFrame) -> pl.DataFrame:
    """What the champion errs on each row, asked one by one."""
    said = np.array([champion.predict_one(row) for row in matrix(VIEW, rows)])
    return rows.select("asset_id", off=np.abs(said - rows["capacity_ah"].to_numpy()))


def test_nothing_on_record_is_nothing_known(records: Records) -> None:
    facts = records.gather()
    assert (facts.mae_ah, facts.mae_low_ah, facts.n_labels, facts.n_vehicles) == (None,) * 4
    assert (facts.fresh_labels, facts.fresh_label_vehicles, facts.new_trips) == (0, 0, 0)
    assert (facts.last_started_at, facts.last_ended_at, facts.open_run) == (None, None, None)
    assert (facts.last_weekly_at, facts.last_asked_at, facts.drift_since) == (None, None, None)
    assert (facts.runs_in_week, facts.requests, facts.drift) == (0, (), {})
    assert facts.model_since == records.champion.package.manifest.created_at


def test_the_error_is_the_champions_own_with_students_bound_over_vehicles(
    records: Records,
) -> None:
    """With equally many labels for each vehicle, the bound is Student's on the vehicles' means."""
    asked_and_labelled(records.settings, new_rows())
    each = off(records.champion.package, new_rows()).group_by("asset_id").agg(pl.col("off").mean())
    expected = stats.ttest_1samp(each["off"].to_numpy(), 0.0).confidence_interval(0.95)
    facts = records.gather()
    assert facts.mae_ah == pytest.approx(each["off"].mean(), abs=1e-5)
    assert facts.mae_low_ah == pytest.approx(expected.low, abs=1e-5)
    assert (facts.n_labels, facts.n_vehicles) == (64, 8)
    assert (facts.fresh_labels, facts.fresh_label_vehicles) == (64, 8)


def test_labels_that_the_champion_has_learned_say_nothing_of_its_error(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = new_rows().filter(pl.col("op_index") <= 5)
    asked_and_labelled(records.settings, learned)
    until = datetime.now(UTC)
    monkeypatch.setattr(retraining_facts, "labels_until", lambda _: until)
    assert records.gather().n_labels is None
    since = new_rows().filter(pl.col("op_index") > 5)
    asked_and_labelled(records.settings, since)
    facts = records.gather()
    mean = off(records.champion.package, since)["off"].mean()
    assert facts.mae_ah == pytest.approx(mean, abs=1e-5)
    assert (facts.n_labels, facts.fresh_labels) == (24, 24)


def test_labels_of_one_vehicle_say_no_error_but_are_counted(records: Records) -> None:
    asked_and_labelled(records.settings, new_rows().filter(pl.col("asset_id") == "EV-1101"))
    facts = records.gather()
    assert (facts.mae_ah, facts.n_labels) == (None, None)
    assert (facts.fresh_labels, facts.fresh_label_vehicles) == (8, 1)


def test_who_knows_the_new_software_is_asked_old_questions_as_they_would_be_asked_now(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that come weeks late are of questions from before; told so, no error is large."""
    began = records.now - 200 * DAY
    asked_and_labelled(records.settings, new_rows(), began=began)
    step = Realignment(TIME, 1.0, -900.0, began + 40 * DAY + HOUR)  # four of eight rows are before
    monkeypatch.setattr(retraining_facts, "realignments", lambda _: (step,))
    old = pl.when(pl.col("op_index") <= 4).then(pl.col(TIME) - 900.0).otherwise(TIME)
    told = new_rows().with_columns(old.alias(TIME))
    as_now, as_then = (
        off(records.champion.package, rows)["off"].to_numpy().mean() for rows in (told, new_rows())
    )
    assert records.gather().mae_ah == pytest.approx(as_now, abs=1e-5)
    assert abs(as_now - as_then) > 1e-3


def test_drift_is_told_by_feature_and_begins_with_the_run_that_saw_it(records: Records) -> None:
    seen = records.now - 3 * HOUR
    facts = records.gather({TIME: CLIMATE}, monitored=seen)
    assert facts.drift[TIME] == (0.41, "alert", "climate")
    assert facts.drift_since == seen


def test_a_run_from_a_clock_ahead_saw_drift_no_later_than_now(records: Records) -> None:
    assert records.gather({TIME: CLIMATE}, monitored=records.now + DAY).drift_since == records.now


def test_drift_that_goes_on_began_when_it_was_first_seen(records: Records) -> None:
    first = records.gather({TIME: CLIMATE}, monitored=records.now - 5 * DAY)
    records.decided(records.now - 5 * DAY, NONE, first)
    going_on = records.gather({TIME: CLIMATE})
    assert going_on.drift_since == records.now - 5 * DAY
    records.decided(records.now - 4 * DAY, NONE, going_on)
    assert records.gather({TIME: CLIMATE}).drift_since == records.now - 5 * DAY


def test_drift_that_was_over_begins_anew(records: Records) -> None:
    first = records.gather({TIME: CLIMATE}, monitored=records.now - 5 * DAY)
    records.decided(records.now - 5 * DAY, NONE, first)
    quiet = records.gather({TIME: {**CLIMATE, "status": "warn"}})
    assert quiet.drift_since is None
    records.decided(records.now - 4 * DAY, NONE, quiet)
    assert records.gather({TIME: CLIMATE}).drift_since == records.now - HOUR


@pytest.mark.parametrize(
    "features",
    [
        {TIME: {**CLIMATE, "status": "warn"}},
        {TIME: {**CLIMATE, "cause": "ageing"}},
        {TIME: {**CLIMATE, "cause": "sensor_fault: stuck"}},
        {"temperature_C_mean": CLIMATE},
    ],
    ids=["no alert", "age", "a sensor", "not critical"],
)
def test_what_asks_for_no_model_has_no_beginning(
    records: Records, features: dict[str, Any]
) -> None:
    assert records.gather(features).drift_since is None


def test_while_features_drift_labels_of_questions_since_count(records: Records) -> None:
    began = records.now - 100 * DAY
    asked_and_labelled(records.settings, new_rows(), began=began)
    since = began + 60 * DAY - HOUR  # rows 6, 7 and 8
    records.decided(records.now - DAY, NONE, replace(records.gather(), drift_since=since))
    facts = records.gather({TIME: CLIMATE})
    assert facts.drift_since == since
    rows = new_rows().filter(pl.col("op_index") >= 6)
    assert facts.mae_ah == pytest.approx(
        off(records.champion.package, rows)["off"].mean(), abs=1e-5
    )
    assert (facts.fresh_labels, facts.fresh_label_vehicles, facts.n_labels) == (24, 8, 24)


def test_when_the_weekly_run_was_due_and_labels_were_asked_for_is_in_what_was_decided(
    records: Records,
) -> None:
    for days, document in ((6, WEEKLY), (5, ASKED), (4, WEEKLY), (3, NONE), (2, ASKED), (1, NONE)):
        records.decided(records.now - days * DAY, document)
    facts = records.gather()
    assert facts.last_weekly_at == records.now - 4 * DAY
    assert facts.last_asked_at == records.now - 2 * DAY


def test_a_run_that_is_open_is_known_and_did_not_end(records: Records) -> None:
    run = records.run(records.now - DAY, ("candidate", records.now))
    facts = records.gather()
    assert facts.open_run == run
    assert (facts.last_started_at, facts.last_ended_at) == (records.now - DAY, None)


def test_a_run_ended_when_it_was_moved_last(records: Records) -> None:
    records.run(records.now - 9 * DAY, ("kept", records.now - 8 * DAY))
    records.run(records.now - 6 * DAY, ("failed", records.now - 5 * DAY))
    assert records.gather().last_ended_at == records.now - 5 * DAY
    records.run(records.now - DAY)
    assert records.gather().last_ended_at == records.now - 5 * DAY


def test_a_run_on_probation_ended_when_it_was_promoted_also_once_its_days_are_over(
    records: Records,
) -> None:
    promoted = records.now - 10 * DAY
    records.promoted(records.now - 20 * DAY, promoted)
    assert records.gather().last_ended_at == promoted
    run = records.runs.on_probation()[0]
    records.runs.move(run, "promoted", at=records.now - HOUR, lease=records.lease)
    assert records.gather().last_ended_at == promoted


def test_runs_of_seven_days_are_counted(records: Records) -> None:
    week, second = 7 * DAY, timedelta(seconds=1)
    for at in (week + second, week, week - second, 3 * DAY, -second):
        records.run(records.now - at, ("kept", records.now))
    assert records.gather().runs_in_week == 2


def test_trips_count_since_the_model_was_made_or_a_run_began(records: Records) -> None:
    made = records.champion.package.manifest.created_at
    row = new_rows().row(0, named=True)
    records.now = made + 10 * DAY
    ages = (-DAY, DAY, 2 * DAY, 3 * DAY)
    put(records.settings, [record(made + age, row) for age in ages], [])
    put(records.settings, [record(made + 4 * DAY, row, role="challenger", served=False)], [])
    assert records.gather().new_trips == 3
    records.run(made - 5 * DAY, ("kept", made))
    assert records.gather().new_trips == 3
    records.run(made + 2 * DAY, ("kept", made + 2 * DAY))
    assert records.gather().new_trips == 2


def test_requests_are_passed_on_and_the_facts_can_be_decided_from(records: Records) -> None:
    asked_and_labelled(records.settings, new_rows())
    request = records.runs.request("a new depot", by="ann", at=records.now - HOUR)
    facts = records.gather({TIME: CLIMATE})
    assert facts.requests == (request,)
    decided = decide(facts, TriggerRules.of(records.settings))
    assert decided.trigger == "manual"
