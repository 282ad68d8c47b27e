"""Feature tables in files: read CSV or Parquet under our names or published ones, write Parquet."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.schema import FEATURE_KEY, LABEL

ALIASES: Final = {
    "battery_id": "asset_id",
    "vehicle_id": "asset_id",
    "cycle": "op_index",
    "capacity": LABEL,
}
"""Published names of the key and label columns, and ours."""

SUFFIXES: Final = (".csv", ".parquet")


def read_feature_table(path: Path, features: Sequence[str], *, labelled: bool) -> pl.DataFrame:
    """Read one row per cycle, in the file's row order.

    Args:
        path: a `.csv` or `.parquet` file with `asset_id` (or `battery_id`, `vehicle_id`), the
            features by name, optionally `op_index` (or `cycle`; else rows are counted per asset)
            and `capacity_ah` (or `capacity`). Other columns are left out.
        features: names of the feature columns it must have.
        labelled: whether the label column must be there. Where it is not and the file has none,
            the column is null.

    Returns:
        `asset_id`, `op_index`, the features and `capacity_ah`, as Float64 where numeric.

    Raises:
        DataError: a file that is missing, empty or unreadable, a missing column, or text in a
            numeric column.
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
    if "op_index" not in table.columns:
        table = table.with_columns(op_index=pl.int_range(1, pl.len() + 1).over("asset_id"))
    if LABEL not in table.columns:
        table = table.with_columns(pl.lit(None, pl.Float64).alias(LABEL))
    types = {name: pl.Float64() for name in (*features, LABEL)} | {"op_index": pl.Int32()}
    for name, dtype in types.items():
        if not (table.schema[name].is_numeric() or table.schema[name] == pl.Null):
            raise DataError(f"{path}: column {name} is {table.schema[name]}, expected numbers")
        try:
            table = table.with_columns(pl.col(name).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{path}: column {name} does not fit {dtype}: {error}") from error
    return table.with_columns(pl.col("asset_id").cast(pl.String)).select(
        *FEATURE_KEY, *features, LABEL
    )


def _read(path: Path) -> pl.DataFrame:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a feature table ends in {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a CSV or Parquet file")
    try:
        if path.suffix == ".csv":
            # whole-file inference: a late fraction must not meet a column of integers
            return pl.read_csv(path, infer_schema_length=None)
        return pl.read_parquet(path)
    # Polars panics on some damaged files; its panic is no Exception
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {first_line}") from error


def _rename(table: pl.DataFrame) -> pl.DataFrame:
    renames: dict[str, str] = {}
    for theirs, ours in ALIASES.items():
        if theirs in table.columns and ours not in (*table.columns, *renames.values()):
            renames[theirs] = ours
    return table.rename(renames)


def write_feature_table(table: pl.DataFrame, path: Path) -> None:
    """Write a feature table as Parquet, or CSV by its suffix; the old file stays until it is done.

    Raises:
        DataError: another suffix, or a folder that cannot be written to.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a feature table is written to {' or '.join(SUFFIXES)}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            table.write_csv(partial)
        else:
            table.write_parquet(partial)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
