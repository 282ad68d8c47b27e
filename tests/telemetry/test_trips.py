from pathlib import Path

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.telemetry.trips import TRIP_COLUMNS, looks_like_trips, trips


def table(**columns: list[object]) -> pl.DataFrame:
    two: dict[str, list[object]] = {
        "vehicle_id": ["Vehicle 2", "Vehicle 1"],
        "trip_id": [7, 4],
        "dod": [14, 24],
        "duration_s": [2250.0, 3110.0],
        "voltage_mean": [401.5, 398.25],
        "voltage_std": [3.5, 4.5],
        "voltage_drop_time_s": [None, 120.0],
        "current_mean": [21.5, 30.25],
        "current_max": [210.0, 190.0],
        "current_min": [-80.0, -1000.0],
        "delta_temp": [6, 7],
        "mean_max_temp": [27.0, 26.5],
        "max_temp": [27, 28],
    }
    return pl.DataFrame(two | columns)


def test_a_trip_is_one_sample_of_its_means_with_discharge_negative() -> None:
    samples = trips(table(), source="trips").samples

    assert samples.drop("started_at").rows() == [
        ("Vehicle 1", 4, "trip", 3110.0, 398.25, -30.25, 26.5),
        ("Vehicle 2", 7, "trip", 2250.0, 401.5, -21.5, 27.0),
    ]
    assert samples["started_at"].is_null().all()


def test_the_other_columns_go_to_the_cycle_under_names_with_units() -> None:
    cycle = trips(table(), source="trips").cycles.filter(asset_id="Vehicle 2").row(0, named=True)

    assert {name: cycle[name] for name in list(cycle)[9:]} == {
        "dod_pct": 14.0,
        "duration_s": 2250.0,
        "voltage_std_v": 3.5,
        "voltage_drop_time_s": None,
        "current_max_a": 80.0,  # published as a minimum of -80 with positive = discharge
        "current_min_a": -210.0,
        "delta_temperature_c": 6.0,
        "temperature_max_c": 27.0,
        "sentinel_columns": None,
    }
    assert (cycle["n_samples"], cycle["capacity_ah"]) == (1, None)


def test_a_sentinel_stays_as_published_and_says_where_it_came_from() -> None:
    cycle = trips(table(), source="trips").cycles.filter(asset_id="Vehicle 1")

    assert cycle.select("current_max_a", "sentinel_columns").row(0) == (-1000.0, "current_min")


def test_several_sentinels_are_all_named() -> None:
    cycles = trips(
        table(current_mean=[-1000.0, 1.0], current_min=[-1000.0, 2.0]), source="t"
    ).cycles

    assert cycles["sentinel_columns"].to_list() == [None, "current_mean, current_min"]


def test_a_trip_table_is_known_by_its_columns() -> None:
    assert looks_like_trips(table().columns)
    assert not looks_like_trips(["vehicle_id", "voltage_V_mean"])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (table().drop("dod"), "missing column dod"),
        (table().clear(), "no rows"),
        (table(voltage_mean=["high", "low"]), "column voltage_mean is String, expected numbers"),
        (table(trip_id=[1.5, 2.5]), "column trip_id is Float64, expected whole numbers"),
        (table(trip_id=[0, 1]), "a trip_id is missing, below 1"),
        (table(trip_id=[None, 1]), "a trip_id is missing, below 1"),
        (table(vehicle_id=[1, 2]), "column vehicle_id is Int64, expected text"),
        (table(vehicle_id=["V", "V"], trip_id=[3, 3]), "cycle 3 of V occurs twice"),
    ],
)
def test_a_table_that_is_not_as_published_is_refused(broken: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=f"fleet: {message}"):
        trips(broken, source="fleet")


def test_asking_a_trip_table_for_discharges_is_refused() -> None:
    with pytest.raises(DataError, match="only cycles of kind trip"):
        trips(table(), source="fleet", kinds={"discharge"})


@pytest.mark.data
def test_the_published_fleet_is_read_whole(data_folder: Path) -> None:
    path = data_folder / "source_system" / "chengdu_trip_features.parquet"
    published = pl.read_parquet(path).sort("vehicle_id", "trip_id")

    recording = trips(published, source="chengdu")

    assert set(TRIP_COLUMNS) < set(published.columns)
    assert (recording.cycles.height, recording.samples.height) == (7391, 7391)
    assert recording.samples["voltage_v"].equals(published["voltage_mean"])
    assert (recording.samples["current_a"] + published["current_mean"]).abs().max() == 0.0
    marked = recording.cycles.filter(pl.col("sentinel_columns").is_not_null())
    assert marked["sentinel_columns"].unique().to_list() == ["current_min"]
    assert marked.height == (published["current_min"] == -1000.0).sum() == 141
