"""What every reader of measurements shares: text and Parquet columns, and building a Recording."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.files import REMEDY, UNREADABLE, first_line, refuse_empty
from batteryops.schema import CYCLE_KEY, CYCLES, KINDS, SAMPLES, Kind, Recording

MEASURED: Final = ("time_s", "voltage_v", "current_a", "temperature_c")
"""The columns of `SAMPLES` that differ from sample to sample."""

FILE: Final = "file"
"""Column that `collect_parquet` adds: the file that a row came from."""


def wanted_kinds(kinds: Collection[Kind] | None) -> frozenset[str]:
    """The kinds of cycle to read: those given, all when None.

    Raises:
        DataError: when a name is none of `KINDS`.
    """
    if kinds is None:
        return frozenset(KINDS)
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise DataError(f"kind of cycle {unknown[0]!r} is not among {', '.join(KINDS)}")
    return frozenset(kinds)


def of_kinds(wanted: frozenset[str]) -> pl.Expr:
    """Rows of the kinds wanted, and of kinds that nobody knows: those are refused, not dropped."""
    return ~pl.col("kind").is_in(set(KINDS) - wanted).fill_null(value=False)


def csv_text(path: Path, *, required: Iterable[str]) -> pl.DataFrame:
    """A CSV file with every column as text; empty fields are null.

    Raises:
        DataError: when the file is missing, empty, no CSV, has no rows, or lacks a column.
    """
    refuse_empty(path)
    try:
        table = pl.read_csv(path, infer_schema=False, glob=False)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as CSV ({first_line(error)})") from error
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise DataError(
            f"{path}: missing column {', '.join(missing)}; given {', '.join(table.columns)}"
        )
    if table.is_empty():
        raise DataError(f"{path}: no rows below the header; expected at least one")
    return table


def real_number(column: str) -> pl.Expr:
    """Text as Float64; null where it is no finite real number, as in `[]` or `(0.1-0.2j)`.

    Publishers write complex numbers where a fit of the impedance failed. One whose imaginary part
    is zero is real.

    Examples:
        >>> texts = pl.DataFrame({"re": ["0.07", "(0.05+0j)", "(0.1-0.2j)", "[]", None, "nan"]})
        >>> texts.select(real_number("re"))["re"].to_list()
        [0.07, 0.05, None, None, None, None]
    """
    number = (
        pl.col(column)
        .str.strip_chars(" ()[]")
        .str.replace(r"[+-]0(\.0*)?j$", "")
        .cast(pl.Float64, strict=False)
    )
    return pl.when(number.is_finite()).then(number).alias(column)


def collect_parquet(
    files: Sequence[Path],
    schema: pl.Schema,
    *,
    where: pl.Expr | None = None,
    remedy: str = REMEDY,
) -> pl.DataFrame:
    """The rows of many Parquet files of one form, in the order of the files, in one scan.

    Args:
        files: Parquet files; none gives an empty table.
        schema: columns to take; narrower integers and floats are widened to these types.
        where: rows to keep.
        remedy: what to do about a file that cannot be read, for the message.

    Returns:
        The columns of `schema`, and `file`, the path that each row came from.

    Raises:
        DataError: naming the first file that is missing, corrupt, or lacks a column.
    """
    if not files:
        return pl.DataFrame(schema={**schema, FILE: pl.String()})
    try:
        return _scan(files, schema, where).collect()
    except UNREADABLE as error:
        for path in files:
            refuse_empty(path)
            try:
                _scan([path], schema, where).collect()
            except UNREADABLE as single:
                raise DataError(
                    f"{path}: cannot be read as Parquet with columns {', '.join(schema)} "
                    f"({first_line(single)}); {remedy}"
                ) from single
        raise DataError(
            f"{files[0].parent}: the Parquet files there do not fit together "
            f"({first_line(error)}); {remedy}"
        ) from error


def _scan(files: Sequence[Path], schema: pl.Schema, where: pl.Expr | None) -> pl.LazyFrame:
    rows = pl.scan_parquet(
        list(files),
        schema=schema,
        glob=False,  # a bracket in a folder's name is a bracket
        hive_partitioning=False,
        extra_columns="ignore",
        cast_options=pl.ScanCastOptions(integer_cast="upcast", float_cast="upcast"),
        include_file_paths=FILE,
    )
    return rows if where is None else rows.filter(where)


def runs(table: pl.DataFrame, key: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where consecutive rows of equal key start, and how many they are.

    Examples:
        >>> starts, lengths = runs(pl.DataFrame({"k": [7, 7, 3, 7]}), ["k"])
        >>> starts.tolist(), lengths.tolist()
        ([0, 2, 3], [2, 1, 1])
    """
    if table.is_empty():
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    begins = (
        table.select(
            pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in key)
        )
        .to_series()
        .to_numpy(writable=True)
    )
    begins[0] = True
    starts = np.flatnonzero(begins).astype(np.int64)
    return starts, np.diff(starts, append=table.height)


def assemble(
    cycles: pl.DataFrame, lengths: NDArray[np.int64], measured: pl.DataFrame, *, source: str
) -> Recording:
    """Build a recording from cycles and the blocks of samples that belong to them.

    Args:
        cycles: one row per cycle in any order; columns of `CYCLES` that are absent become null,
            further ones are kept. `n_samples` is counted here.
        lengths: how many rows of `measured` belong to each row of `cycles`, in that order; 0 for
            a cycle without a record.
        measured: the `MEASURED` columns, blocks one after another.
        source: where it was read from.

    Raises:
        DataError: when there is no cycle, one occurs twice, or a kind is unknown.
    """
    if cycles.is_empty():
        raise DataError(f"{source}: no cycle of the kinds asked for")
    cycles = cycles.with_columns(pl.Series("n_samples", lengths, dtype=pl.Int64))
    cycles = cycles.select(
        *(
            pl.col(name).cast(dtype) if name in cycles.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in CYCLES.items()
        ),
        *(name for name in cycles.columns if name not in CYCLES),
    )
    check_cycles(cycles, what=source)
    order = cycles.select(pl.arg_sort_by(CYCLE_KEY)).to_series().to_numpy()
    if (np.diff(order) != 1).any():
        moved = lengths[order]
        starts = (np.cumsum(lengths) - lengths)[order]
        offsets = np.repeat(starts - (np.cumsum(moved) - moved), moved)
        measured = measured[offsets + np.arange(len(offsets))]
        cycles, lengths = cycles[order], moved
    block = np.repeat(np.arange(cycles.height, dtype=np.uint32), lengths)
    if not _in_time_order(measured["time_s"].to_numpy(), block):
        measured = (
            measured.with_columns(pl.Series("block", block))
            .sort("block", "time_s", maintain_order=True)
            .drop("block")
        )
    constant = cycles.select(name for name in SAMPLES if name not in MEASURED)
    samples = pl.concat([constant[block], measured.select(MEASURED)], how="horizontal")
    return Recording(samples=samples, cycles=cycles, source=source)


def _in_time_order(time_s: NDArray[np.float64], block: NDArray[np.uint32]) -> bool:
    backwards = np.diff(time_s) < 0
    return not (backwards & (np.diff(block) == 0)).any()


def check_cycles(cycles: pl.DataFrame, *, what: str) -> None:
    """Raise unless each cycle is named, numbered from 1, of a known kind, and there once.

    Raises:
        DataError: naming the first cycle that is not.
    """
    unnamed = cycles["asset_id"].is_null() | (cycles["asset_id"] == "")
    if unnamed.any():
        raise DataError(f"{what}: {unnamed.sum()} cycles have no asset_id; each needs one")
    wrong = cycles.filter(~pl.col("kind").is_in(KINDS) | pl.col("kind").is_null())
    if not wrong.is_empty():
        raise DataError(
            f"{what}: kind {wrong['kind'][0]!r} of {wrong['asset_id'][0]} "
            f"is not among {', '.join(KINDS)}"
        )
    numbers = cycles["cycle_index"]
    if numbers.has_nulls() or (numbers < 1).any():
        raise DataError(f"{what}: a cycle_index is missing or below 1; cycles are counted from 1")
    twice = cycles.filter(pl.struct(CYCLE_KEY).is_duplicated())
    if not twice.is_empty():
        asset_id, cycle_index = twice.select(CYCLE_KEY).row(0)
        raise DataError(f"{what}: cycle {cycle_index} of {asset_id} occurs twice; expected once")
