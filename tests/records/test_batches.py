"""A batch is one transaction; each of its rows is a prediction like any other."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from batteryops.errors import RecordsError
from batteryops.records.batches import BatchVersion, PredictionBatch, versions_from_json
from batteryops.records.frames import FRAME
from batteryops.records.identifiers import new_id, uuid7
from batteryops.records.predictions import PredictionLog, PredictionRecord

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
VERSIONS = (
    BatchVersion("3", "champion", "ab" * 32),
    BatchVersion("4", "challenger", "cd" * 32),
)


def batch(table: pl.DataFrame | None = None, **changes: object) -> PredictionBatch:
    """Three rows: answered by the champion, refused, answered out of domain by the challenger."""
    base = PredictionBatch(
        batch_id=id_of(NOW),
        request_id="request-1",
        answered_at=NOW,
        model_name="ev-soh-predictor",
        model_versions=VERSIONS,
        table=three_rows() if table is None else table,
        latency_ms=1.25,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # names and types as above


def three_rows() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": [0, 1, 2],
            "vehicle_id": ["B0005", None, "B0006"],
            "voltage_V_mean": [3.53, None, 0.1 + 0.2],
            "discharge_time_s": [3366, 1, None],
            "capacity_ah": [1.8564874208181574, None, 1.5],
            "soh": [0.9282437104090787, None, 0.75],
            "low": [1.7, None, 1.4],
            "high": [1.9, None, 1.6],
            "status": ["ok", None, "out_of_domain"],
            "outside": [[], None, ["voltage_V_mean"]],
            "outside_jointly": [False, None, True],
            "version": ["3", None, "4"],
            "role": ["champion", None, "challenger"],
            "error": [None, "vehicle_id is missing", None],
        }
    )


def id_of(at: datetime, number: int = 0) -> str:
    """An identifier as it would have been made at that time."""
    return uuid7(int(at.timestamp() * 1000), number, 0)


def single(at: datetime, number: int = 0) -> PredictionRecord:
    return PredictionRecord(
        prediction_id=id_of(at, number),
        request_id="r",
        answered_at=at,
        vehicle_id="B0007",
        model_name="ev-soh-predictor",
        model_version="3",
        package_fingerprint="ab" * 32,
        role="champion",
        features={"voltage_V_mean": 3.5 + number, "other": None},
        capacity_ah=1.5,
        soh=0.75,
        latency_ms=0.1,
        capacity_low_ah=None,
        capacity_high_ah=None,
        status="ok",
    )


@pytest.fixture
def log(url: str) -> Iterator[PredictionLog]:
    with PredictionLog(url) as opened:
        yield opened


def test_a_version_that_was_not_served_is_told_from_one_that_was(log: PredictionLog) -> None:
    unheard = (VERSIONS[0], replace(VERSIONS[1], served=False))
    one = batch(model_versions=unheard)
    log.append_batch(one)
    first, last = log.get(f"{one.batch_id}:0"), log.get(f"{one.batch_id}:2")
    assert first is not None
    assert last is not None
    assert (first.served, last.served) == (True, False)
    (frame,) = log.frames(NOW, NOW + timedelta(seconds=1))
    assert frame["served"].to_list() == [True, False]


def test_what_batches_said_of_versions_before_there_were_shadows_is_read() -> None:
    kept = [{"version": "3", "role": "champion", "fingerprint": "ab" * 32}]
    assert versions_from_json(kept) == VERSIONS[:1]


def test_a_row_of_a_batch_is_read_back_as_a_prediction(log: PredictionLog) -> None:
    one = batch()
    log.append_batch(one)
    assert log.get(f"{one.batch_id}:0") == PredictionRecord(
        prediction_id=f"{one.batch_id}:0",
        request_id="request-1",
        answered_at=NOW,
        vehicle_id="B0005",
        model_name="ev-soh-predictor",
        model_version="3",
        package_fingerprint="ab" * 32,
        role="champion",
        features={"voltage_V_mean": 3.53, "discharge_time_s": 3366.0},
        capacity_ah=1.8564874208181574,
        soh=0.9282437104090787,
        latency_ms=1.25,
        capacity_low_ah=1.7,
        capacity_high_ah=1.9,
        status="ok",
    )
    last = log.get(f"{one.batch_id}:2")
    assert last is not None
    assert last.features == {"voltage_V_mean": 0.1 + 0.2, "discharge_time_s": None}
    assert (last.model_version, last.package_fingerprint) == ("4", "cd" * 32)
    assert (last.status, last.outside, last.outside_jointly) == (
        "out_of_domain",
        ("voltage_V_mean",),
        True,
    )


@pytest.mark.parametrize("row", ["1", "3", "-1", "+0", "00", "0 ", "", "x", "0:0", "²"])
def test_a_row_without_an_answer_or_that_is_none_is_not_found(log: PredictionLog, row: str) -> None:
    one = batch()
    log.append_batch(one)
    assert log.get(f"{one.batch_id}:{row}") is None
    assert log.get(f"{new_id()}:0") is None


def test_answered_rows_of_batches_count(log: PredictionLog) -> None:
    assert log.count() == 0
    log.append_batch(batch())
    log.append([single(NOW)])
    assert log.count() == 3
    assert len(log.recent(10)) == 1  # of single predictions, as it says


def test_a_batch_that_is_there_already_is_refused(log: PredictionLog) -> None:
    one = batch()
    log.append_batch(one)
    with pytest.raises(RecordsError, match="not usable"):
        log.append_batch(one)
    assert log.count() == 2


def test_a_batch_without_rows_is_kept(log: PredictionLog) -> None:
    log.append_batch(batch(three_rows().clear()))
    assert log.count() == 0


def test_frames_give_every_prediction_of_a_span_once(log: PredictionLog) -> None:
    hour = timedelta(hours=1)
    log.append([single(NOW + number * hour, number) for number in range(6)])
    for number in range(6):
        at = NOW + number * hour
        log.append_batch(batch(batch_id=id_of(at, 100), answered_at=at))
    found = list(
        log.frames(
            NOW + hour,
            NOW + 4 * hour,
            batch_rows=2,
            features=["voltage_V_mean", "discharge_time_s"],
        )
    )
    schema = {**FRAME, "voltage_V_mean": pl.Float64(), "discharge_time_s": pl.Float64()}
    assert [dict(frame.schema) for frame in found] == [schema] * len(found)
    assert max(frame.height for frame in found) == 2
    table = pl.concat(found)
    assert table["prediction_id"].to_list() == [
        *(id_of(NOW + number * hour, number) for number in (1, 2, 3)),
        *(f"{id_of(NOW + number * hour, 100)}:{row}" for number in (1, 2, 3) for row in (0, 2)),
    ]
    assert table["voltage_V_mean"].to_list() == [4.5, 5.5, 6.5, *[3.53, 0.1 + 0.2] * 3]
    assert table["discharge_time_s"].to_list() == [None] * 3 + [3366.0, None] * 3
    assert table["outside"].to_list()[-2:] == [[], ["voltage_V_mean"]]
    assert table["answered_at"][0] == NOW + hour


def test_frames_and_get_say_the_same_of_a_row(log: PredictionLog) -> None:
    one = batch()
    log.append_batch(one)
    log.append([single(NOW)])
    [singles, rows] = log.frames(NOW, NOW + timedelta(seconds=1))
    for values in (*singles.iter_rows(named=True), *rows.iter_rows(named=True)):
        record = log.get(values["prediction_id"])
        assert record is not None
        assert {name: getattr(record, name) for name in FRAME} == {
            **values,
            "outside": tuple(values["outside"]),
        }


def test_numbers_of_single_precision_stay_so_and_take_less_room(log: PredictionLog) -> None:
    n_rows = 20_000
    table = pl.concat([three_rows()[:1]] * n_rows).with_columns(
        row=pl.int_range(n_rows, dtype=pl.Int32),
        voltage_V_mean=(pl.int_range(n_rows) * 0.37).sin(),
    )
    small = table.with_columns(pl.col(pl.Float64).cast(pl.Float32))
    saved = len(batch(table).content()) - len(batch(small).content())
    assert saved > 3 * n_rows  # of 4 bytes a row in the one column that varies
    log.append_batch(batch(small))
    record = log.get(f"{id_of(NOW)}:7")
    assert record is not None
    assert record.features["voltage_V_mean"] == small["voltage_V_mean"][7]
    [frame] = log.frames(NOW, NOW + timedelta(seconds=1), features=["voltage_V_mean"])
    assert frame["voltage_V_mean"].dtype == frame["capacity_ah"].dtype == pl.Float64


def test_frames_of_an_empty_span_are_none(log: PredictionLog) -> None:
    log.append([single(NOW)])
    assert list(log.frames(NOW - timedelta(days=1), NOW)) == []


def test_frames_refuse_naive_times_no_rows_and_features_called_like_columns(
    log: PredictionLog,
) -> None:
    with pytest.raises(RecordsError, match="has no time zone"):
        next(log.frames(datetime(2026, 1, 1), NOW))  # noqa: DTZ001  # that is the point
    with pytest.raises(RecordsError, match="batch_rows is 0"):
        next(log.frames(NOW, NOW, 0))
    with pytest.raises(RecordsError, match="soh: a column of every frame"):
        next(log.frames(NOW, NOW, features=["soh"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pl.col("row") + 1, "row does not count from 0"),
        (pl.lit("a").alias("voltage_V_mean"), "feature voltage_V_mean is String"),
        (pl.lit(1).alias("vehicle_id"), "column vehicle_id is Int32, expected String"),
        (pl.lit("ok").alias("error"), "both an answer and an error, or neither"),
        (pl.lit(None).alias("error"), "both an answer and an error, or neither"),
        (pl.lit(None, pl.String).alias("role"), "a row has a capacity, but not"),
        (pl.lit(float("nan")).alias("low"), "a number is not finite"),
        (pl.lit(float("inf")).alias("voltage_V_mean"), "a number is not finite"),
        (pl.lit("7").alias("version"), r"version '7' is not one of \['3', '4'\]"),
        (pl.lit("unknown").alias("status"), "status 'unknown' is not one of"),
    ],
)
def test_a_table_that_could_not_be_read_back_is_refused(change: pl.Expr, said: str) -> None:
    table = three_rows().with_columns(change)
    with pytest.raises(RecordsError, match=said):
        batch(table)


def test_a_batch_lacking_a_column_a_zone_or_with_a_version_twice_is_refused() -> None:
    with pytest.raises(RecordsError, match="column soh is missing"):
        batch(three_rows().drop("soh"))
    with pytest.raises(RecordsError, match="has no time zone"):
        batch(answered_at=datetime(2026, 1, 1))  # noqa: DTZ001  # that is the point
    with pytest.raises(RecordsError, match="named twice"):
        batch(model_versions=(*VERSIONS, VERSIONS[0]))


def test_a_batch_that_was_changed_in_the_database_is_refused_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    one = batch()
    with PredictionLog(f"sqlite:///{file}") as log:
        log.append_batch(one)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("UPDATE prediction_batches SET content = x'00'")
            connection.commit()
        with pytest.raises(RecordsError, match=r"cannot be read.*restore the database"):
            log.get(f"{one.batch_id}:0")


def test_a_full_disk_keeps_nothing_of_a_batch(
    tmp_path: Path,
) -> None:
    with PredictionLog(f"sqlite:///{tmp_path}/a.db") as log:
        with log._database.engine.connect() as connection:  # noqa: SLF001  # the pool's only one
            connection.exec_driver_sql("PRAGMA max_page_count = 40")
        n_rows = 20_000
        table = pl.concat([three_rows()[:1]] * n_rows).with_columns(
            row=pl.int_range(n_rows, dtype=pl.Int32),
            voltage_V_mean=pl.int_range(n_rows).hash().cast(pl.Float64),
        )
        with pytest.raises(RecordsError, match="disk is full"):
            log.append_batch(batch(table))
        assert log.count() == 0
        log.append_batch(batch())
        assert log.count() == 2


def test_what_was_written_moves_into_the_database_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batteryops.records.checkpoints.EVERY_S", 0.0)
    monkeypatch.setattr("batteryops.records.checkpoints._LARGE", 1)
    file = tmp_path / "a.db"
    with PredictionLog(f"sqlite:///{file}") as log:
        log.append_batch(batch())
        deadline = time.monotonic() + 10
        while not _holds_batch(file, tmp_path / "copy.db") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert _holds_batch(file, tmp_path / "copy.db")


def _holds_batch(file: Path, copy: Path) -> bool:
    """Whether the database file holds the batch without its write-ahead log."""
    copy.write_bytes(file.read_bytes())
    try:
        with closing(sqlite3.connect(copy)) as connection:
            [[n_rows]] = connection.execute("SELECT count(*) FROM prediction_batches").fetchall()
    except sqlite3.OperationalError:
        return False
    return bool(n_rows)


def test_a_batch_on_postgresql_and_sqlite_is_the_same_file(new_url: Callable[[], str]) -> None:
    one = batch()
    for _ in range(2):
        with PredictionLog(new_url()) as log:
            log.append_batch(one)
            assert log.count() == one.n_answered


def test_answers_since_a_time_are_those_of_singles_and_batches_that_went_out(
    log: PredictionLog,
) -> None:
    hour = timedelta(hours=1)
    shadow = [replace(one, served=False) for one in VERSIONS]
    log.append_batch(batch())  # two of its three rows have an answer
    log.append_batch(batch(batch_id=id_of(NOW + hour), answered_at=NOW + hour))
    log.append_batch(
        batch(batch_id=id_of(NOW + hour, 1), answered_at=NOW + hour, model_versions=shadow)
    )
    unheard = replace(single(NOW, 1), served=False)
    log.append([single(NOW - hour), single(NOW, 2), unheard])
    assert [log.answered_since(NOW + step * hour) for step in (-2, 0, 1, 2)] == [6, 5, 2, 0]


def test_a_time_without_a_zone_counts_nothing(log: PredictionLog) -> None:
    with pytest.raises(RecordsError, match="no time zone"):
        log.answered_since(NOW.replace(tzinfo=None))
