"""Feature tables in files: read CSV or Parquet under our names or published ones, write Parquet."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.files import first_line, read_table, write_table
from batteryops.schema import FEATURE_KEY, LABEL

ALIASES: Final = {
    "battery_id": "asset_id",
    "vehicle_id": "asset_id",
    "cycle": "op_index",
    "capacity": LABEL,
}
"""Published names of the key and label columns, and ours."""

SUFFIXES: Final = (".csv", ".parquet")


def read_feature_table(
    path: Path, features: Sequence[str], *, labelled: bool, further: Sequence[str] = ()
) -> pl.DataFrame:
    """Read one row per cycle, in the file's row order.

    Args:
        path: a `.csv` or `.parquet` file with `asset_id` (or `battery_id`, `vehicle_id`), the
            features by name, optionally `op_index` (or `cycle`; else rows are counted per asset)
            and `capacity_ah` (or `capacity`). Other columns are left out.
        features: names of the feature columns it must have.
        labelled: whether the label column must be there. Where it is not and the file has none,
            the column is null.
        further: numeric columns to read as well where the file has them, and they are no features.

    Returns:
        `asset_id`, `op_index`, the features, `capacity_ah`, and what the file has of `further`;
        all but the first two as Float64.

    Raises:
        DataError: a file that is missing, empty or unreadable, a missing column, text in a
            numeric column, a row without an asset, or a cycle number that is missing, below 1 or
            no whole number.
    """
    table = _rename(_read(path))
    needed = ["asset_id", *features, *([LABEL] if labelled else [])]
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DataError(
            f"{path}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"given {', '.join(table.columns)}, expected {', '.join(needed)}"
        )
    if table.is_empty():
        raise DataError(f"{path}: no rows; expected one row per cycle")
    _check_assets(table["asset_id"], path)
    if "op_index" not in table.columns:
        table = table.with_columns(op_index=pl.int_range(1, pl.len() + 1).over("asset_id"))
    if LABEL not in table.columns:
        table = table.with_columns(pl.lit(None, pl.Float64).alias(LABEL))
    extra = [name for name in further if name in table.columns and name not in features]
    types = {name: pl.Float64() for name in (*features, LABEL, *extra)} | {"op_index": pl.Int32()}
    for name, dtype in types.items():
        if name != "op_index" and table[name].is_null().all():  # in a CSV: without type
            table = table.with_columns(pl.lit(None, dtype).alias(name))
        if not (table.schema[name].is_numeric() or table.schema[name] == pl.Null):
            raise DataError(f"{path}: column {name} is {table.schema[name]}, expected numbers")
        if name == "op_index":
            _check_counted(table[name], path)
        try:
            table = table.with_columns(pl.col(name).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{path}: column {name} does not fit {dtype}: {first_line(error)}"
            ) from error
    return table.with_columns(pl.col("asset_id").cast(pl.String)).select(
        *FEATURE_KEY, *features, LABEL, *extra
    )


def _read(path: Path) -> pl.DataFrame:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a feature table ends in {' or '.join(SUFFIXES)}")
    return read_table(path)


def _check_assets(asset_id: pl.Series, path: Path) -> None:
    """Raise unless every row names its asset by one value."""
    if asset_id.dtype.is_nested() or asset_id.dtype in (pl.Binary, pl.Object):
        raise DataError(
            f"{path}: column asset_id is {asset_id.dtype} in all {len(asset_id)} rows; "
            "expected one text or number per row"
        )
    if nameless := int(_is_nameless(asset_id).sum()):
        raise DataError(
            f"{path}: asset_id is empty in {nameless} of {len(asset_id)} rows; "
            "every row needs the asset it is of"
        )


def _is_nameless(asset_id: pl.Series) -> pl.Series:
    """Where no asset is named: null, blank, or the NaN that other libraries write for null."""
    named = asset_id.cast(pl.String).str.strip_chars() != ""
    if asset_id.dtype.is_float():
        named &= asset_id.is_not_nan()
    return ~named.fill_null(value=False)


def _check_counted(op_index: pl.Series, path: Path) -> None:
    """Raise where a cycle's number is no whole number from 1, which a cast might cut off."""
    counted = op_index >= 1
    if not op_index.dtype.is_integer():
        counted &= op_index == op_index.cast(pl.Float64).round()
    wrong = op_index.filter(~counted.fill_null(value=False))
    if len(wrong):
        raise DataError(
            f"{path}: op_index is no whole number from 1 in {len(wrong)} of {len(op_index)} rows, "
            f"such as {wrong[0]}; cycles are counted 1, 2, 3"
        )


def _rename(table: pl.DataFrame) -> pl.DataFrame:
    renames: dict[str, str] = {}
    for theirs, ours in ALIASES.items():
        if theirs in table.columns and ours not in (*table.columns, *renames.values()):
            renames[theirs] = ours
    return table.rename(renames)


def check_writable(path: Path) -> None:
    """Raise when a table cannot be written there, before the work that makes the table.

    Raises:
        DataError: another suffix, or a folder that cannot be written to.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a feature table is written to {' or '.join(SUFFIXES)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path.parent} cannot be made: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path.parent} cannot be written to; name another place")


def write_feature_table(table: pl.DataFrame, path: Path) -> None:
    """Write a feature table as Parquet, or CSV by its suffix; the old file stays until it is done.

    Raises:
        DataError: another suffix, or a folder that cannot be written to.
    """
    check_writable(path)
    write_table(table, path)
