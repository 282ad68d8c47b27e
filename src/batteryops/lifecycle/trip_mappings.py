"""Trips under the names of a lab's features: every way that could be meant."""

from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.association import MIN_ROWS
from batteryops.features.views import get_view, matrix
from batteryops.schema import Kind, Recording

VIEW: Final = "discharge_summary"
"""The view whose features the trips' columns resemble by name."""

Voltage = Literal["pack", "cell of 3.7 V", "cell of 2.27 V"]
Current = Literal["discharge positive", "discharge negative"]
Missing = Literal["median", "missing", "zero", "dropped"]

MISSING: Final[tuple[Missing, ...]] = get_args(Missing)

CELL_V: Final[dict[Voltage, float]] = {"cell of 3.7 V": 3.7, "cell of 2.27 V": 2.27}
"""Mean cell voltage that divides a vehicle's median pack voltage: how many cells in series.

The number of cells is not published with the trips. 3.7 V is what a lab's 18650 cell has on
average; 2.27 V is the mean of the lowest cell's voltage in the raw record of the same vehicles, as
the source system's notebook prints it (notebooks/03_real_world_data_exploration.ipynb).
"""

TRIP: Final[Kind] = "trip"

REQUIRED: Final = (
    "duration_s",
    "voltage_drop_time_s",
    "delta_temperature_c",
    "temperature_max_c",
)


@dataclass(frozen=True, slots=True)
class Mapping:
    """One way to give trip values the names of the lab's features.

    Args:
        voltage: pack volts as they are, or divided by the cells in series that this would mean.
        current: sign as published, or turned to the lab's.
        missing: what becomes of a trip without `voltage_drop_time_s`: the median of the others is
            put in, it stays missing, zero is put in, or the trip is dropped.
    """

    voltage: Voltage
    current: Current
    missing: Missing

    def __str__(self) -> str:
        """In a few words, for a table."""
        return f"{self.voltage} voltage, {self.current}, drop time {self.missing}"


AS_PUBLISHED: Final = Mapping("pack", "discharge positive", "median")
"""What the source system's notebook does (notebooks/04_real_world_validation.ipynb)."""

KINDEST: Final = Mapping("cell of 3.7 V", "discharge negative", "median")
"""The mapping that brings trips nearest to what the lab saw."""

MAPPINGS: Final = tuple(
    Mapping(voltage, current, missing)
    for voltage, current, missing in product(get_args(Voltage), get_args(Current), MISSING)
)


def trip_values(recording: Recording) -> pl.DataFrame:
    """What the trips of a recording offer a lab model: one row per trip, in published units.

    Returns:
        `asset_id`, `op_index`, `voltage_v` (pack), `current_a` (negative = discharge, null where
        it was not measured), `temperature_c`, `temperature_max_c`, `duration_s`, `rise_k`,
        `drop_time_s` (null where not computable), `sound` (no value of the trip is a sentinel);
        sorted.

    Raises:
        DataError: no trips, a column that trip tables have and this does not, or fewer than three
            trips.
    """
    cycles = recording.cycles.filter(pl.col("kind") == TRIP)
    if cycles.is_empty():
        raise DataError(
            f"{recording.source} has no trips; give a trip table, such as the source chengdu"
        )
    missing = [name for name in REQUIRED if name not in cycles.columns]
    if missing:
        raise DataError(
            f"{recording.source}: missing column {', '.join(missing)}; expected a trip table with "
            f"{', '.join(REQUIRED)}"
        )
    if cycles.height < MIN_ROWS:
        raise DataError(
            f"{recording.source} has {cycles.height} trip"
            f"{'s' if cycles.height > 1 else ''}; a correlation needs three or more"
        )
    marks = (
        pl.col("sentinel_columns").fill_null("")
        if "sentinel_columns" in cycles.columns
        else pl.lit("")
    )
    means = recording.samples.group_by("asset_id", "cycle_index").agg(
        pl.col("voltage_v", "current_a", "temperature_c").mean()
    )
    return (
        cycles.join(means, on=["asset_id", "cycle_index"], how="left")
        .select(
            "asset_id",
            op_index="cycle_index",
            voltage_v="voltage_v",
            current_a=pl.when(~marks.str.contains("current_mean")).then("current_a"),
            temperature_c="temperature_c",
            temperature_max_c="temperature_max_c",
            duration_s="duration_s",
            rise_k="delta_temperature_c",
            drop_time_s=pl.col("voltage_drop_time_s").fill_nan(None),
            sound=marks == "",
        )
        .sort("asset_id", "op_index")
    )


def as_features(trips: pl.DataFrame, mapping: Mapping) -> NDArray[np.float32]:
    """Trip values under the lab's names, (n, 7); a trip to be dropped is a row of NaN.

    Args:
        trips: as `trip_values` gives them.
        mapping: how.

    Examples:
        >>> trip = pl.DataFrame({
        ...     "asset_id": ["Vehicle 1"] * 2, "op_index": [1, 2], "voltage_v": [407.0, 407.0],
        ...     "current_a": [-20.0, -10.0], "temperature_c": [30.0, 31.0],
        ...     "temperature_max_c": [30.0, 31.0], "duration_s": [900.0, 60.0],
        ...     "rise_k": [7.0, 8.0], "drop_time_s": [130.0, None]})
        >>> as_features(trip, AS_PUBLISHED)[1].tolist()
        [407.0, 10.0, 31.0, 31.0, 60.0, 8.0, 130.0]
        >>> per_cell = Mapping("cell of 3.7 V", "discharge negative", "missing")
        >>> as_features(trip, per_cell)[1, :2]
        array([ 3.7, -10. ], dtype=float32)
    """
    view = get_view(VIEW)
    volts = pl.col("voltage_v")
    if mapping.voltage != "pack":
        cells = (volts.median().over("asset_id") / CELL_V[mapping.voltage]).round()
        volts = volts / cells
    sign = -1.0 if mapping.current == "discharge positive" else 1.0
    drop = pl.col("drop_time_s")
    filled = {"median": drop.fill_null(drop.median()), "zero": drop.fill_null(0.0)}
    table = trips.select(
        voltage_V_mean=volts,
        current_A_mean=sign * pl.col("current_a"),
        temperature_C_mean="temperature_c",
        temperature_C_max="temperature_max_c",
        discharge_time_s="duration_s",
        delta_T_C="rise_k",
        voltage_drop_time_s=filled.get(mapping.missing, drop),
    )
    values = matrix(view, table)
    if mapping.missing == "dropped":
        values[trips["drop_time_s"].is_null().to_numpy()] = np.nan
    return values
