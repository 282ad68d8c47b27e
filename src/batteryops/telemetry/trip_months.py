"""The month of each trip of a trip table without dates, told by the table of monthly means."""

from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.schema import conform

MONTHLY: Final = pl.Schema(
    {
        "vehicle_id": pl.String(),
        "month": pl.String(),  # YYYY-MM
        "avg_dod": pl.Float64(),
        "avg_delta_temp": pl.Float64(),
        "avg_voltage_std": pl.Float64(),
        "trip_count": pl.Int64(),
    }
)
"""What is published per vehicle and month besides the Chengdu trips."""

MEANS: Final = {
    "avg_dod": "dod_pct",
    "avg_delta_temp": "delta_temperature_c",
    "avg_voltage_std": "voltage_std_v",
}

TOLERANCE: Final = 1e-9
"""Relative: published means are repeated to the last bits, or the trips are not those."""


def months_of_trips(cycles: pl.DataFrame, monthly: pl.DataFrame) -> pl.DataFrame:
    """The month in which each trip was driven.

    A vehicle's trips are taken in the order of `cycle_index` and dealt to its months by the
    published counts. That is believed only where it repeats every published mean; then the order
    of the trips is the order of time, which nobody states.

    Args:
        cycles: of a trip table, as `telemetry.trips` yields them.
        monthly: as `MONTHLY` declares it.

    Returns:
        `asset_id`, `cycle_index`, `month` (Date, the first of it), one row per trip.

    Raises:
        DataError: when a column is missing, the months hold other trips than the table, or a mean
            is not repeated.
    """
    conform(monthly, MONTHLY, what="monthly means")
    missing = [name for name in MEANS.values() if name not in cycles.columns]
    if missing:
        raise DataError(f"trips: missing column {', '.join(missing)}; expected a trip table")
    counted = monthly.sort("vehicle_id", "month").select(
        pl.col("vehicle_id").alias("asset_id"),
        pl.col("month").str.to_date("%Y-%m", strict=False),
        last=pl.col("trip_count").cum_sum().over("vehicle_id"),
        trip_count="trip_count",
    )
    if counted["month"].null_count():
        raise DataError("monthly means: a month is not written YYYY-MM")
    totals = counted.group_by("asset_id").agg(pl.col("trip_count").sum())
    given = cycles.group_by("asset_id").agg(trips=pl.len().cast(pl.Int64))
    off = given.join(totals, on="asset_id", how="full", coalesce=True).filter(
        pl.col("trips").ne_missing(pl.col("trip_count"))
    )
    if not off.is_empty():
        asset, trips, count = off.sort("asset_id").row(0)
        raise DataError(
            f"monthly means count {count or 0} trips of {asset}, the table has {trips or 0}; "
            "they are not of the same trips"
        )
    ordered = cycles.sort("asset_id", "cycle_index").with_columns(
        place=pl.int_range(1, pl.len() + 1).over("asset_id").cast(pl.Int64)
    )
    dealt = ordered.sort("place").join_asof(
        counted.select("asset_id", "month", place="last").sort("place"),
        on="place",
        by="asset_id",
        strategy="forward",
        check_sortedness=False,
    )
    _compare(dealt, monthly)
    return dealt.select("asset_id", "cycle_index", "month").sort("asset_id", "cycle_index")


def _compare(dealt: pl.DataFrame, monthly: pl.DataFrame) -> None:
    repeated = dealt.group_by("asset_id", pl.col("month").dt.strftime("%Y-%m")).agg(
        pl.col(column).mean().alias(f"own_{name}") for name, column in MEANS.items()
    )
    both = monthly.join(repeated, left_on=["vehicle_id", "month"], right_on=["asset_id", "month"])
    for name in MEANS:
        off = both.filter(
            (pl.col(name) - pl.col(f"own_{name}")).abs() > TOLERANCE * (1.0 + pl.col(name).abs())
        )
        if not off.is_empty():
            row = off.row(0, named=True)
            raise DataError(
                f"trips of {row['vehicle_id']} dealt to {row['month']} by their order have {name} "
                f"{row[f'own_{name}']:g}, published is {row[name]:g}; so trip_id is not their "
                "order in time, and no month can be told"
            )
