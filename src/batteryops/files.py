"""Files read and written with clear refusals: whole tables, and what appears in one step."""

import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import polars as pl

from batteryops.errors import DataError

UNREADABLE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What Polars raises on files that are not what they should be; some damage makes it panic."""

REMEDY: Final = "write it again, or take it from its source again"
"""What to do about a file that cannot be read, where nothing better is known."""


def first_line(error: BaseException) -> str:
    r"""The first line of an error's text, without the advice that libraries append.

    Examples:
        >>> first_line(ValueError("no such column\n\nResolved plan until failure: ..."))
        'no such column'
        >>> first_line(ValueError())
        'ValueError'
    """
    if isinstance(error, pl.exceptions.PanicException):
        return "its content contradicts itself"  # the panic's text speaks of Polars' insides
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def refuse_empty(path: Path, *, remedy: str = REMEDY) -> None:
    """Raise unless the file exists and holds at least one byte.

    Raises:
        DataError: naming the file.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{path} does not exist; expected a file there") from error
        raise DataError(
            f"{path} cannot be looked at ({getattr(error, 'strerror', None) or error}); "
            "expected a file there"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is a folder or a device; expected a file there")
    if found.st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); {remedy}")


def read_table(path: Path, *, remedy: str = REMEDY) -> pl.DataFrame:
    """The table in a file: CSV where its name ends in `.csv`, Parquet otherwise.

    Args:
        path: the file; a bracket in its name is a bracket.
        remedy: what to do when it cannot be read, for the message.

    Raises:
        DataError: when the file is missing, empty, or not what its name says.
    """
    refuse_empty(path, remedy=remedy)
    try:
        if path.suffix == ".csv":
            # whole-file inference: a late fraction must not meet a column of integers
            return pl.read_csv(path, infer_schema_length=None, glob=False)
        return pl.read_parquet(path, glob=False, hive_partitioning=False)
    except UNREADABLE as error:
        raise _unreadable(path, error, remedy) from error


def table_columns(path: Path, *, remedy: str = REMEDY) -> list[str]:
    """The names of the columns of a table in a file, without reading its rows.

    Args:
        path: as for `read_table`.
        remedy: what to do when it cannot be read, for the message.

    Raises:
        DataError: when the file is missing, empty, or not what its name says.
    """
    refuse_empty(path, remedy=remedy)
    try:
        if path.suffix == ".csv":
            return pl.read_csv(path, n_rows=0, infer_schema=False, glob=False).columns
        return pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema().names()
    except UNREADABLE as error:
        raise _unreadable(path, error, remedy) from error


def write_table(table: pl.DataFrame, path: Path, *, partial: str | None = None) -> None:
    """Write a table by the name's ending, CSV or Parquet; the old file stays until it is done.

    Raises:
        DataError: when the file cannot be written.
    """
    with replacing(path, partial=partial) as beside:
        if path.suffix == ".csv":
            table.write_csv(beside)
        else:
            table.write_parquet(beside, compression="zstd")


@contextmanager
def replacing(path: Path, *, partial: str | None = None) -> Iterator[Path]:
    """Give a hidden sibling to write to; it takes the place of `path` in one step.

    Args:
        path: what to replace or make; its folder is made when there is none.
        partial: the sibling's name; None makes one that nobody else writes to at the same time.

    Raises:
        DataError: when it cannot be written; `path` is then as it was, and the sibling gone.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path, partial=partial) as sibling:
            yield sibling
            sibling.replace(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(
            f"{path}: cannot be written ({reason}); check its folder and the room on the disk"
        ) from error


@contextmanager
def beside(path: Path, *, partial: str | None = None) -> Iterator[Path]:
    """Name a hidden sibling of `path` to make, a file or a folder; what is left of it is removed.

    Whoever makes it whole moves it to `path`, so that nobody sees half of it there.

    Args:
        path: what is to be made.
        partial: the sibling's name; None makes one that nobody else writes to at the same time.
    """
    sibling = path.with_name(partial or f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield sibling
    finally:
        shutil.rmtree(sibling, ignore_errors=True)
        with suppress(OSError):  # nothing is left, or nothing can be done about it
            sibling.unlink()


def _unreadable(path: Path, error: BaseException, remedy: str) -> DataError:
    form = "CSV" if path.suffix == ".csv" else "Parquet"
    return DataError(f"{path}: cannot be read as {form} ({first_line(error)}); {remedy}")
