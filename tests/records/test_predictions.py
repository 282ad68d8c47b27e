"""The prediction log keeps what it was given, durably, all or nothing."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batteryops.errors import RecordsError
from batteryops.records.identifiers import new_id
from batteryops.records.predictions import PredictionLog, PredictionRecord

WRITE_AND_DIE = """
import os, sys
from datetime import UTC, datetime
from batteryops.records.predictions import PredictionLog, PredictionRecord
log = PredictionLog(sys.argv[1])
log.append([PredictionRecord("the-id", "r", datetime.now(UTC), "B0005", "m", "1", "f", "champion",
                             {"a": 1.0}, 1.5, 0.75, 0.1, 1.4, 1.6, "ok")])
os.kill(os.getpid(), 9)
"""


def record(**changes: object) -> PredictionRecord:
    """An answer like the server's."""
    base = PredictionRecord(
        prediction_id=new_id(),
        request_id="request-1",
        answered_at=datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC),
        vehicle_id="B0005",
        model_name="ev-soh-predictor",
        model_version="3",
        package_fingerprint="ab" * 32,
        role="champion",
        features={"voltage_V_mean": 3.53, "discharge_time_s": 3366.781, "missing": None},
        capacity_ah=1.8564874208181574,
        soh=0.9282437104090787,
        latency_ms=0.21,
        capacity_low_ah=1.7912,
        capacity_high_ah=1.9217,
        status="ok",
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # names and types as above


@pytest.fixture
def log(url: str) -> Iterator[PredictionLog]:
    with PredictionLog(url) as opened:
        yield opened


def test_a_record_comes_back_as_it_was_written(log: PredictionLog) -> None:
    written = record()
    log.append([written])
    assert log.get(written.prediction_id) == written
    assert log.get("another") is None


def test_which_baseline_corrected_an_answer_comes_back(log: PredictionLog) -> None:
    written = record(baseline="3f2a91c0d4e5-v2")
    log.append([written])
    assert log.get(written.prediction_id) == written


def test_a_time_in_another_zone_comes_back_as_the_same_instant_in_utc(log: PredictionLog) -> None:
    local = datetime(2026, 3, 1, 20, 30, tzinfo=timezone(timedelta(hours=8)))
    written = record(answered_at=local)
    log.append([written])
    read = log.get(written.prediction_id)
    assert read is not None
    assert read.answered_at == datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert read.answered_at.utcoffset() == timedelta(0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    features=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1),
        st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    ),
    capacity=st.floats(0, 10),
)
def test_every_finite_number_comes_back_to_the_last_bit(
    log: PredictionLog, features: dict[str, float | None], capacity: float
) -> None:
    written = record(features=features, capacity_ah=capacity)
    log.append([written])
    assert log.get(written.prediction_id) == written


def test_an_append_with_one_bad_record_writes_none(log: PredictionLog) -> None:
    first = record()
    log.append([first])
    with pytest.raises(RecordsError, match="not usable"):
        log.append([record(), record(), replace(first)])
    assert log.count() == 1


def test_appending_nothing_is_no_transaction(log: PredictionLog) -> None:
    log.append([])
    assert log.count() == 0


def test_recent_gives_the_newest_first_and_of_one_vehicle_when_asked(log: PredictionLog) -> None:
    written = [record(vehicle_id=f"B000{5 + n % 2}") for n in range(6)]
    log.append(written)
    assert log.recent(4) == written[:1:-1]
    assert log.recent(10, "B0006") == written[5::-2]
    assert log.recent(10, "B0018") == []
    with pytest.raises(RecordsError, match="limit is 0, expected at least 1"):
        log.recent(0)


def test_threads_append_at_once_and_none_is_lost(log: PredictionLog) -> None:
    def work() -> None:
        for _ in range(10):
            log.append([record()])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.count() == 80


def test_a_record_outlives_a_process_that_is_killed_right_after_writing(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, url], check=False)  # noqa: S603  # own code
    assert done.returncode == -9
    with PredictionLog(url) as log:
        assert log.get("the-id") is not None


def test_logs_at_two_urls_are_two_logs(new_url: Callable[[], str]) -> None:
    with PredictionLog(new_url()) as one, PredictionLog(new_url()) as other:
        one.append([record()])
        assert (one.count(), other.count()) == (1, 0)
        one.ping()


def test_a_closed_log_opens_again_by_itself(log: PredictionLog) -> None:
    log.close()
    log.close()
    assert log.count() == 0


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(RecordsError, match=r"no time zone; give an aware time"):
        record(answered_at=datetime(2026, 3, 1, 12, 0))  # noqa: DTZ001  # that is the point


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    for changes in ({"capacity_ah": bad}, {"soh": bad}, {"features": {"a": bad}}):
        with pytest.raises(RecordsError, match="expected a finite number"):
            record(**changes)


def test_what_puts_an_input_outside_of_the_domain_is_kept(log: PredictionLog) -> None:
    written = record(
        status="out_of_domain",
        outside=("discharge_time_s", "voltage_V_mean"),
        outside_jointly=True,
    )
    log.append([written])
    assert log.get(written.prediction_id) == written


def test_a_status_without_its_cause_or_a_cause_without_its_status_is_refused() -> None:
    with pytest.raises(RecordsError, match="no feature outside"):
        record(status="out_of_domain")
    with pytest.raises(RecordsError, match="status ok with discharge_time_s outside"):
        record(outside=("discharge_time_s",))


def test_whether_an_answer_was_cached_and_went_out_comes_back(log: PredictionLog) -> None:
    written = record(cached=True, served=False)
    log.append([written])
    assert log.get(written.prediction_id) == written


def test_an_explanation_comes_back_and_adds_up(log: PredictionLog) -> None:
    written = record(capacity_ah=1.5, contributions={"a": 0.3, "b": -0.1}, base_ah=1.3)
    log.append([record(), written])
    assert log.get(written.prediction_id) == written
    with pytest.raises(RecordsError, match=r"add up to 1\.500020 Ah, expected the predicted 1\.5"):
        record(capacity_ah=1.5, contributions={"a": 0.30002, "b": -0.1}, base_ah=1.3)
    with pytest.raises(RecordsError, match="expected both or neither"):
        record(base_ah=1.0)
    with pytest.raises(RecordsError, match="contribution of a is nan, expected a finite number"):
        record(contributions={"a": float("nan")}, base_ah=1.0)


def test_an_explanation_can_follow_its_prediction_where_it_adds_up(log: PredictionLog) -> None:
    first, second, third = (record(capacity_ah=1.5, prediction_id=new_id()) for _ in range(3))
    log.append([first, second, third])
    log.add_explanations({})
    log.add_explanations(
        {
            first.prediction_id: ({"a": 0.25, "b": -0.5}, 1.75),
            second.prediction_id: ({"a": 0.25, "b": -0.5}, 1.76),
            "not there": ({"a": 0.25, "b": -0.5}, 1.75),
        }
    )
    assert log.get(first.prediction_id) == replace(
        first, contributions={"a": 0.25, "b": -0.5}, base_ah=1.75
    )
    assert log.get(second.prediction_id) == second
    assert log.get(third.prediction_id) == third


def test_an_interval_that_is_upside_down_is_refused() -> None:
    with pytest.raises(RecordsError, match="the lower end first"):
        record(capacity_low_ah=1.9, capacity_high_ah=1.8)


def test_answers_from_before_intervals_are_kept_and_say_that_nothing_is_known(
    tmp_path: Path,
) -> None:
    file = tmp_path / "predictions.db"
    url = f"sqlite:///{file}"
    with PredictionLog(url) as log:
        log.append([record(prediction_id="old")])
    newer = (
        "capacity_low_ah",
        "capacity_high_ah",
        "status",
        "outside",
        "outside_jointly",
        "baseline",
        "cached",
        "served",
        "contributions",
        "base_ah",
    )
    with closing(sqlite3.connect(file)) as connection:  # as the first migration left it
        for column in newer:
            connection.execute(f"ALTER TABLE predictions DROP COLUMN {column}")
        [[table]] = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%version%'"
        ).fetchall()
        later = (
            "prediction_batches",
            "labels",
            "api_keys",
            "monitoring_runs",
            "incidents",
            "leases",
            "retraining_runs",
            "retraining_requests",
        )
        for created in later:
            connection.execute(f"DROP TABLE {created}")
        connection.execute(
            "CREATE INDEX predictions_by_vehicle ON predictions (vehicle_id, prediction_id)"
        )
        connection.execute(f"UPDATE {table} SET version_num = 'p0001'")  # noqa: S608 - our own name
        connection.commit()
    with PredictionLog(url) as log:
        old = log.get("old")
        assert old is not None
        assert (old.capacity_low_ah, old.capacity_high_ah) == (None, None)
        assert (old.status, old.outside, old.outside_jointly) == ("unknown", (), False)
        assert old.baseline is None
        assert (old.cached, old.served) == (False, True)
        assert (old.contributions, old.base_ah) == (None, None)
        log.append([record(prediction_id="new")])
        assert log.count() == 2
