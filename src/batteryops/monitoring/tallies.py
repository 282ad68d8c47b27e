"""What was counted of one column: whole numbers that add up exactly, in any order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.monitoring.cells import Grid, Integers

GROUPS: Final = 512
"""Assets are told apart by so many groups at most; a fleet's memory does not grow beyond them."""


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Counts of one column.

    Args:
        cells: (n_cells,) rows by cell of the grid.
        infinite: how many of them were infinite.
        absent: rows of tables that did not have the column; they are counted as NaN.
        groups: (GROUPS, n_bins) rows by group of assets and bin; None where no asset was given.
        strata: cells (n_cells,) by label, where rows had one.
    """

    cells: Integers
    infinite: int = 0
    absent: int = 0
    groups: Integers | None = None
    strata: Mapping[str, Integers] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All rows, those without a value too."""
        return int(self.cells.sum())

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return int(self.cells[-1])

    def __add__(self, other: Self) -> Self:
        """Both together."""
        none = np.zeros_like(self.cells)
        return type(self)(
            self.cells + other.cells,
            self.infinite + other.infinite,
            self.absent + other.absent,
            None if self.groups is None or other.groups is None else self.groups + other.groups,
            {
                label: self.strata.get(label, none) + other.strata.get(label, none)
                for label in sorted({*self.strata, *other.strata})
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Exactly this, with arrays as words: one line each, and readable."""
        told: dict[str, Any] = {
            "cells": words(self.cells),
            "infinite": self.infinite,
            "absent": self.absent,
            "strata": {label: words(cells) for label, cells in self.strata.items()},
        }
        if self.groups is not None:
            seen = np.flatnonzero(self.groups.any(axis=1)).tolist()
            told["groups"] = {str(group): words(self.groups[group]) for group in seen}
        return told

    @classmethod
    def from_json(cls, document: Mapping[str, Any], grid: Grid) -> Self:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: when it is something else.
        """
        groups = None
        if "groups" in document:
            groups = np.zeros((GROUPS, grid.n_bins), dtype=np.int64)
            for group, row in document["groups"].items():
                groups[int(group)] = whole(row, grid.n_bins)
        return cls(
            whole(document["cells"], grid.n_cells),
            int(document["infinite"]),
            int(document["absent"]),
            groups,
            {label: whole(row, grid.n_cells) for label, row in document["strata"].items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Which rows of a table belong to which asset and stratum; the same for all its columns.

    Args:
        n: how many there are.
        groups: (n,) number of each row's group of assets; None where no asset was given.
        strata: rows by label; None where none was given.
    """

    n: int
    groups: NDArray[np.int64] | None
    strata: Mapping[str, NDArray[np.int64]] | None

    @classmethod
    def of(cls, n: int, assets: pl.Series | None, strata: pl.Series | None) -> Self:
        """The rows of a table.

        Args:
            n: how many.
            assets: (n,) whose row it is.
            strata: (n,) labels, null where a row has none.
        """
        return cls(
            n,
            None if assets is None else group_numbers(assets),
            None
            if strata is None
            else {
                label: np.flatnonzero((strata == label).fill_null(value=False).to_numpy())
                for label in strata.drop_nulls().unique().sort().to_list()
            },
        )

    def tally(self, grid: Grid, values: NDArray[np.floating] | None) -> Tally:
        """Count a column's values (n,); None where the table does not have it."""
        absent = 0
        if values is None:
            values, absent = np.full(self.n, np.nan), self.n
        cells, infinite = grid.count(values)
        return Tally(
            cells,
            infinite,
            absent,
            None if self.groups is None else grid.count_by_group(values, self.groups, GROUPS),
            {label: grid.count(values[rows])[0] for label, rows in (self.strata or {}).items()},
        )


def group_numbers(assets: pl.Series) -> NDArray[np.int64]:
    """The group of each row's asset: the same asset is in the same group in every table.

    Examples:
        >>> group_numbers(pl.Series(["EV-1", "EV-2", "EV-1"]))
        array([452, 126, 452])
    """
    ids = assets.cast(pl.String).fill_null("")
    names = ids.unique()
    numbers = [crc32(name.encode()) % GROUPS for name in names]
    return ids.replace_strict(names, numbers, return_dtype=pl.Int64).to_numpy()


def words(numbers: NDArray[np.int64] | NDArray[np.float64]) -> str:
    """Numbers as one line of text, from which `whole` and `real` read the very same ones."""
    return " ".join(map(repr, numbers.tolist()))


def whole(text: str, size: int) -> Integers:
    """Counts from one line of text.

    Raises:
        ValueError: when they are not `size` counts.
    """
    read = np.array([int(word) for word in text.split()], dtype=np.int64)
    if read.size != size or (read < 0).any():
        raise ValueError(f"{read.size} counts, expected {size}, none of them negative")
    return read


def real(text: str) -> NDArray[np.float64]:
    """Numbers from one line of text.

    Raises:
        ValueError: when they are none.
    """
    return np.array([float(word) for word in text.split()], dtype=np.float64)
