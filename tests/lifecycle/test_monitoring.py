"""A monitoring run on a log: what counts, what it must cope with, and what it comes to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree

import numpy as np
import polars as pl
import pytest

from batteryops.errors import RecordsError
from batteryops.features.views import feature_table
from batteryops.lifecycle import run_verdicts
from batteryops.lifecycle.drift import look_for_planted
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.log_window import Looked, WindowSums
from batteryops.lifecycle.monitoring import Monitored, notes_of, run_monitoring
from batteryops.lifecycle.progress import Silent
from batteryops.models.package import ModelPackage
from batteryops.monitoring.exposition import samples_of
from batteryops.monitoring.label_join import label_table
from batteryops.monitoring.production_quality import REPEATING
from batteryops.monitoring.reference import reference_of
from batteryops.records.identifiers import uuid7
from batteryops.records.labels import Label, Labels
from batteryops.records.leases import Leases
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.records.retraining_runs import RetrainingRuns
from batteryops.settings import Settings, load_settings
from batteryops.telemetry import Lake

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def settings(tmp_path: Path, trained_home: Path, quick_config: Path) -> Settings:
    copytree(trained_home, tmp_path / "home")
    return load_settings(quick_config, home=tmp_path / "home")


@pytest.fixture
def package(settings: Settings) -> ModelPackage:
    return load_model("1", settings).package


def answers(settings: Settings, package: ModelPackage, *, times: int = 4) -> list[PredictionRecord]:
    """Answers to every cycle of the fleet, `times` over, an hour after each other until now."""
    cycles = feature_table(package.view, Lake(settings.lake).read(kinds=package.view.kinds))
    rows = cycles.drop_nulls([*package.view.required, "capacity_ah"]).to_dicts() * times
    made = []
    for place, row in enumerate(rows):
        at = NOW - timedelta(hours=len(rows) - place)
        made.append(
            PredictionRecord(
                prediction_id=uuid7(int(at.timestamp() * 1000), place % 4096, place),
                request_id="r",
                answered_at=at,
                vehicle_id=row["asset_id"],
                model_name="ev-soh-predictor",
                model_version="1",
                package_fingerprint=package.fingerprint,
                role="champion",
                features={name: row[name] for name in package.view.names},
                capacity_ah=row["capacity_ah"] + 0.01,
                soh=(row["capacity_ah"] + 0.01) / 2.0,
                latency_ms=0.2,
                capacity_low_ah=row["capacity_ah"] - 0.1,
                capacity_high_ah=row["capacity_ah"] + 0.1,
                status="ok",
            )
        )
    return made


def monitored(
    settings: Settings,
    records: list[PredictionRecord],
    labels: list[Label] | None = None,
    now: datetime = NOW,
    **named: bool,
) -> Monitored:
    with PredictionLog(settings.predictions_url) as log:
        log.append(records)
        Labels.beside(log).add(labels or [])
    return run_monitoring(settings, Silent(), model="1", now=lambda: now, **named)


def labels_of(records: list[PredictionRecord], off_ah: float = 0.01) -> list[Label]:
    """The truth about each answer, `off_ah` below it."""
    return [
        Label(one.vehicle_id, one.answered_at, one.capacity_ah - off_ah, "bench")
        for one in records
        if one.answered_at <= NOW - timedelta(minutes=1)
    ]


def test_errors_are_those_of_the_labels(settings: Settings, package: ModelPackage) -> None:
    records = answers(settings, package)
    found = monitored(settings, records, labels_of(records)).document
    overall = found["performance"]["overall"]
    assert overall["mae_ah"] == pytest.approx(0.01)
    assert overall["bias_ah"] == pytest.approx(0.01)
    assert overall["interval_coverage"] == 1.0
    assert overall["n"] == len(records)
    assert found["verdicts"]["performance"]["verdict"] == "OK"
    assert found["performance"]["label_coverage"] == 1.0


def test_labels_that_come_twice_contradict_or_are_of_nobody_judge_no_one(
    settings: Settings, package: ModelPackage
) -> None:
    records = answers(settings, package)
    right = labels_of(records)
    wrong = [
        *right,
        *right[:5],
        replace(right[7], capacity_ah=0.5, measured_at=right[7].measured_at + timedelta(minutes=5)),
        Label("B0018", NOW - timedelta(days=1), 1.5, "bench"),
    ]
    told = monitored(settings, records, wrong).document["performance"]
    assert told["overall"]["mae_ah"] == pytest.approx(0.01, rel=0.02)
    assert told["labels_contradicting"] == 2
    assert told["labels_of_unknown_assets"] == 1


def test_an_error_above_the_limit_is_an_alert(settings: Settings, package: ModelPackage) -> None:
    records = answers(settings, package)
    found = monitored(settings, records, labels_of(records, off_ah=0.05))
    assert found.verdict == "ALERT"
    (part,) = (part for part in found.parts if part.name == "performance")
    assert "MAE 0.050 Ah, at most 0.03" in part.why


def test_a_broken_sensor_is_an_alert_that_names_the_feature(
    settings: Settings, package: ModelPackage
) -> None:
    records = [
        replace(one, features={**one.features, "temperature_C_mean": -99.0})
        for one in answers(settings, package)
    ]
    found = monitored(settings, records)
    assert found.verdict == "ALERT"
    drift = found.document["drift"]["features"]["temperature_C_mean"]
    assert drift["status"] == "alert"
    assert drift["cause"].startswith("sensor_fault")
    assert found.document["quality"]["out_of_range"]["temperature_C_mean"] == 1.0
    told = {part.name: part for part in found.parts}
    assert "temperature_C_mean" in told["drift"].why
    assert told["quality"].verdict == "WARNING"
    assert "temperature_C_mean out of range in 100.0%" in told["quality"].why


def test_predictions_no_battery_can_have_are_an_incident(
    settings: Settings, package: ModelPackage
) -> None:
    records = [
        replace(one, capacity_ah=900.0, capacity_high_ah=901.0)
        for one in answers(settings, package)
    ]
    found = monitored(settings, records)
    told = {part.name: part for part in found.parts}
    assert told["quality"].verdict == "ALERT"
    assert "100.0% of the predictions are out of physical range" in told["quality"].why
    assert told["predictions"].verdict == "ALERT"


def test_predictions_are_compared_only_where_this_package_gave_them(
    settings: Settings, package: ModelPackage
) -> None:
    own = answers(settings, package)
    former = [
        replace(
            one,
            prediction_id=uuid7(int(one.answered_at.timestamp() * 1000), 1, 10**6 + place),
            model_version="0",
            package_fingerprint="ab" * 32,
            capacity_ah=1.0,
            capacity_low_ah=0.5,
        )
        for place, one in enumerate(own)
    ]
    document = monitored(settings, [*own, *former]).document
    assert document["drift"]["rows"] == 2 * len(own)
    assert document["drift"]["prediction"]["n"] == len(own)
    assert document["drift"]["prediction"]["missing_share"] == 0.0
    assert "rows_of_other_views" not in document


def test_a_package_that_has_answered_nothing_yet_is_compared_by_what_was_asked(
    settings: Settings, package: ModelPackage
) -> None:
    """As in the first run after a promotion."""
    own = answers(settings, package)
    others = [replace(one, package_fingerprint="ab" * 32, model_version="0") for one in own]
    document = monitored(settings, others).document
    assert document["drift"]["prediction"] is None
    assert document["drift"]["rows"] == len(others)


def test_questions_of_another_view_are_told_and_not_taken_for_missing_values(
    settings: Settings, package: ModelPackage
) -> None:
    own = answers(settings, package)
    other = [
        replace(
            one,
            prediction_id=uuid7(int(one.answered_at.timestamp() * 1000), 1, 10**6 + place),
            package_fingerprint="ab" * 32,
            features={"start_voltage_V": 3.7},
        )
        for place, one in enumerate(own[:50])
    ]
    document = monitored(settings, [*own, *other]).document
    assert document["rows"] == len(own) + 50
    assert document["rows_of_other_views"] == 50
    assert document["drift"]["rows"] == len(own)
    assert set(document["quality"]["missing"].values()) == {0.0}
    assert "50 answers are to questions of another view" in notes_of(document)[0]


def test_answers_from_the_future_are_told_and_left_out(
    settings: Settings, package: ModelPackage
) -> None:
    records = answers(settings, package, times=1)
    ahead = NOW + timedelta(days=3)
    late = replace(
        records[0], prediction_id=uuid7(int(ahead.timestamp() * 1000), 0, 1), answered_at=ahead
    )
    document = monitored(settings, [*records, late]).document
    assert document["rows"] == len(records)
    assert document["rows_from_the_future"] == 1
    assert "look at the clocks" in notes_of(document)[0]


def test_a_run_after_the_clock_went_back_is_the_newest_all_the_same(
    settings: Settings, package: ModelPackage
) -> None:
    monitored(settings, answers(settings, package, times=1), now=NOW + timedelta(days=2))
    for _ in range(2):
        document = monitored(settings, []).document
        assert document["clock_went_back_s"] == pytest.approx(2 * 86_400, abs=1.0)
        with MonitoringRuns(settings.predictions_url) as runs:
            newest = runs.newest(MONITOR)
        assert newest is not None
        assert newest.document == document
        assert datetime.fromisoformat(newest.document["at"]) == NOW
    assert "the clock went back" in notes_of(document)[0]


def test_a_window_adds_up_to_the_same_however_the_log_is_cut(
    settings: Settings, package: ModelPackage
) -> None:
    records = answers(settings, package, times=2)
    with PredictionLog(settings.predictions_url) as log:
        log.append(records)
        looked = Looked(
            package=package,
            reference=reference_of(package),
            estimator=None,
            labels=label_table(Labels.beside(log).frame(NOW), tolerance=timedelta(days=7)),
            profile_of=settings.profile_of,
            old_before=NOW,
        )

        def window(rows: int) -> WindowSums:
            frames = log.frames(NOW - timedelta(days=60), NOW, rows, features=looked.features)
            return WindowSums.of(looked, frames, settings)

        whole, cut = window(50_000), window(7)
    assert whole.rows == cut.rows == len(records)
    assert whole.drift is not None
    assert cut.drift is not None
    assert whole.drift.to_json() == cut.drift.to_json()
    assert whole.quality is not None
    assert cut.quality is not None
    assert whole.quality.quality() == cut.quality.quality()
    assert whole.recent.equals(cut.recent)


def test_the_last_rows_are_kept_and_no_more(
    settings: Settings, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batteryops.lifecycle.log_window.RECENT_ROWS", 100)
    with PredictionLog(settings.predictions_url) as log:
        log.append(answers(settings, package))
        labels = label_table(Labels.beside(log).frame(NOW), tolerance=timedelta(days=7))
        looked = Looked(package, None, None, labels, settings.profile_of, NOW)
        frames = log.frames(NOW - timedelta(days=60), NOW, 30, features=looked.features)
        sums = WindowSums.of(looked, frames, settings)
    assert sums.recent.height == 100
    assert sums.recent["op_index"].max() == NOW - timedelta(hours=1)


def test_the_self_test_is_part_of_the_run_and_refuses_too_little_traffic(
    settings: Settings, package: ModelPackage
) -> None:
    few = monitored(settings, answers(settings, package, times=1), self_test=True).document
    assert "expected 400 rows" in few["self_test"]["refused"]
    assert "expected 400 rows" in notes_of(few)[0]


def test_planted_shifts_are_looked_for_in_a_table(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / "traffic.parquet"
    pl.DataFrame(
        {
            "asset_id": [f"EV-{n % 60}" for n in range(1200)],
            "voltage_V_mean": rng.normal(3.6, 0.05, 1200),
            "discharge_time_s": rng.normal(3000.0, 200.0, 1200),
        }
    ).write_parquet(file)
    found = look_for_planted(str(file), settings, Silent())
    assert found.delay_rows["1 sigma"] is not None
    assert found.false_alarm_share <= 0.10


def test_what_became_of_retraining_runs_is_told_to_prometheus(settings: Settings) -> None:
    assert "retraining" not in monitored(settings, []).document
    with RetrainingRuns(settings.predictions_url) as runs:
        lease = Leases.beside(runs).take("controller", "a", seconds=60, now=NOW)
        assert lease is not None
        run = runs.start(trigger="drift", reason="PSI 0.4", at=NOW, document={}, lease=lease)
        runs.move(run, "kept", at=NOW, lease=lease)
    document = monitored(settings, []).document
    assert document["retraining"] == [{"reason": "drift", "outcome": "kept", "runs": 1}]
    assert ("retraining_runs_total", ("drift", "kept"), 1.0) in set(samples_of(document))


def test_a_database_that_is_down_leaves_nothing_on_record(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise RecordsError("the ledger is out of reach")

    with monkeypatch.context() as patch:
        patch.setattr("batteryops.lifecycle.monitoring.Ledger", down)
        with pytest.raises(RecordsError, match="out of reach"):
            monitored(settings, [])
    with MonitoringRuns(settings.predictions_url) as runs:
        assert runs.newest(MONITOR) is None


def test_verdicts_of_nothing_say_so(settings: Settings) -> None:
    assert run_verdicts.of_drift(None, "no reference").verdict == "NOT_JUDGED"
    assert run_verdicts.of_predictions(None).why == "as for drift"
    assert run_verdicts.of_quality(None, settings).verdict == "NOT_JUDGED"
    assert run_verdicts.worst([]) == "OK"


def test_features_that_repeat_in_training_are_not_said_to_be_stuck(
    settings: Settings, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert package.document(REPEATING) == []
    stuck = [
        replace(one, features={**one.features, "temperature_C_max": 40.0})
        for one in answers(settings, package)
    ]
    told = monitored(settings, stuck).document["quality"]["stuck"]
    assert told["temperature_C_max"] > 0.9

    read = ModelPackage.document

    def with_one(self: ModelPackage, name: str) -> object:
        return ["temperature_C_max"] if name == REPEATING else read(self, name)

    monkeypatch.setattr(ModelPackage, "document", with_one)
    told = monitored(settings, []).document["quality"]["stuck"]
    assert "temperature_C_max" not in told
    assert told["voltage_V_mean"] == 0.0
