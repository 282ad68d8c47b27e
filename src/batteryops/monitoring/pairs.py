"""Two samples side by side: rows of the reference, and current ones."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from batteryops.monitoring.cells import Floats
from batteryops.monitoring.context import Context
from batteryops.monitoring.sensor_faults import Values
from batteryops.monitoring.ties import Scale, followed, means

RISE: Final = "delta_T_C"
"""The feature that says by how much a battery warmed."""

HIGHEST: Final = "temperature_C_max"

_BANDS: Final = 5
_OVERLAP: Final = 0.8
_HALF_A_ROW: Final = 0.5
_FEWEST: Final = 200  # rows that must count, for PSI to say something of ten bins


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows of one side.

    Args:
        values: (n, k), NaN where missing.
        weights: (n,) how many rows each stands for.
        assets: (n,) hashes of names.
        order: (n,) what came first in an asset's life, NaN where unknown.
    """

    values: Floats
    weights: Floats
    assets: NDArray[np.uint32]
    order: Floats

    @classmethod
    def of(cls, context: Context, names: tuple[str, ...]) -> Self:
        """The rows of a context."""
        return cls(
            context.values(names),
            context.weights,
            context.rows["asset"].to_numpy(),
            context.rows["order"].to_numpy(),
        )

    def only(self, rows: NDArray[np.bool_], weights: Floats | None = None) -> Self:
        """Some of the rows, perhaps weighted otherwise."""
        given = self.weights if weights is None else weights
        return type(self)(self.values[rows], given[rows], self.assets[rows], self.order[rows])

    def column(self, place: int) -> Values:
        """One feature."""
        return Values(self.values[:, place], self.weights, self.assets, self.order)


@dataclass(frozen=True, eq=False)
class Pair:
    """Both sides.

    Args:
        names: (k,) of the columns.
        before: of the reference.
        after: current.
        by_asset: whether it is known on both sides whose rows they are.
        complete: whether the reference's sample holds all of its assets; otherwise it holds those
            with the smallest hashes, and of others nothing is known.
        scale: of the reference's values.
    """

    names: tuple[str, ...]
    before: Sample
    after: Sample
    by_asset: bool
    complete: bool = True
    scale: Scale = field(init=False)

    def __post_init__(self) -> None:
        """The scale is that of the reference."""
        object.__setattr__(self, "scale", Scale.of(self.before.values))

    @cached_property
    def scaled(self) -> tuple[Floats, Floats]:
        """Values of both sides on one scale."""
        return self.scale(self.before.values), self.scale(self.after.values)

    @cached_property
    def shifts(self) -> Floats:
        """How far the mean of each column moved (k,), in deviations; NaN without values."""
        old, new = self.scaled
        moved: Floats = means(new, self.after.weights) - means(old, self.before.weights)
        return moved

    @cached_property
    def known_assets(self) -> float:
        """Share of the current rows whose asset the reference has too; 0 where none is known.

        Where the reference's sample has no room for all assets, only those count that would be in
        it.
        """
        if not self.by_asset:
            return 0.0
        known, new = (
            float(self.after.weights[rows].sum()) for rows in (self.is_known, self.is_new)
        )
        return known / (known + new) if known else 0.0

    @cached_property
    def is_known(self) -> NDArray[np.bool_]:
        """Current rows (m,) of assets that the reference has too."""
        known: NDArray[np.bool_] = np.isin(self.after.assets, self.before.assets)
        return known

    @cached_property
    def is_new(self) -> NDArray[np.bool_]:
        """Current rows (m,) of assets that the reference does not have, as far as can be told."""
        return (self.after.assets <= self._last_asset) & ~self.is_known

    @property
    def _last_asset(self) -> int:
        """The largest hash that the reference's sample would hold, if it were of an asset of it."""
        if self.complete or not self.before.assets.size:
            return int(np.iinfo(np.uint32).max)
        return int(self.before.assets.max())

    @cached_property
    def starts(self) -> tuple[Floats, Floats] | None:
        """Temperatures at the beginning of the records of both sides (n,): highest less rise, degC.

        None where one of them is no feature.
        """
        if RISE not in self.names or HIGHEST not in self.names:
            return None
        rise, highest = self.names.index(RISE), self.names.index(HIGHEST)
        before, after = (
            side.values[:, highest] - side.values[:, rise] for side in (self.before, self.after)
        )
        return before, after

    @cached_property
    def later(self) -> bool | None:
        """Whether current rows come later in the lives of the same assets; None where unknown."""
        found = []
        for asset in np.intersect1d(self.after.assets, self.before.assets):
            old = self.before.order[self.before.assets == asset]
            new = self.after.order[self.after.assets == asset]
            found.append(np.median(new) - np.median(old))
        told = np.array(found)[np.isfinite(found)]
        return bool(np.median(told) > 0) if told.size else None

    def of_the_same(self) -> Self:
        """Assets compared with themselves: each counts on both sides what it counts now."""
        both = np.intersect1d(self.after.assets, self.before.assets)
        weights = np.zeros(self.before.weights.size)
        for asset in both:
            theirs = self.before.assets == asset
            now = self.after.weights[self.after.assets == asset].sum()
            weights[theirs] = self.before.weights[theirs] * now / self.before.weights[theirs].sum()
        return replace(
            self,
            before=self.before.only(weights > 0, weights),
            after=self.after.only(np.isin(self.after.assets, both)),
        )

    def follow(self, axes: list[int]) -> Floats:
        """By how much each column (k,) would have moved, had it followed these as it used to."""
        weights = self.before.weights, self.after.weights
        return followed(*self.scaled, axes, weights=weights)

    def with_column(self, name: str, before: Floats, after: Floats) -> Self:
        """One column more."""
        sides = (self.before, before), (self.after, after)
        old, new = (
            replace(side, values=np.column_stack([side.values, column])) for side, column in sides
        )
        return replace(self, names=(*self.names, name), before=old, after=new)

    def reweighted_psi(self, place: int, axes: list[int]) -> tuple[float, float] | None:
        """PSI of a column, as it is and after current rows are weighted to the reference's strata.

        Strata are fifths of the reference along each axis. None where the current rows do not
        cover four fifths of what the reference has, or are too few once they are weighted.
        """
        old = self._strata(self.before, axes)
        new = self._strata(self.after, axes)
        wanted = np.bincount(old, self.before.weights, minlength=_BANDS ** len(axes))
        have = np.bincount(new, self.after.weights, minlength=_BANDS ** len(axes))
        wanted, have = wanted / wanted.sum(), have / have.sum()
        if wanted[have > 0].sum() < _OVERLAP:
            return None
        factors = np.divide(wanted, have, out=np.zeros_like(have), where=have > 0)
        weights = self.after.weights * factors[new]
        if weights.sum() ** 2 < _FEWEST * (weights**2).sum():
            return None
        edges = self._edges(self.before.values[:, place], np.arange(1, 10) / 10)
        before = self._shares(self.before, place, edges, self.before.weights)
        plain = self._shares(self.after, place, edges, self.after.weights)
        weighted = self._shares(self.after, place, edges, weights)
        return _psi(before, plain), _psi(before, weighted)

    def _strata(self, side: Sample, axes: list[int]) -> NDArray[np.int64]:
        found = np.zeros(side.weights.size, dtype=np.int64)
        for place in axes:
            edges = self._edges(self.before.values[:, place], np.arange(1, _BANDS) / _BANDS)
            found = found * _BANDS + np.searchsorted(edges, side.values[:, place]).clip(
                max=_BANDS - 1
            )
        return found

    @staticmethod
    def _edges(values: Floats, shares: Floats) -> Floats:
        known = values[np.isfinite(values)]
        return np.unique(np.quantile(known, shares)) if known.size else np.empty(0)

    @staticmethod
    def _shares(side: Sample, place: int, edges: Floats, weights: Floats) -> Floats:
        """Shares of rows by bin; as many rows as would say as much if all counted the same."""
        bins = np.searchsorted(edges, side.values[:, place])
        bins[~np.isfinite(side.values[:, place])] = edges.size + 1
        held = np.bincount(bins, weights, minlength=edges.size + 2)
        rows = weights.sum() ** 2 / (weights**2).sum()
        shares: Floats = held / held.sum() * rows + _HALF_A_ROW
        return shares


def _psi(before: Floats, after: Floats) -> float:
    p, q = before / before.sum(), after / after.sum()
    return float(((q - p) * np.log(q / p)).sum())
