"""How many rows are repeats of another, in little memory however many rows there are.

Each row is reduced to a hash, and only the rows with the smallest hashes are counted: which these
are depends on what the rows hold and not on how often or when they come, so their share of repeats
stands for that of all (a bottom-k sample of distinct items: Bar-Yossef, Jayram, Kumar, Sivakumar
and Trevisan, Counting Distinct Elements in a Data Stream, RANDOM 2002). While there are no more
distinct rows than are kept, the share is exact.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

KEPT: Final = 65_536
"""Distinct rows that are counted: the share is then right to about 0.2 percentage points."""

_SEED: Final = 20  # any number, always the same one


@dataclass(frozen=True, slots=True, eq=False)
class Repeats:
    """Counts of the rows with the smallest hashes; counts add, in any order.

    Args:
        hashes: rising, at most `kept`.
        counts: how often each was seen.
        kept: how many are.
    """

    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]
    kept: int = KEPT

    @classmethod
    def of(cls, rows: pl.DataFrame, kept: int = KEPT) -> Self:
        """Of a table, whose columns are all that counts; NaN is as good as null."""
        hashes = rows.fill_nan(None).hash_rows(_SEED).to_numpy()
        distinct, counts = np.unique(hashes, return_counts=True)
        return cls(distinct[:kept], counts[:kept].astype(np.int64), kept)

    def __add__(self, other: "Repeats") -> "Repeats":
        """The counts of both."""
        kept = min(self.kept, other.kept)
        both = np.concatenate([self.hashes, other.hashes])
        distinct, place = np.unique(both, return_inverse=True)
        counts = np.zeros(distinct.size, dtype=np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Repeats(distinct[:kept], counts[:kept], kept)

    @property
    def share(self) -> float:
        """Share of rows that repeat an earlier one; NaN without rows.

        Examples:
            >>> Repeats.of(pl.DataFrame({"vehicle": ["a", "a", "b", "a"], "x": 1.0})).share
            0.5
        """
        rows = int(self.counts.sum())
        return 1.0 - self.hashes.size / rows if rows else float("nan")
