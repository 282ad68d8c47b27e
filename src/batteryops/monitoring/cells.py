"""Cells of one column: the fine grid of a reference, and how many values lie in each of its cells.

Sorting small pieces that stay in the processor's cache, and looking up the grid in them, is several
times faster than looking up every value in the grid, and just as exact.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SHARES: Final = 990
"""Equal shares of the reference between points of the grid; deciles are among the points.

With the least value there are at most 991. What a grid leaves out is at most one share: a
Kolmogorov distance over its points is at most 1/990 below that over all values.
"""

BINS: Final = 10
"""Bins that PSI is computed from, where no value is heavy: between the deciles."""

ATOM_SHARE: Final = 0.05
"""A value that holds so much of the reference, half a decile, is a bin of its own."""

_CHUNK: Final = 32768
_LARGEST: Final = np.finfo(np.float64).max


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The cells and the bins of one column.

    Cell i holds the values above `cuts[i - 1]` up to and with `cuts[i]`; the first begins at minus
    infinity, the one before the last ends at plus infinity, and the last counts NaN. A value that
    has a cell of its own, an atom, has its predecessor among the cuts.

    Args:
        cuts: (k,) strictly increasing, possibly none.
        ends: indices of the cuts that end a bin, increasing; one more bin lies above, and the last
            is that of NaN.
    """

    cuts: Floats
    ends: Integers

    @property
    def n_cells(self) -> int:
        """Cells, with that of NaN."""
        return self.cuts.size + 2

    @property
    def n_bins(self) -> int:
        """Bins, with that of NaN."""
        return self.ends.size + 2

    @property
    def edges(self) -> Floats:
        """The upper ends (n_bins - 2,) of all bins but the one above and that of NaN."""
        return self.cuts[self.ends]

    def count(self, values: NDArray[np.floating]) -> tuple[Integers, int]:
        """How many values (n,) lie in each cell, and how many of them are infinite.

        Infinite values are counted in the open cells at the ends.

        Examples:
            >>> grid = Grid(np.array([0.0, 1.0]), np.array([0]))
            >>> grid.count(np.array([-np.inf, 0.0, 0.5, 1.0, 2.0, np.nan]))
            (array([2, 2, 1, 1]), 1)
        """
        # up to: minus infinity, the cuts, the largest number, plus infinity
        looked_up = np.concatenate([[-np.inf], self.cuts, [_LARGEST, np.inf]])
        up_to = np.zeros(looked_up.size, dtype=np.int64)
        for start in range(0, values.size, _CHUNK):
            up_to += np.sort(values[start : start + _CHUNK]).searchsorted(looked_up, side="right")
        cells = np.empty(self.n_cells, dtype=np.int64)
        cells[:-1] = np.diff(up_to[[*range(1, self.cuts.size + 1), -1]], prepend=0)
        cells[-1] = values.size - up_to[-1]
        return cells, int(up_to[0] + up_to[-1] - up_to[-2])

    def to_bins(self, cells: Integers) -> Integers:
        """Counts (..., n_bins) of the bins, from those of the cells (..., n_cells)."""
        starts = np.concatenate([[0], self.ends + 1, [self.n_cells - 1]])
        bins: Integers = np.add.reduceat(cells, starts, axis=-1)
        return bins

    def count_by_group(
        self, values: NDArray[np.floating], groups: Integers, n_groups: int
    ) -> Integers:
        """How many values (n,) of each group lie in each bin, (n_groups, n_bins).

        Args:
            values: (n,).
            groups: (n,) from 0 to below `n_groups`.
            n_groups: how many groups there are.
        """
        edges = self.edges
        found = np.zeros(n_groups * self.n_bins, dtype=np.int64)
        for start in range(0, values.size, _CHUNK):
            chunk = values[start : start + _CHUNK]
            above = np.zeros(chunk.size, dtype=np.uint8)
            for edge in edges:  # a few comparisons cost less than a search
                above += (chunk > edge).view(np.uint8)
            above[np.isnan(chunk)] = self.n_bins - 1
            places = groups[start : start + _CHUNK] * self.n_bins
            places += above
            found += np.bincount(places, minlength=found.size)
        return found.reshape(n_groups, self.n_bins)


def fit_grid(values: NDArray[np.floating]) -> tuple[Grid, Integers]:
    """The grid of a reference, and the reference's own counts in its cells.

    Args:
        values: (n,) of any numbers; cells are made from the finite ones.

    Examples:
        >>> grid, counts = fit_grid(np.arange(1.0, 1001.0))
        >>> grid.edges
        array([100., 200., 300., 400., 500., 600., 700., 800., 900.])
        >>> grid.to_bins(counts)
        array([100, 100, 100, 100, 100, 100, 100, 100, 100, 100,   0])
    """
    finite = np.sort(values[np.isfinite(values)]).astype(np.float64)
    n = finite.size
    if not n:
        grid = Grid(np.empty(0), np.empty(0, dtype=np.int64))
        return grid, grid.count(values)[0]
    ranks = -(-np.arange(SHARES + 1) * n // SHARES)  # upwards
    points = finite[np.maximum(ranks - 1, 0)]
    heavy = _repeated(points if n > SHARES else finite)
    own = np.concatenate([points[:1], heavy])
    own = own[own > -_LARGEST]  # nothing comes before that
    cuts = np.unique(np.concatenate([points, np.nextafter(own, -np.inf)]))
    cells, _ = Grid(cuts, np.empty(0, dtype=np.int64)).count(values)
    return Grid(cuts, _ends(cuts, cells[:-1])), cells


def _repeated(ordered: Floats) -> Floats:
    repeated: Floats = ordered[1:][ordered[1:] == ordered[:-1]]
    return repeated


def _ends(cuts: Floats, cells: Integers) -> Integers:
    """The cuts that end a bin: both ends of each heavy value, and equal shares in between."""
    n = int(cells.sum())
    narrow = np.flatnonzero(np.nextafter(cuts[1:], -np.inf) == cuts[:-1]) + 1
    heavy = narrow[cells[narrow] >= ATOM_SHARE * n]
    up_to = np.cumsum(cells)
    ends = {int(cut) for atom in heavy for cut in (atom - 1, atom)}
    first, below = 0, 0  # of the stretch between two heavy values: its first cell, what lies below
    for atom in [*heavy.tolist(), cells.size]:
        held = int(up_to[atom - 1]) - below if atom > first else 0
        bins = max(1, round(BINS * held / n))
        targets = below + np.ceil(held * np.arange(1, bins) / bins)
        ends.update(first + np.searchsorted(up_to[first:atom], targets))
        first = atom + 1
        below = int(up_to[atom]) if atom < cells.size else n
    kept = sorted(end for end in map(int, ends) if end < cuts.size)
    return np.array(kept, dtype=np.int64)
