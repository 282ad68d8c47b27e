"""Trip tables: one row of means per trip of a vehicle, as published for the Chengdu fleet."""

from collections.abc import Collection
from typing import Final

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.schema import Kind, Recording
from batteryops.telemetry.assembly import assemble, wanted_kinds

TRIP_COLUMNS: Final = (
    "dod",
    "duration_s",
    "voltage_mean",
    "voltage_std",
    "voltage_drop_time_s",
    "current_mean",
    "current_max",
    "current_min",
    "delta_temp",
    "mean_max_temp",
    "max_temp",
)
"""What is published besides `vehicle_id` and `trip_id`; currents are positive = discharge."""

SENTINEL: Final = -1000.0
"""Published where a current was not measured."""

_CURRENTS: Final = ("current_mean", "current_max", "current_min")


def looks_like_trips(columns: Collection[str]) -> bool:
    """Whether a table with these columns is a trip table."""
    return {"vehicle_id", "trip_id", "voltage_mean", "current_mean"} <= set(columns)


def trips(table: pl.DataFrame, *, source: str, kinds: Collection[Kind] | None = None) -> Recording:
    """A trip table as a recording: one cycle and one sample of means per trip.

    `cycle_index` is the publisher's `trip_id`, which leaves gaps. The sample stands at
    `time_s` = the trip's duration, with the mean voltage, the mean current (sign turned, so that
    negative = discharge) and the mean of the hottest probe's temperature. What else is published
    goes to the cycles: `dod_pct`, `duration_s`, `voltage_std_v`, `voltage_drop_time_s`,
    `current_max_a`, `current_min_a` (signs turned, so the published minimum is the maximum here:
    the strongest charging), `delta_temperature_c`, `temperature_max_c`.

    A current that is -1000.0, the sentinel, keeps that value, unturned, in whichever column it
    lands; `sentinel_columns` names the published columns that held it, separated by commas, and
    is null for the other trips. So a check finds it and says where it came from.

    Args:
        table: the published columns; integers are taken as floats.
        source: where it was read from.
        kinds: kinds of cycle to read; a trip table has only trips.

    Raises:
        DataError: a column that is missing or no number, or a trip that occurs twice.
    """
    if "trip" not in wanted_kinds(kinds):
        raise DataError(f"{source}: a trip table has only cycles of kind trip, none was asked for")
    _check(table, source)
    names = [
        pl.when(pl.col(name) == SENTINEL).then(pl.lit(name)) for name in _CURRENTS
    ]  # null where measured: concat_str skips those
    rows = table.with_columns(pl.col(TRIP_COLUMNS).cast(pl.Float64)).with_columns(
        pl.concat_str(names, separator=", ", ignore_nulls=True).alias("sentinel_columns"),
        *(
            pl.when(pl.col(name) == SENTINEL).then(SENTINEL).otherwise(0 - pl.col(name)).alias(name)
            for name in _CURRENTS
        ),
    )
    cycles = rows.select(
        pl.col("vehicle_id").alias("asset_id"),
        pl.col("trip_id").cast(pl.Int32).alias("cycle_index"),
        pl.lit("trip").alias("kind"),
        pl.col("dod").alias("dod_pct"),
        pl.col("duration_s"),
        pl.col("voltage_std").alias("voltage_std_v"),
        pl.col("voltage_drop_time_s"),
        pl.col("current_min").alias("current_max_a"),
        pl.col("current_max").alias("current_min_a"),
        pl.col("delta_temp").alias("delta_temperature_c"),
        pl.col("max_temp").alias("temperature_max_c"),
        pl.col("sentinel_columns").replace("", None),
    )
    measured = rows.select(
        pl.col("duration_s").alias("time_s"),
        pl.col("voltage_mean").alias("voltage_v"),
        pl.col("current_mean").alias("current_a"),
        pl.col("mean_max_temp").alias("temperature_c"),
    )
    return assemble(cycles, np.ones(cycles.height, dtype=np.int64), measured, source=source)


def _check(table: pl.DataFrame, source: str) -> None:
    missing = [
        name for name in ("vehicle_id", "trip_id", *TRIP_COLUMNS) if name not in table.columns
    ]
    if missing:
        raise DataError(
            f"{source}: missing column {', '.join(missing)}; given {', '.join(table.columns)}, "
            f"expected vehicle_id, trip_id, {', '.join(TRIP_COLUMNS)}"
        )
    if table.is_empty():
        raise DataError(f"{source}: no rows; expected one per trip")
    expected = {
        "vehicle_id": ("text", table.schema["vehicle_id"] == pl.String),
        "trip_id": ("whole numbers", table.schema["trip_id"].is_integer()),
        **{name: ("numbers", table.schema[name].is_numeric()) for name in TRIP_COLUMNS},
    }
    for name, (what, fits) in expected.items():
        if not fits:
            raise DataError(f"{source}: column {name} is {table.schema[name]}, expected {what}")
    if not table["trip_id"].is_between(1, 2**31 - 1).fill_null(value=False).all():
        raise DataError(f"{source}: a trip_id is missing, below 1 or above {2**31 - 1}")
