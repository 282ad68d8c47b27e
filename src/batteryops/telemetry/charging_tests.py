"""Charging tests of packs: `vehicles.csv` and one `vehicle_NN.parquet` for each pack.

The layout is that of the in-service packs of Z. Deng et al., Journal of Energy Chemistry 89 (2024)
345-354, doi 10.1016/j.jechem.2023.10.056. Three columns that the publisher gives are not read,
because the label can be had from them: `q_ah` (its sum over a whole test is the measured
capacity; the current is read instead), `segment_label` (the range of the battery management
system's state of charge) and the files `*_soc_ocv.csv` (their state of charge is charge over the
measured capacity of the very same test).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.schema import Profile
from batteryops.telemetry.assembly import FILE, collect_parquet, csv_text, real_number

VEHICLES_FILE: Final = "vehicles.csv"

CHARGING_SAMPLES: Final = pl.Schema(
    {
        "segment": pl.Int32(),  # stretches that the publisher cut the test into, in their order
        "time_s": pl.Float64(),  # since the start of the stretch
        "current_a": pl.Float64(),  # negative = discharge
        "cell_mean_v": pl.Float64(),
        "cell_max_v": pl.Float64(),  # null where it was not recorded
    }
)
"""One row per sample, sorted by segment and time."""

SAMPLE_S: Final = 1.0
"""The publisher states 1 Hz."""

POSSIBLE_CELL_V: Final = (1.5, 5.0)
POSSIBLE_C: Final = 10.0
"""A sample outside of these limits is no measurement."""

MAX_IMPOSSIBLE_SHARE: Final = 0.05
"""A record with more such samples is refused; fewer are left out and counted."""

_RECORDED: Final = pl.Schema(
    {
        "segment": pl.Int64(),
        "sample": pl.Int64(),
        "i_load_a": pl.Float64(),
        "v_cell_mean": pl.Float64(),
    }
)
_HIGHEST: Final = "v_cell_max"
_CELL_MEAN_V: Final = (2.5, 4.5)
_CELL_SAMPLE_V: Final = (2.0, 4.5)
_CELL_CUTOFF_V: Final = 2.8


@dataclass(frozen=True, slots=True)
class ChargingTest:
    """One pack, charged once from empty to full.

    Args:
        asset_id: the publisher's name of the vehicle.
        chemistry: as the publisher states it.
        rated_capacity_ah: the maker's rating; SoH is relative to it.
        cells_in_series: None where it is not published.
        capacity_ah: measured full charge, the label; None where it is not given.
        samples: as `CHARGING_SAMPLES` declares them.
        left_out: samples left out because no pack can have measured them.
    """

    asset_id: str
    chemistry: str
    rated_capacity_ah: float
    cells_in_series: int | None
    capacity_ah: float | None
    samples: pl.DataFrame
    left_out: int

    @property
    def soh_points(self) -> float | None:
        """Measured SoH in points of rated capacity (100 = rated); None without a label."""
        if self.capacity_ah is None:
            return None
        return 100.0 * self.capacity_ah / self.rated_capacity_ah

    @property
    def profile(self) -> Profile:
        """What is fixed for this pack: limits of one NCM cell times the cells in series.

        Raises:
            DataError: when the number of cells in series is not known.
        """
        cells = self.cells_in_series
        if cells is None:
            raise DataError(
                f"{self.asset_id}: the number of cells in series is not known, so the voltage "
                f"limits of the pack are not; give cells_in_series in {VEHICLES_FILE}"
            )
        rated = self.rated_capacity_ah
        return Profile(
            name=self.asset_id,
            level="pack",
            chemistry=self.chemistry,
            nominal_capacity_ah=rated,
            cells_in_series=cells,
            voltage_mean_v=(_CELL_MEAN_V[0] * cells, _CELL_MEAN_V[1] * cells),
            current_mean_a=(-3.0 * rated, 0.0),
            temperature_mean_c=(-20.0, 60.0),
            voltage_sample_v=(_CELL_SAMPLE_V[0] * cells, _CELL_SAMPLE_V[1] * cells),
            cutoff_v=_CELL_CUTOFF_V * cells,
            capacity_range_share=(0.0, 1.25),
            min_capacity_share=0.1,
        )


@dataclass(frozen=True, slots=True)
class ChargingTests:
    """The packs of one folder.

    Args:
        tests: sorted by name, at least one.
        without_record: vehicles that are listed but have no record file.
        source: the folder.
    """

    tests: tuple[ChargingTest, ...]
    without_record: tuple[str, ...]
    source: str


def read_charging_tests(folder: Path) -> ChargingTests:
    """Read the packs of a folder.

    Args:
        folder: holds `vehicles.csv` (`vehicle`, `rated_capacity_ah`, and where known
            `cells_in_series`, `chemistry`, `capacity_measured_ah` or `soh_measured`) and for each
            vehicle `<vehicle>.parquet` with `segment`, `sample` (1 Hz), `i_load_a` (negative =
            charging), `v_cell_mean`, and where recorded `v_cell_max`.

    Raises:
        DataError: a file that is missing, empty, unreadable or lacks a column; a record of a
            vehicle that is not listed; a sample that occurs twice; too many impossible samples.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; expected one with {VEHICLES_FILE} and <vehicle>.parquet"
        )
    listed = _vehicles(folder / VEHICLES_FILE)
    records = {path.stem: path for path in sorted(folder.glob("*.parquet"))}
    if not records:
        raise DataError(f"{folder}: no record files; expected <vehicle>.parquet")
    names = listed["vehicle"].to_list()
    if strangers := sorted(set(records) - set(names)):
        raise DataError(
            f"{records[strangers[0]]}: {strangers[0]} is not in {VEHICLES_FILE}, so its rated "
            "capacity is not known; add a row for it"
        )
    rows = {row["vehicle"]: row for row in listed.iter_rows(named=True)}
    tests = []
    for name, path in records.items():
        row = rows[name]
        samples, left_out = _samples(path, row["rated_capacity_ah"])
        tests.append(
            ChargingTest(
                asset_id=name,
                chemistry=row["chemistry"],
                rated_capacity_ah=row["rated_capacity_ah"],
                cells_in_series=row["cells_in_series"],
                capacity_ah=row["capacity_ah"],
                samples=samples,
                left_out=left_out,
            )
        )
    return ChargingTests(
        tests=tuple(tests),
        without_record=tuple(sorted(set(names) - set(records))),
        source=str(folder),
    )


def _vehicles(path: Path) -> pl.DataFrame:
    """One row per vehicle; the label is the measured capacity, or SoH times the rating."""
    texts = csv_text(path, required=("vehicle", "rated_capacity_ah"))
    optional = ("cells_in_series", "chemistry", "capacity_measured_ah", "soh_measured")
    texts = texts.with_columns(
        pl.lit(None, pl.String).alias(name) for name in optional if name not in texts.columns
    )
    table = texts.select(
        pl.col("vehicle").str.strip_chars(),
        real_number("rated_capacity_ah"),
        pl.col("cells_in_series").cast(pl.Int64, strict=False),
        pl.col("chemistry").fill_null("not published"),
        pl.coalesce(
            real_number("capacity_measured_ah"),
            real_number("soh_measured") * real_number("rated_capacity_ah"),
        ).alias("capacity_ah"),
    )
    checks = (
        (table["vehicle"].fill_null("") == "", "has no name"),
        (table["vehicle"].is_duplicated(), "occurs twice"),
        (~(table["rated_capacity_ah"].fill_null(0.0) > 0), "has no rated capacity above 0"),
        (table["capacity_ah"] <= 0, "has a measured capacity that is not above 0"),
        (
            texts["cells_in_series"].is_not_null() & ~(table["cells_in_series"].fill_null(0) > 0),
            "has cells_in_series that is no whole number above 0",
        ),
    )
    for wrong, what in checks:
        if wrong.fill_null(value=False).any():
            name = table.filter(wrong.fill_null(value=False))["vehicle"][0]
            raise DataError(f"{path}: vehicle {name!r} {what}; expected one sound row per vehicle")
    return table


def _samples(path: Path, rated_capacity_ah: float) -> tuple[pl.DataFrame, int]:
    """The samples of one record in order, and how many were left out."""
    table = collect_parquet([path], _RECORDED).drop(FILE)
    if table.is_empty():
        raise DataError(f"{path}: no rows; expected one per sample")
    table = _with_highest(table, path).sort("segment", "sample", maintain_order=True)
    if table["segment"].has_nulls() or table["sample"].has_nulls():
        raise DataError(f"{path}: a segment or sample is not numbered; each row needs both")
    twice = table.filter(pl.struct("segment", "sample").is_duplicated())
    if not twice.is_empty():
        segment, sample = twice.select("segment", "sample").row(0)
        raise DataError(f"{path}: sample {sample} of segment {segment} occurs twice; expected once")
    sound = (
        pl.col("i_load_a").is_finite()
        & (pl.col("i_load_a").abs() <= POSSIBLE_C * rated_capacity_ah)
        & pl.col("v_cell_mean").is_between(*POSSIBLE_CELL_V)
    ).fill_null(value=False)
    kept = table.filter(sound)
    left_out = table.height - kept.height
    if left_out > MAX_IMPOSSIBLE_SHARE * table.height:
        raise DataError(
            f"{path}: {left_out} of {table.height} samples have no current, or a mean cell "
            f"voltage outside of {POSSIBLE_CELL_V[0]:g} to {POSSIBLE_CELL_V[1]:g} V, or more than "
            f"{POSSIBLE_C:g} C; are current in A and voltage in V?"
        )
    possible = pl.col(_HIGHEST).is_between(*POSSIBLE_CELL_V)
    return kept.select(
        pl.col("segment").cast(pl.Int32),
        (pl.col("sample") * SAMPLE_S).alias("time_s"),
        (0.0 - pl.col("i_load_a")).alias("current_a"),
        pl.col("v_cell_mean").alias("cell_mean_v"),
        pl.when(possible).then(_HIGHEST).alias("cell_max_v"),
    ), left_out


def _with_highest(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Adds the highest cell's voltage, null where the record does not have it."""
    if _HIGHEST not in pl.read_parquet_schema(path):
        return table.with_columns(pl.lit(None, pl.Float64).alias(_HIGHEST))
    highest = collect_parquet([path], pl.Schema({_HIGHEST: pl.Float64()}))
    return table.with_columns(highest[_HIGHEST])
