"""A few weeks with a real server: everything lives by one clock, and the page shows what was."""

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batteryops.features.views import get_view
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.time_lapse.drive import FLEETS, TimeLapse
from batteryops.lifecycle.time_lapse.figures import LANES, marks_of
from batteryops.lifecycle.time_lapse.fleets import WeeklyFleet
from batteryops.lifecycle.time_lapse.loop import Done, LoopWeek, causes_in_alert
from batteryops.lifecycle.time_lapse.page import done_rows, injection_rows, render_year
from batteryops.lifecycle.time_lapse.scoring import FalseAlarm, Score
from batteryops.lifecycle.time_lapse.setting import time_lapse_settings
from batteryops.lifecycle.time_lapse.show import ShownYear, show_time_lapse
from batteryops.lifecycle.time_lapse.world import START, VIEW, WEEK, TimeLapsePlan, make_world
from batteryops.monitoring.label_join import join_labels, label_table
from batteryops.records.labels import Labels
from batteryops.records.ledger import Ledger
from batteryops.records.monitoring_runs import MonitoringRuns
from batteryops.records.predictions import PredictionLog
from batteryops.settings import Settings, load_settings

pytestmark = pytest.mark.integration  # a real server in a process of its own

PLAN = TimeLapsePlan(vehicles=10, weeks=4, seed=2, history_weeks=6)


class Scripted:
    """A loop that asks for labels and says that it did something, whatever it sees."""

    def __init__(self) -> None:
        self.called: list[datetime] = []

    def look(self, now: datetime) -> LoopWeek:
        self.called.append(now)
        ends = now == START + 3 * WEEK
        done = Done(now, 4, "drift", "the <load> changed", run_id="r1")
        return LoopWeek(
            causes={"climate": 2} if ends else {},
            retrainings=(done,) if ends else (),
            promotions=(done,) if ends else (),
            ask=("EV-0001",) if now == START + WEEK else (),
        )

    def outcomes(self) -> Mapping[str, str]:
        return {"r1": "promoted"}


@pytest.fixture(scope="module")
def loop() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
def shown(
    quick_config: Path, tmp_path_factory: pytest.TempPathFactory, loop: Scripted
) -> ShownYear:
    home = tmp_path_factory.mktemp("home")
    (home / "time-lapse").mkdir()
    (home / "time-lapse" / "predictions.db").write_text("of an earlier year")
    settings = load_settings(quick_config, home=home)
    return show_time_lapse(PLAN, settings, Silent(), make_loop=lambda *_: loop)


@pytest.fixture(scope="module")
def year(shown: ShownYear) -> TimeLapse:
    return shown.year


@pytest.fixture(scope="module")
def settings(year: TimeLapse) -> Settings:
    return year.settings


def answers(settings: Settings) -> pl.DataFrame:
    with closing(PredictionLog(settings.predictions_url)) as log:
        frames = log.frames(START - WEEK, START + 10 * WEEK, features=get_view(VIEW).names)
        return pl.concat([*frames])


def test_every_trip_was_answered_over_http_at_its_own_time(
    year: TimeLapse, settings: Settings
) -> None:
    world, _ = make_world(PLAN)
    trips = pl.concat([world.trips(week) for week in range(PLAN.weeks)])
    logged = answers(settings)
    assert logged.height == trips.height == sum(week.trips for week in year.weeks)
    beside = logged.sort("answered_at").join_asof(
        trips.sort("at").with_columns(sent=pl.col("at"), sent_v=pl.col("voltage_V_mean")),
        left_on="answered_at",
        right_on="at",
        by_left="vehicle_id",
        by_right="asset_id",
        check_sortedness=False,
    )
    late = beside["answered_at"] - beside["sent"]
    assert late.null_count() == 0
    assert late.is_between(timedelta(0), timedelta(minutes=10)).all()
    assert np.allclose(beside["voltage_V_mean"], beside["sent_v"])


def test_labels_arrived_when_they_were_due_and_belong_to_one_answer_each(
    year: TimeLapse, settings: Settings
) -> None:
    with closing(PredictionLog(settings.predictions_url)) as log:
        labels = Labels.beside(log).frame(START - WEEK, corrected=True)
    assert labels.height == sum(week.labels for week in year.weeks) > 0
    assert ((labels["received_at"] - labels["measured_at"]) >= timedelta(days=14)).all()
    assert (labels["received_at"] < START + PLAN.weeks * WEEK + timedelta(minutes=10)).all()
    table = label_table(labels, tolerance=timedelta(days=0.2))
    joined = join_labels(table, answers(settings))
    assert joined.rows.height == labels.height
    assert joined.rows["label"].is_unique().all()


def test_the_loop_looks_at_the_end_of_each_week(loop: Scripted, year: TimeLapse) -> None:
    ends = [START + (week + 1) * WEEK for week in range(PLAN.weeks)]
    assert {*ends} <= {*loop.called}
    assert loop.called == sorted(loop.called)
    assert [week.week for week in year.weeks] == [*range(PLAN.weeks)]


def test_a_home_of_its_own_is_emptied_and_its_ledger_is_whole(settings: Settings) -> None:
    assert settings.home.name == "time-lapse"
    with Ledger(settings.ledger_url) as ledger:
        assert ledger.verify().intact
        entries = ledger.entries(limit=50)
    assert all(entry.at >= START - timedelta(days=2) for entry in entries)
    assert all(entry.at < START + (PLAN.weeks + 1) * WEEK for entry in entries)


def test_a_loop_that_does_not_monitor_leaves_no_run(settings: Settings) -> None:
    with closing(PredictionLog(settings.predictions_url)) as log:
        assert MonitoringRuns.beside(log).newest("monitor") is None


def test_a_frozen_fleet_and_a_loop_that_does_nothing_err_alike(year: TimeLapse) -> None:
    for week in year.weeks:
        # the loop's answers are the very champion's, one by one through its ONNX twin
        assert week.mae_ah["loop"] == pytest.approx(week.mae_ah["frozen"], abs=1e-5)
        assert set(week.mae_ah) == set(FLEETS)
    trips = np.array([week.trips for week in year.weeks])
    errors = np.array([week.mae_ah["frozen"] for week in year.weeks])
    assert year.mae_ah["frozen"] == pytest.approx(float(trips @ errors / trips.sum()))


def test_the_document_has_what_was_promised(year: TimeLapse) -> None:
    told = json.loads(json.dumps(year.to_json(), allow_nan=False))
    assert [*told] == [
        "mae_ah",
        "injected",
        "detected",
        "retrainings",
        "promotions",
        "rollbacks",
        "false_alarms",
    ]
    assert {*told["mae_ah"]} >= {"frozen", "weekly", "loop"}
    assert all({*one} == {"week", "cause"} for one in told["injected"])
    assert all({*one} == {"week", "cause", "named_cause"} for one in told["detected"])
    assert told["retrainings"][0]["week"] == told["promotions"][0]["week"] == 2
    assert told["retrainings"][0]["trigger"] == "drift"


class _References(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_page_opens_anywhere_and_shows_everything(shown: ShownYear) -> None:
    page = shown.page.read_text("utf-8")
    seen = _References()
    seen.feed(page)
    assert seen.found == []
    assert page.count("<polyline") == len(FLEETS)
    assert "the &lt;load&gt; changed" in page
    assert "<load>" not in page
    assert "prefers-color-scheme: dark" in page
    for row in injection_rows(shown.year):
        assert row[2] in page


def test_what_happened_stands_in_its_lane(year: TimeLapse) -> None:
    lanes = [mark.lane for mark in marks_of(year)]
    assert lanes.count("retraining") == lanes.count("promotion") == 1
    assert lanes.count("labels asked for") == 1
    assert {*lanes} <= {*LANES}
    assert [row[1] for row in done_rows(year)] == ["retraining", "promotion"]


def test_a_page_of_a_year_with_false_alarms_names_them(year: TimeLapse) -> None:
    alarmed = Score((), (FalseAlarm(3, "unknown"),))
    page = render_year(
        TimeLapse(
            year.plan, year.settings, year.weeks, year.truth, alarmed, year.weekly_retrainings, {}
        )
    )
    assert "week 3, unknown" in page
    assert 'class="false-alarm"' in page
    assert "not found" in page


def test_the_weekly_fleet_learns_what_has_arrived(year: TimeLapse, settings: Settings) -> None:
    world, truth = make_world(TimeLapsePlan(vehicles=10, weeks=12, seed=2, history_weeks=3))
    fleet = WeeklyFleet(world, settings)
    for week in range(11):
        fleet.end_week(week)
    assert fleet.retrainings == 11
    trips = world.trips(10).join(truth.capacities, on=["asset_id", "op_index"])
    learned = np.abs(fleet.predict(trips) - trips["capacity_ah"].to_numpy()).mean()
    first = WeeklyFleet(world, settings)
    assert learned < 0.7 * np.abs(first.predict(trips) - trips["capacity_ah"].to_numpy()).mean()
    assert year.weekly_retrainings == PLAN.weeks


@pytest.mark.parametrize(
    ("drift", "causes"),
    [
        ({}, {}),
        ({"refused": "nothing was answered"}, {}),
        (
            {
                "features": {
                    "x": {"status": "alert", "cause": "climate"},
                    "y": {"status": "alert", "cause": "climate"},
                    "z": {"status": "alert", "cause": None},
                    "w": {"status": "warning", "cause": "unknown"},
                }
            },
            {"climate": 2},
        ),
    ],
)
def test_causes_are_counted_of_features_in_alert(
    drift: Mapping[str, object], causes: dict[str, int]
) -> None:
    assert causes_in_alert({"drift": drift}) == causes


def test_settings_keep_to_a_home_of_their_own(quick_config: Path, tmp_path: Path) -> None:
    own = time_lapse_settings(load_settings(quick_config, home=tmp_path))
    assert own.home == tmp_path / "time-lapse"
    assert str(own.home) in own.predictions_url
    assert own.serving.out_of_domain == "give"
    read = Settings.model_validate_json(own.model_dump_json())
    assert read.model_dump() == own.model_dump()
