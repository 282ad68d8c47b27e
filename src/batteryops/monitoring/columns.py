"""Columns of a table as numbers, and work on many of them at a time."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError

_WORTH_THREADS: Final = 50_000
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def column_values(table: pl.DataFrame, name: str) -> NDArray[np.floating]:
    """A column's values (n,), float32 or float64; null is NaN.

    Raises:
        DataError: when it does not hold numbers.
    """
    column = table[name]
    if column.dtype == pl.Null:
        return np.full(len(column), np.nan)
    if not column.dtype.is_numeric():
        raise DataError(f"feature {name} is {column.dtype}, expected numbers")
    if column.dtype not in {pl.Float32, pl.Float64}:
        column = column.cast(pl.Float64)
    return column.to_numpy()


def prediction_values(predictions: ArrayLike, rows: int) -> NDArray[np.floating]:
    """Predictions (n,) as numbers.

    Raises:
        DataError: when they are not one number per row.
    """
    try:
        values = np.asarray(predictions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"predictions are not numbers: {error}") from error
    if values.shape != (rows,):
        raise DataError(f"predictions have shape {values.shape}; expected one for each of {rows}")
    return values


def each(
    work: Callable[[_In], _Out],
    columns: Sequence[_In],
    *,
    rows: int,
) -> list[_Out]:
    """`work` of every column, in their order; on all cores where the rows are many.

    NumPy sorts without holding the interpreter, so that threads do help.
    """
    if rows < _WORTH_THREADS or len(columns) == 1:
        return [work(column) for column in columns]
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(work, columns))
