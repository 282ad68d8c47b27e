"""Builders of recordings, small ones by hand and the NASA discharges."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from batteryops.schema import CYCLES, SAMPLES, Recording

Row = tuple[float | None, float | None, float | None, float | None]
MakeRecording = Callable[[dict[tuple[str, int], Sequence[Row]]], Recording]

# time s, voltage V, current A, temperature degC; the load starts at 20 s, falls below the cutoff
# of 2.7 V at 1500 s and is off at 1560 s
HAND_WORKED: list[Row] = [
    (0.0, 4.2, 0.0, 24.0),
    (10.0, 4.2, 0.0, 24.0),
    (20.0, 4.0, -2.0, 24.0),
    (80.0, 3.9, -2.0, 25.0),
    (300.0, 3.8, -2.0, 26.0),
    (340.0, 3.7, -2.0, 27.0),
    (640.0, 3.5, -2.0, 28.0),
    (920.0, 3.4, -2.0, 29.0),
    (1240.0, 3.3, -2.0, 30.0),
    (1500.0, 2.6, -2.0, 31.0),
    (1560.0, 3.2, 0.0, 30.0),
]


def _recording(cycles: dict[tuple[str, int], Sequence[Row]]) -> Recording:
    samples = [
        {
            "asset_id": asset,
            "cycle_index": index,
            "kind": "discharge",
            "time_s": time,
            "voltage_v": voltage,
            "current_a": current,
            "temperature_c": temperature,
        }
        for (asset, index), rows in cycles.items()
        for time, voltage, current, temperature in rows
    ]
    listed = [
        {
            "asset_id": asset,
            "cycle_index": index,
            "kind": "discharge",
            "ambient_temperature_c": 24.0,
            "n_samples": len(rows),
            "capacity_ah": 1.5,
        }
        for (asset, index), rows in cycles.items()
    ]
    return Recording(
        pl.DataFrame(samples, schema=SAMPLES), pl.DataFrame(listed, schema=CYCLES), "a test"
    )


@pytest.fixture(scope="session")
def make_recording() -> MakeRecording:
    """Builds a recording of discharges from `(time, voltage, current, temperature)` rows."""
    return _recording


@pytest.fixture(scope="session")
def hand_worked() -> Recording:
    """One discharge whose features the tests work out by hand."""
    return _recording({("A", 2): HAND_WORKED})


@pytest.fixture(scope="session")
def nasa(data_folder: Path) -> Recording:
    """The 1,915 discharges of the 27 NASA cells."""
    folder = data_folder / "nasa"
    listed = pl.read_csv(folder / "cycles.csv", infer_schema=False).filter(
        pl.col("type") == "discharge"
    )
    cycles = listed.select(
        asset_id=pl.col("cell"),
        cycle_index=pl.col("op_index").cast(pl.Int32),
        kind=pl.col("type"),
        started_at=pl.col("start_time").str.to_datetime(time_unit="us"),
        ambient_temperature_c=pl.col("ambient_temperature_c").cast(pl.Float64),
        n_samples=pl.col("n_rows").cast(pl.Int64),
        capacity_ah=pl.col("capacity_ah").cast(pl.Float64),
        re_ohm=pl.lit(None, pl.Float64),
        rct_ohm=pl.lit(None, pl.Float64),
    )
    cells = [
        pl.read_parquet(path).select(
            asset_id=pl.lit(path.name.removesuffix("_discharge.parquet")),
            cycle_index=pl.col("op_index").cast(pl.Int32),
            kind=pl.lit("discharge"),
            started_at=pl.lit(None, pl.Datetime("us")),
            time_s=pl.col("time_s"),
            voltage_v=pl.col("voltage_measured_v"),
            current_a=pl.col("current_measured_a"),
            temperature_c=pl.col("temperature_measured_c"),
        )
        for path in sorted((folder / "tidy").glob("*_discharge.parquet"))
    ]
    return Recording(pl.concat(cells), cycles, "NASA")


@pytest.fixture(scope="session")
def published(data_folder: Path) -> pl.DataFrame:
    """The source system's feature matrix of these discharges, under our keys, sorted by them."""
    return (
        pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv")
        .rename({"battery_id": "asset_id", "cycle": "op_index", "capacity": "capacity_ah"})
        .with_columns(pl.col("op_index").cast(pl.Int32))
        .sort("asset_id", "op_index")
    )
