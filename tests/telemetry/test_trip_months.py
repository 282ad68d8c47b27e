from datetime import date
from pathlib import Path

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.telemetry import read
from batteryops.telemetry.trip_months import months_of_trips


def trips(**columns: list[object]) -> pl.DataFrame:
    three: dict[str, list[object]] = {
        "asset_id": ["Vehicle 1"] * 3,
        "cycle_index": [9, 1, 4],
        "dod_pct": [30.0, 10.0, 20.0],
        "delta_temperature_c": [6.0, 4.0, 5.0],
        "voltage_std_v": [3.0, 1.0, 2.0],
    }
    return pl.DataFrame(three | columns)


def monthly(**columns: list[object]) -> pl.DataFrame:
    two: dict[str, list[object]] = {
        "vehicle_id": ["Vehicle 1"] * 2,
        "month": ["2022-02", "2022-01"],
        "avg_dod": [30.0, 15.0],
        "avg_delta_temp": [6.0, 4.5],
        "avg_voltage_std": [3.0, 1.5],
        "trip_count": [1, 2],
    }
    return pl.DataFrame(two | columns)


def test_trips_are_dealt_to_months_in_their_order_where_every_mean_is_repeated() -> None:
    assert months_of_trips(trips(), monthly()).rows() == [
        ("Vehicle 1", 1, date(2022, 1, 1)),
        ("Vehicle 1", 4, date(2022, 1, 1)),
        ("Vehicle 1", 9, date(2022, 2, 1)),
    ]


def test_an_order_that_does_not_repeat_the_means_is_not_believed() -> None:
    with pytest.raises(DataError, match="trip_id is not their order in time"):
        months_of_trips(trips(dod_pct=[10.0, 30.0, 20.0]), monthly())


def test_months_of_other_trips_are_refused() -> None:
    with pytest.raises(DataError, match="count 4 trips of Vehicle 1, the table has 3"):
        months_of_trips(trips(), monthly(trip_count=[2, 2]))
    with pytest.raises(DataError, match="count 0 trips of Vehicle 1"):
        months_of_trips(trips(), monthly(vehicle_id=["Vehicle 2"] * 2))


def test_missing_columns_and_odd_months_are_refused() -> None:
    with pytest.raises(DataError, match="missing column trip_count"):
        months_of_trips(trips(), monthly().drop("trip_count"))
    with pytest.raises(DataError, match="missing column dod_pct"):
        months_of_trips(trips().drop("dod_pct"), monthly())
    with pytest.raises(DataError, match="not written YYYY-MM"):
        months_of_trips(trips(), monthly(month=["February", "2022-01"]))


@pytest.mark.data
def test_the_order_of_the_chengdu_trips_repeats_all_33_published_months(data_folder: Path) -> None:
    folder = data_folder / "source_system"
    recording = read(folder / "chengdu_trip_features.parquet")
    published = pl.read_csv(folder / "chengdu_monthly_features.csv")
    found = months_of_trips(recording.cycles, published)
    counts = found.group_by("asset_id", "month").len()
    assert found.height == 7391
    assert counts.height == 33
    assert counts["month"].min() == date(2021, 11, 1)
    shuffled = recording.cycles.with_columns(pl.col("cycle_index").shuffle(seed=1).over("asset_id"))
    with pytest.raises(DataError, match="no month can be told"):
        months_of_trips(shuffled, published)
