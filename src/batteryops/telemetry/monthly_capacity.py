"""Monthly pack capacities of a fleet, as published in a figure and read off it."""

from pathlib import Path
from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.files import read_table

COLUMNS: Final = ("vehicle", "month", "capacity_median_ah", "vertex_seen")


def looks_like_months(columns: list[str]) -> bool:
    """Whether a table with these columns holds monthly capacities."""
    return {"vehicle", "month", "capacity_median_ah"} <= set(columns)


def read_monthly_capacity(path: Path) -> pl.DataFrame:
    """One row per vehicle and month.

    Args:
        path: a CSV or Parquet file with the columns `vehicle` (the publisher's number), `month`
            (YYYY-MM), `capacity_median_ah`, and `vertex_seen`: whether the drawn line bends there,
            so that a number was drawn and not a straight line across a gap.

    Returns:
        `asset_id` (`EU500-01`), `month` (Date, the first of it), `capacity_ah`, `drawn`; sorted.

    Raises:
        DataError: a file that cannot be read, a column missing or of another kind, no rows.
    """
    table = read_table(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(
            f"{path}: missing column {', '.join(missing)}; given {', '.join(table.columns)}, "
            f"expected {', '.join(COLUMNS)}"
        )
    if table.is_empty():
        raise DataError(f"{path}: no rows; expected one per vehicle and month")
    expected = {
        "vehicle": ("whole numbers", table.schema["vehicle"].is_integer()),
        "month": ("text", table.schema["month"] == pl.String),
        "capacity_median_ah": ("numbers", table.schema["capacity_median_ah"].is_numeric()),
        "vertex_seen": ("true or false", table.schema["vertex_seen"] == pl.Boolean),
    }
    for name, (what, fits) in expected.items():
        if not fits:
            raise DataError(f"{path}: column {name} is {table.schema[name]}, expected {what}")
    months = table.select(
        asset_id=pl.format("EU500-{}", pl.col("vehicle").cast(pl.String).str.zfill(2)),
        month=pl.col("month").str.to_date("%Y-%m", strict=False),
        capacity_ah=pl.col("capacity_median_ah").cast(pl.Float64).fill_nan(None),
        drawn=pl.col("vertex_seen").fill_null(value=False),
    )
    if months["month"].null_count():
        raise DataError(f"{path}: a month is missing or not written YYYY-MM")
    if months.select("asset_id", "month").is_duplicated().any():
        raise DataError(f"{path}: a month of a vehicle stands there twice; expected once")
    return months.sort("asset_id", "month")
