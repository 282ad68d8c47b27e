"""NASA's cells as tidy Parquet: `cycles.csv` and `tidy/<cell>_<discharge|charge>.parquet`."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.schema import Kind, Recording
from batteryops.telemetry.assembly import (
    FILE,
    assemble,
    collect_parquet,
    csv_text,
    of_kinds,
    real_number,
    runs,
    wanted_kinds,
)

CYCLES_FILE: Final = "cycles.csv"
RECORDS_FOLDER: Final = "tidy"

_RECORD_KINDS: Final = ("discharge", "charge")
_COLUMNS: Final = {
    "time_s": "time_s",
    "voltage_measured_v": "voltage_v",
    "current_measured_a": "current_a",
    "temperature_measured_c": "temperature_c",
}
_RECORD: Final = pl.Schema({"op_index": pl.Int32(), **dict.fromkeys(_COLUMNS, pl.Float64())})
_OPERATION: Final = (
    "cell",
    "op_index",
    "type",
    "start_time",
    "ambient_temperature_c",
    "capacity_ah",
    "re_ohm",
    "rct_ohm",
)


def read_nasa_tidy(folder: Path, *, kinds: Collection[Kind] | None = None) -> Recording:
    """Read a folder of tidy NASA records.

    Every operation of the chosen kinds of each cell that has a record file is a cycle, with
    `n_samples` 0 where no record of it is there (impedance always; charges of most cells).

    Args:
        folder: holds `cycles.csv` and the folder `tidy`.
        kinds: kinds of cycle to read, all when None; files of other kinds are not opened.

    Raises:
        DataError: a file that is missing, corrupt or lacks a column, or a record that `cycles.csv`
            does not know.
    """
    wanted = wanted_kinds(kinds)
    files = {
        path: _cell_and_kind(path)
        for path in sorted((folder / RECORDS_FOLDER).glob("*.parquet"))
        if _cell_and_kind(path)[1] in _RECORD_KINDS
    }
    if not files:
        raise DataError(
            f"{folder / RECORDS_FOLDER}: no record files; "
            "expected <cell>_discharge.parquet or <cell>_charge.parquet"
        )
    operations = _operations(folder / CYCLES_FILE).filter(
        pl.col("asset_id").is_in({cell for cell, _ in files.values()}), of_kinds(wanted)
    )
    table = collect_parquet([p for p, (_, kind) in files.items() if kind in wanted], _RECORD)
    key = [FILE, "op_index"]
    starts, lengths = runs(table, key)
    found = table.select(key)[starts]
    if found.is_duplicated().any():  # an operation's rows do not stand together
        table = table.sort(key, maintain_order=True)
        starts, lengths = runs(table, key)
        found = table.select(key)[starts]
    names = pl.DataFrame(
        [(str(path), cell, kind) for path, (cell, kind) in files.items()],
        schema={FILE: pl.String, "asset_id": pl.String, "record_kind": pl.String},
        orient="row",
    )
    recorded = found.join(names, on=FILE, how="left", maintain_order="left").select(
        "asset_id", pl.col("op_index").alias("cycle_index"), "record_kind"
    )
    cycles = recorded.join(
        operations, on=["asset_id", "cycle_index"], how="left", maintain_order="left"
    )
    strangers = cycles.filter(pl.col("kind").ne_missing(pl.col("record_kind")))
    if not strangers.is_empty():
        cell, index, kind = strangers.select("asset_id", "cycle_index", "record_kind").row(0)
        raise DataError(
            f"{folder / RECORDS_FOLDER / f'{cell}_{kind}.parquet'}: op_index {index} is no {kind} "
            f"of {cell} in {CYCLES_FILE}; the two must come from one publication"
        )
    bare = operations.join(recorded, on=["asset_id", "cycle_index"], how="anti")
    return assemble(
        pl.concat([cycles.drop("record_kind"), bare.select(operations.columns)]),
        np.concatenate([lengths, np.zeros(bare.height, dtype=np.int64)]),
        table.select(pl.col(name).alias(canonical) for name, canonical in _COLUMNS.items()),
        source=str(folder),
    )


def _cell_and_kind(path: Path) -> tuple[str, str]:
    cell, _, kind = path.stem.rpartition("_")
    return cell, kind


def _operations(path: Path) -> pl.DataFrame:
    texts = csv_text(path, required=_OPERATION)
    table = texts.select(
        pl.col("cell").alias("asset_id"),
        pl.col("op_index").cast(pl.Int32, strict=False).alias("cycle_index"),
        pl.col("type").alias("kind"),
        pl.col("start_time").str.to_datetime(time_unit="us", strict=False).alias("started_at"),
        real_number("ambient_temperature_c"),
        real_number("capacity_ah"),
        real_number("re_ohm"),
        real_number("rct_ohm"),
    )
    if table["cycle_index"].has_nulls():
        raise DataError(f"{path}: column op_index holds values that are no whole numbers")
    if (table["started_at"].is_null() & texts["start_time"].is_not_null()).any():
        raise DataError(
            f"{path}: column start_time holds values that are no dates; "
            "expected ISO 8601, such as 2008-04-02T15:25:41.593"
        )
    return table
