"""The canonical cycle table in a file: Parquet or CSV with the columns of `SAMPLES`."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.files import read_table, write_table
from batteryops.schema import CYCLE_KEY, SAMPLES, Kind, Recording
from batteryops.telemetry.assembly import (
    MEASURED,
    assemble,
    csv_text,
    of_kinds,
    runs,
    wanted_kinds,
)

SUFFIXES: Final = (".parquet", ".csv")

PER_CYCLE: Final = ("capacity_ah", "ambient_temperature_c")
"""Columns that the file may have besides those of `SAMPLES`; constant within a cycle."""

_KNOWN_FORMS: Final = (
    (
        {"op_index", "voltage_measured_v"},
        "a tidy NASA record; give the folder that holds tidy/ and cycles.csv",
    ),
    (
        {"cell", "op_index", "type_index"},
        "the operations of tidy NASA records; give the folder that holds tidy/ and cycles.csv",
    ),
    (
        {"Voltage_measured", "Time"},
        "one NASA operation; give the folder that holds metadata.csv and data/",
    ),
    (
        {"battery_id", "test_id", "filename"},
        "the metadata of NASA operations; give the folder that holds metadata.csv and data/",
    ),
    (
        {"voltage_V_mean", "current_A_mean"},
        "a feature table, one row per cycle; evaluate, validate and predict take those",
    ),
    ({"vehicle_id", "trip_id"}, "a trip table with columns left out"),
    ({"BMSBatteryVoltage"}, "cloud telemetry, which has no reader; bring it to the canonical form"),
)


def looks_like(columns: Collection[str]) -> str | None:
    """Which other well-known form a table with these columns has, and what to do with it.

    Examples:
        >>> looks_like(["Voltage_measured", "Current_measured", "Time"])
        'one NASA operation; give the folder that holds metadata.csv and data/'
    """
    for typical, form in _KNOWN_FORMS:
        if typical <= set(columns):
            return form
    return None


def read_canonical(path: Path, *, kinds: Collection[Kind] | None = None) -> Recording:
    """Read the canonical cycle table from a `.parquet` or `.csv` file.

    Rows may stand in any order. `capacity_ah` and `ambient_temperature_c` are optional columns,
    constant within a cycle, as `kind` and `started_at` must be. A time with a zone loses the zone
    and keeps its clock. Whether values are plausible, and so whether their unit is right, is not
    judged here: the quality checks know the assets' profiles.

    Args:
        path: the file.
        kinds: kinds of cycle to keep, all when None.

    Raises:
        DataError: a file that is missing, empty or corrupt; a column that is missing or of another
            type; a value that varies within a cycle.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a cycle table ends in {' or '.join(SUFFIXES)}")
    table = csv_text(path, required=()) if path.suffix == ".csv" else _parquet(path)
    missing = [name for name in SAMPLES if name not in table.columns]
    if missing:
        form = looks_like(table.columns)
        raise DataError(
            f"{path}: missing column {', '.join(missing)}; given {', '.join(table.columns)}, "
            f"expected {', '.join(SAMPLES)}" + (f". It looks like {form}" if form else "")
        )
    optional = [name for name in PER_CYCLE if name in table.columns]
    types = dict(SAMPLES) | dict.fromkeys(optional, pl.Float64())
    table = pl.DataFrame([_column(table[name], dtype, path) for name, dtype in types.items()])
    table = table.filter(of_kinds(wanted_kinds(kinds)))
    starts, lengths = runs(table, CYCLE_KEY)
    if table.select(CYCLE_KEY)[starts].is_duplicated().any():  # rows do not stand together
        table = table.sort(CYCLE_KEY, maintain_order=True)
        starts, lengths = runs(table, CYCLE_KEY)
    constant = ["kind", "started_at", *optional]
    for name in constant:
        varies = table.select(pl.col(name).ne_missing(pl.col(name).shift())).to_series()
        rows = np.setdiff1d(varies.arg_true(), starts)
        if len(rows):
            asset_id, cycle_index = table.select(CYCLE_KEY).row(int(rows[0]))
            raise DataError(
                f"{path}: {name} varies within cycle {cycle_index} of {asset_id}; "
                "expected one value per cycle"
            )
    cycles = table.select(*CYCLE_KEY, *constant)[starts]
    return assemble(
        cycles.with_columns(pl.col(optional).fill_nan(None)),
        lengths,
        table.select(MEASURED),
        source=str(path),
    )


def write_canonical(recording: Recording, path: Path) -> None:
    """Write a recording as a canonical cycle table with its labels and ambient temperatures.

    What has no samples has no rows: such cycles, impedance and further columns of the cycles are
    not in the file. The lake keeps them.

    Args:
        recording: what to write.
        path: ends in `.parquet` or `.csv`; a file there is replaced once the new one is complete.

    Raises:
        DataError: another suffix, or a folder that cannot be written to.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: a cycle table is written to {' or '.join(SUFFIXES)}")
    table = recording.samples.join(
        recording.cycles.select(*CYCLE_KEY, *PER_CYCLE),
        on=CYCLE_KEY,
        how="left",
        maintain_order="left",
    )
    write_table(table, path)


def _parquet(path: Path) -> pl.DataFrame:
    table = read_table(path)
    if table.is_empty():
        raise DataError(f"{path}: no rows; expected one per sample")
    return table


def _column(values: pl.Series, dtype: pl.DataType, path: Path) -> pl.Series:
    """A column in its canonical type; text is parsed where the file is CSV."""
    given = values.dtype
    what = f"{path}: column {values.name}"
    if given == dtype:
        return values
    if given == pl.Null or (given.is_integer() and dtype.is_numeric()):
        fits = True
    elif dtype == pl.Float64:
        fits = given.is_float() or (given == pl.String and path.suffix == ".csv")
    elif dtype == pl.Datetime("us"):
        fits = (given.is_temporal() and given not in (pl.Time, pl.Duration)) or given == pl.String
    else:
        fits = given == pl.String and dtype == pl.Int32 and path.suffix == ".csv"
    if not fits:
        raise DataError(f"{what} is {given}, expected {dtype}")
    if isinstance(given, pl.Datetime) and given.time_zone is not None:
        values = values.dt.replace_time_zone(None)
    if given == pl.String and dtype == pl.Datetime("us"):
        cast = values.str.replace(" ", "T", literal=True).str.to_datetime(
            "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False
        )
    else:
        cast = values.cast(dtype, strict=False)
    lost = (cast.is_null() & values.is_not_null()).arg_true()
    if len(lost):
        expected = (
            "dates as 2008-04-02T15:25:41.593" if dtype == pl.Datetime("us") else f"{dtype} values"
        )
        raise DataError(
            f"{what} holds {values[lost[0]]!r} in row {lost[0] + 1} (of {len(lost)} such); "
            f"expected {expected}"
        )
    return cast
