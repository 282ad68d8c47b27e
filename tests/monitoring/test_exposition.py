"""A monitoring run as metrics: what it says and nothing else, whatever becomes of the database."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from batteryops.errors import DataError, RecordsError
from batteryops.monitoring.exposition import (
    MonitoringCollector,
    NewestRun,
    samples_of,
    write_textfile,
)
from batteryops.monitoring.metric_names import METRICS, RUN_METRICS

DOCUMENT: dict[str, Any] = {
    "at": "2026-03-01T12:00:00+00:00",
    "seconds": 1.5,
    "window_days": 30,
    "model": {"version": "3", "fingerprint": "f" * 64},
    "rows": 1200,
    "drift": {
        "verdict": "ALERT",
        "retraining_wanted": ["discharge_time_s"],
        "features": {
            "discharge_time_s": {"psi": 0.31, "ks": 0.25, "status": "alert", "cause": "climate"},
            "delta_T_C": {"psi": 0.28, "ks": 0.2, "status": "alert", "cause": None},
            "voltage_V_mean": {"psi": 0.02, "ks": 0.01, "status": "ok", "cause": None},
            "current_A_mean": {"psi": None, "ks": float("nan"), "status": "too_few"},
        },
        "prediction": {"psi": 0.12, "ks": 0.13, "status": "warning"},
    },
    "performance": {
        "overall": {
            "mae_ah": 0.021,
            "mae_low_ah": 0.018,
            "mae_high_ah": 0.025,
            "r2": 0.97,
            "bias_ah": -0.002,
            "interval_coverage": 0.91,
            "n": 240,
            "n_vehicles": 12,
        },
        "by": {
            "version": {"3": {"mae_ah": 0.021}},
            "profile": {"nasa_18650": {"mae_ah": 0.021}, "other": {"n": 3}},
            "vehicle": {"B0005": {"mae_ah": 0.02}},
        },
        "label_age_s": {"p50": 604800.0, "p90": 1209600.0, "newest": 3600.0},
        "label_coverage": 0.2,
    },
    "error_estimate": {"mae_ah": 0.023, "low": 0.02, "high": 0.03, "method": "held out"},
    "quality": {
        "missing": {"delta_T_C": 0.01},
        "out_of_range": {"delta_T_C": 0.02},
        "stuck": {"delta_T_C": 0.03},
        "duplicates": 0.001,
        "cycle_count_back": 2,
        "out_of_physical_range": 0.004,
        "out_of_domain": 0.05,
        "refused": None,
    },
    "self_test": {"delay_rows": {"0.5 sigma": 300, "stuck": None}, "false_alarm_share": 0.04},
    "ledger": {"entries": 17, "intact": True, "head": "0" * 64},
    "backup": {"age_s": 7200},
    "retraining": [{"reason": "drift", "outcome": "promoted", "runs": 2}],
}


def exposed(document: Mapping[str, Any] | None) -> dict[str, float]:
    """Samples by name and labels (in the order of their names), as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(MonitoringCollector(lambda: document))
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_a_whole_document_is_told_by_the_declared_names() -> None:
    assert exposed(DOCUMENT) == {
        "model_mae": 0.021,
        "model_mae_low": 0.018,
        "model_mae_high": 0.025,
        "model_r2": 0.97,
        "model_bias_ah": -0.002,
        "model_interval_coverage": 0.91,
        "model_mae_estimate": 0.023,
        "model_mae_by_group|version|3": 0.021,
        "model_mae_by_group|profile|nasa_18650": 0.021,
        "model_predictions_joined": 240,
        "label_coverage": 0.2,
        "label_age_seconds|0": 3600,
        "label_age_seconds|0.5": 604800,
        "label_age_seconds|0.9": 1209600,
        "feature_psi|discharge_time_s": 0.31,
        "feature_psi|delta_T_C": 0.28,
        "feature_psi|voltage_V_mean": 0.02,
        "feature_ks|discharge_time_s": 0.25,
        "feature_ks|delta_T_C": 0.2,
        "feature_ks|voltage_V_mean": 0.01,
        "feature_drift_status|discharge_time_s": 2,
        "feature_drift_status|delta_T_C": 2,
        "feature_drift_status|voltage_V_mean": 0,
        "drift_cause|climate|discharge_time_s": 1,
        "drift_cause|unknown|delta_T_C": 1,
        "drift_refused": 0,
        "prediction_psi": 0.12,
        "prediction_ks": 0.13,
        "prediction_drift_status": 1,
        "retraining_wanted": 1,
        "retraining_runs_total|promoted|drift": 2,
        "feature_missing_share|delta_T_C": 0.01,
        "feature_out_of_range_share|delta_T_C": 0.02,
        "feature_stuck_share|delta_T_C": 0.03,
        "predictions_out_of_range_share": 0.004,
        "predictions_out_of_domain_share": 0.05,
        "predictions_duplicate_share": 0.001,
        "cycle_count_back": 2,
        "monitoring_last_run_timestamp_seconds": 1772366400,
        "monitoring_run_duration_seconds": 1.5,
        "monitoring_window_rows": 1200,
        "ledger_entries": 17,
        "ledger_intact": 1,
        "backup_age_seconds": 7200,
        "drift_self_test_delay_rows|0.5 sigma": 300,
        "drift_self_test_false_alarm_share": 0.04,
    }


def test_all_that_is_declared_of_a_run_can_be_told() -> None:
    document = DOCUMENT | {"quality": DOCUMENT["quality"] | {"refused": 0.01}}
    assert {name for name, _, _ in samples_of(document)} == {one.name for one in RUN_METRICS}


def test_names_are_declared_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


def test_what_a_run_does_not_know_has_no_sample() -> None:
    assert exposed(None) == {}
    assert exposed({"drift": {"refused": "too few rows"}}) == {"drift_refused": 1}
    assert exposed({"drift": {"features": {}, "prediction": None}}) == {"drift_refused": 0}


@pytest.mark.parametrize(
    "document",
    [
        {"at": "noon", "rows": "many", "drift": [], "performance": 5, "quality": {"missing": 1}},
        {"drift": {"features": {"a": 5, "": {"psi": 1}}}},
        {"performance": {"by": {"version": [1]}, "label_age_s": "late"}},
        {"retraining": [5, {"reason": "", "outcome": "x", "runs": 1}, {"runs": "two"}]},
        {"ledger": {"intact": "yes"}, "backup": None, "self_test": {"delay_rows": 5}},
    ],
)
def test_a_document_that_is_not_what_it_should_be_fails_no_scrape(document: Any) -> None:  # noqa: ANN401  # wrong ones
    assert exposed(document).keys() <= {"drift_refused"}


def test_the_database_is_asked_at_most_every_few_seconds_however_many_scrape() -> None:
    asked = []

    def read() -> Mapping[str, Any]:
        asked.append(1)
        return DOCUMENT

    newest = NewestRun(read, every_s=3600, wait_s=30)
    threads = [threading.Thread(target=newest) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert newest() == DOCUMENT
    assert len(asked) == 1


@pytest.mark.parametrize("error", [RecordsError("the database is away"), ValueError("a fault")])
def test_while_the_database_is_away_what_was_known_stays(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Mapping[str, Any] | Exception] = [DOCUMENT, error, error, {"rows": 1}]

    def read() -> Mapping[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    newest = NewestRun(read, every_s=0, wait_s=30)
    assert (newest(), newest.readable) == (DOCUMENT, True)
    assert (newest(), newest.readable) == (DOCUMENT, False)
    assert (newest(), newest.readable) == (DOCUMENT, False)
    assert caplog.text.count("the newest monitoring run cannot be read") == 1  # not every time
    assert (newest(), newest.readable) == ({"rows": 1}, True)


def test_a_database_that_hangs_holds_no_scrape_up() -> None:
    let_go = threading.Event()

    def read() -> Mapping[str, Any]:
        let_go.wait(30)
        return DOCUMENT

    newest = NewestRun(read, every_s=3600, wait_s=0.01)
    assert newest() is None
    assert newest() is None  # and no second thread hangs
    assert sum(thread.name == "monitoring" for thread in threading.enumerate()) == 1
    let_go.set()
    deadline = time.monotonic() + 30
    while newest() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert newest() == DOCUMENT


def test_the_textfile_says_the_same_and_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "collector" / "batteryops.prom"
    write_textfile({"rows": 1}, path)
    assert path.read_text().splitlines()[-1] == "monitoring_window_rows 1.0"
    write_textfile(DOCUMENT, path)
    text = path.read_text()
    found = {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert {"model_mae", "feature_psi", "retraining_runs_total"} <= found
    assert [each.name for each in path.parent.iterdir()] == ["batteryops.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_textfile_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_textfile(DOCUMENT, tmp_path / "file" / "batteryops.prom")


def test_ageing_is_told_with_its_cause_and_is_no_alert() -> None:
    drift = {
        "features": {
            "discharge_time_s": {"status": "alert", "psi": 2.0, "ks": 0.9, "cause": "ageing"},
            "delta_T_C": {"status": "alert", "psi": 0.3, "ks": 0.2, "cause": "climate"},
            "voltage_V_mean": {"status": "too_few"},
        },
        "prediction": {"status": "alert", "psi": 0.4, "ks": 0.3, "cause": "ageing"},
    }
    told = {(name, labels): value for name, labels, value in samples_of({"drift": drift})}
    assert told["feature_drift_status", ("discharge_time_s",)] == 0
    assert told["feature_drift_status", ("delta_T_C",)] == 2
    assert ("feature_drift_status", ("voltage_V_mean",)) not in told
    assert told["prediction_drift_status", ()] == 0
    assert told["drift_cause", ("discharge_time_s", "ageing")] == 1


def test_closing_waits_for_a_reading_that_is_under_way_and_begins_no_other() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()
    reads: list[int] = []

    def read() -> dict[str, Any]:
        reads.append(1)
        began.set()
        assert may_end.wait(20)
        ended.set()
        return {}

    newest = NewestRun(read, every_s=0, wait_s=0.01)
    assert newest() is None  # it takes too long for whoever asks
    assert began.wait(20)
    newest.close(wait_s=0.01)  # as long as it may
    assert not ended.is_set()
    threading.Timer(0.05, may_end.set).start()
    newest.close(wait_s=20)
    assert ended.is_set()
    newest()
    assert len(reads) == 1
    unread = NewestRun(read)
    unread.close()
    assert unread() is None
    assert len(reads) == 1
