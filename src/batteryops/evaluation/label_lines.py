"""How well a line rebuilds the label from each feature, and from products and ratios of two.

A candidate's R2 is that of the least-squares line from it to the label within one asset: the
squared correlation. What an asset can and cannot tell is decided here; whether a candidate is a
leak follows from `Line.flagged`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.metrics import CONSTANT, Floats, nominal_per_row

LineKind = Literal["feature", "product", "ratio"]

R2_LIMIT: Final = 0.999
"""Above it a line rebuilds the label: what is left is 3 percent of the label's deviation."""

MIN_ROWS: Final = 10
"""Labelled rows of an asset below which a line proves nothing: the wear of a few cycles is almost
straight, and so is much else that drifts."""

MIN_LABELS: Final = 5
"""Distinct labels below which a line proves nothing: on two, every step is a line."""

SHARE: Final = 0.1
LEAST_ASSETS: Final = 2
"""A candidate is flagged when it passes the limit in this share of the assets that can tell, and
in this many of them, or in the only one.

Not in the median asset: mean current times record length is the capacity only where the load is
constant and the record ends with it, in 9 of 26 NASA cells with a median R2 of 0.996, and gives the
label away there. Not in any one asset: one may agree by chance, or by a load of its own. On NASA's
cells everything that passes in a tenth of the assets holds the charge that flowed."""

MIDDLE_LIMIT: Final = 0.99
"""The line must hold among the middle half of the labels too, ten times laxer: the middle half of
a normal distribution has 0.14 of its variance. A crashed run without capacity puts whatever notices
the crash on a line with the label; among the other cycles that line is gone."""

LEAST_ASSETS_TOGETHER: Final = 6
"""Assets from which one line through all of them counts, even with one row each. Six points of
noise pass the limit with probability 4e-7, since their R2 is distributed as beta(1/2, 2)."""

MAX_ROWS: Final = 50_000
"""Of a longer table only every n-th row is looked at."""

_FLAT: Final = 1e-9  # relative to its size, a column that deviates by less is constant
_HALF: Final = (0.25, 0.75)


@dataclass(frozen=True, slots=True)
class Line:
    """A feature, or a product or ratio of two, as a way to rebuild the label.

    Args:
        kind: which of the three.
        features: the one or two features; of a ratio, the numerator first.
        r2: the R2 that as many assets reach as a flag needs, or of one line through all assets
            where that is higher; 0 where no asset can tell.
        median_r2: over the assets that can tell; NaN where none can.
        together: whether `r2` is that of one line through all assets.
        assets: those that pass the limit; all, when `together`.
        n_assets: those that can tell.
    """

    kind: LineKind
    features: tuple[str, ...]
    r2: float
    median_r2: float
    together: bool
    assets: tuple[str, ...]
    n_assets: int

    @property
    def flagged(self) -> bool:
        """Whether the label can be rebuilt."""
        return self.r2 > R2_LIMIT

    @property
    def judged(self) -> bool:
        """Whether there were rows enough to say anything."""
        return self.n_assets > 0 or self.together

    @property
    def formula(self) -> str:
        """Such as `current * time`."""
        return (" / " if self.kind == "ratio" else " * ").join(self.features)

    def to_json(self) -> dict[str, Any]:
        """Formula and numbers, ready for `json.dumps`."""
        return {
            "formula": self.formula,
            "r2": self.r2,
            "median_r2": self.median_r2 if np.isfinite(self.median_r2) else None,
            "together": self.together,
            "n_assets": self.n_assets,
        }


def label_lines(
    table: pl.DataFrame,
    names: Sequence[str],
    label: str,
    nominal_ah: Mapping[str, float] | None = None,
) -> list[Line]:
    """The line of every feature, and of every product and ratio of two, best first.

    An asset can tell when it has at least `MIN_ROWS` rows on which label and candidate are finite,
    and its labels vary; a candidate that is constant there has an R2 of 0. One line through all
    assets is looked at from `LEAST_ASSETS_TOGETHER` on: packs that were measured once each have no
    line of their own.

    Args:
        table: `asset_id`, the features and the label; null or NaN where missing.
        names: the features, numeric columns.
        label: a numeric column.
        nominal_ah: nominal capacity of each asset. With it, one line through all assets must
            rebuild SoH too: among packs of many sizes the size alone is almost on a line with the
            capacity, and says nothing of health.

    Raises:
        DataError: when a column is missing or not numeric.
        UnknownAssetError: when `nominal_ah` lacks an asset.

    Examples:
        >>> table = pl.DataFrame({
        ...     "asset_id": ["B0005"] * 12,
        ...     "current": [1.0, 2.0, 1.5, 1.0] * 3,
        ...     "time": [3600.0 - 50.0 * n for n in range(12)],
        ... })
        >>> table = table.with_columns(capacity_ah=pl.col("current") * pl.col("time") / 3600)
        >>> [line.formula for line in label_lines(table, ["current", "time"], "capacity_ah")
        ...  if line.flagged]
        ['current * time']
    """
    rows = _rows(table, names, label, nominal_ah)
    found: list[Line] = []
    for candidates, values in _candidates(rows):
        found.extend(_judge(rows, candidates, values))
    return sorted(found, key=lambda line: -line.r2)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Labelled rows, sorted by asset."""

    names: tuple[str, ...]
    assets: list[str]
    starts: NDArray[np.intp]  # of each asset's rows
    sizes: NDArray[np.intp]
    features: Floats  # (rows, features), each column scaled into -1 to 1
    label: Floats
    nominal: Floats | None


_Candidate = tuple[LineKind, tuple[str, ...]]


def _rows(
    table: pl.DataFrame, names: Sequence[str], label: str, nominal_ah: Mapping[str, float] | None
) -> _Rows:
    for name in (*names, label):
        if name not in table.columns or not table.schema[name].is_numeric():
            raise DataError(
                f"column {name} is {table.schema.get(name, 'missing')}, expected numbers"
            )
    labelled = table.select(
        "asset_id",
        pl.col(*names).cast(pl.Float64),
        pl.col(label).cast(pl.Float64).alias("\0label"),
    ).filter(pl.col("\0label").is_finite())
    labelled = labelled.sort("asset_id", maintain_order=True)
    labelled = labelled.gather_every(max(1, -(-labelled.height // MAX_ROWS)))
    runs = labelled["asset_id"].rle().struct.unnest()
    assets = runs["value"].to_list()
    sizes = runs["len"].to_numpy().astype(np.intp)
    features = labelled.select(names).to_numpy().astype(np.float64)
    with np.errstate(invalid="ignore"):
        largest = np.max(np.abs(features), axis=0, initial=0.0, where=np.isfinite(features))
    nominal = None
    if nominal_ah is not None:
        nominal = nominal_per_row(labelled["asset_id"], nominal_ah)
    return _Rows(
        names=tuple(names),
        assets=assets,
        starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp),
        sizes=sizes,
        # by a power of two, which rounds nothing; products and squares then stay in range
        features=np.ldexp(features, -np.frexp(largest)[1]),
        label=labelled["\0label"].to_numpy(),
        nominal=nominal,
    )


def _candidates(rows: _Rows) -> Iterator[tuple[list[_Candidate], Floats]]:
    """In blocks, so that memory grows with the number of features and not with its square."""
    names, features = rows.names, rows.features
    yield [("feature", (name,)) for name in names], features
    for at, name in enumerate(names):
        others = [position for position in range(len(names)) if position != at]
        after = others[at:]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = np.hstack(
                [
                    features[:, [at]] * features[:, after],
                    features[:, [at]] / features[:, others],
                ]
            )
        products: list[_Candidate] = [("product", (name, names[other])) for other in after]
        ratios: list[_Candidate] = [("ratio", (name, names[other])) for other in others]
        yield products + ratios, values


def _judge(rows: _Rows, candidates: list[_Candidate], values: Floats) -> Iterator[Line]:
    if not len(rows.label) or not candidates:
        return
    r2 = _r_squared(values, rows.label, rows.starts, rows.sizes, MIN_ROWS)
    many = len(rows.assets) >= LEAST_ASSETS_TOGETHER
    whole = np.array([0]), np.array([len(rows.label)])
    together = _r_squared(values, rows.label, *whole, LEAST_ASSETS_TOGETHER)[0]
    for position, (kind, features) in enumerate(candidates):
        column, own = values[:, position], r2[:, position]
        for at in np.flatnonzero(own > R2_LIMIT):
            part = slice(rows.starts[at], rows.starts[at] + rows.sizes[at])
            own[at] = min(own[at], _in_the_middle(column[part], rows.label[part]))
        can_tell = own[np.isfinite(own)]
        reached = _reached(can_tell)
        all_of_them = together[position] if many and np.isfinite(together[position]) else 0.0
        if all_of_them > R2_LIMIT:
            all_of_them = min(
                all_of_them, _in_the_middle(column, rows.label), _of_health(column, rows)
            )
        yield Line(
            kind=kind,
            features=features,
            r2=float(max(reached, all_of_them)),
            median_r2=float(np.median(can_tell)) if can_tell.size else np.nan,
            together=bool(all_of_them > reached),
            assets=tuple(
                asset
                for asset, value in zip(rows.assets, own, strict=True)
                if value > R2_LIMIT or all_of_them > max(reached, R2_LIMIT)
            ),
            n_assets=can_tell.size,
        )


def assets_needed(n_assets: int) -> int:
    """How many of the assets that can tell must pass the limit for a flag.

    Examples:
        >>> [assets_needed(n) for n in (1, 2, 10, 26, 500)]
        [1, 2, 2, 3, 50]
    """
    return max(min(LEAST_ASSETS, n_assets), math.ceil(SHARE * n_assets))


def _reached(r2: Floats) -> float:
    """What as many assets reach as a flag needs."""
    return float(np.sort(r2)[-assets_needed(r2.size)]) if r2.size else 0.0


def _r_squared(
    values: Floats,
    label: Floats,
    starts: NDArray[np.intp],
    sizes: NDArray[np.intp],
    min_rows: int,
) -> Floats:
    """R2 of the line from each column to the label, within each run of rows.

    Args:
        values: (n, k); rows that are not finite take no part.
        label: (n,), finite.
        starts: (g,) first row of each run.
        sizes: (g,) rows of each run.
        min_rows: a run with fewer finite rows cannot tell.

    Returns:
        (g, k); NaN where a run cannot tell, 0 where the column is constant.
    """
    finite = np.isfinite(values)
    values = np.where(finite, values, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        count = np.add.reduceat(finite, starts, axis=0, dtype=np.float64)
        mean_x = np.add.reduceat(values, starts, axis=0) / count
        mean_y = np.add.reduceat(np.where(finite, label[:, None], 0.0), starts, axis=0) / count
        dx = np.where(finite, values - np.repeat(mean_x, sizes, axis=0), 0.0)
        dy = np.where(finite, label[:, None] - np.repeat(mean_y, sizes, axis=0), 0.0)
        sxx = np.add.reduceat(dx * dx, starts, axis=0)
        syy = np.add.reduceat(dy * dy, starts, axis=0)
        sxy = np.add.reduceat(dx * dy, starts, axis=0)
        r2 = sxy / sxx * (sxy / syy)
    size_x = np.maximum.reduceat(np.abs(values), starts, axis=0)
    size_y = np.maximum.reduceat(np.abs(np.where(finite, label[:, None], 0.0)), starts, axis=0)
    flat_x = sxx <= count * (_FLAT * size_x) ** 2
    flat_y = syy <= count * (CONSTANT * size_y) ** 2
    r2 = np.where(flat_x | ~np.isfinite(r2), 0.0, r2)
    return np.where((count < min_rows) | flat_y, np.nan, r2)


def _in_the_middle(values: Floats, label: Floats) -> float:
    """1 where the line holds among the middle half of the labels; otherwise the R2 there."""
    finite = np.isfinite(values)
    values, label = values[finite], label[finite]
    low, high = np.quantile(label, _HALF)
    middle = (label >= low) & (label <= high)
    if len(np.unique(label)) < MIN_LABELS or len(np.unique(label[middle])) < 3:  # noqa: PLR2004 - a line has two parameters
        return 0.0
    [[r2]] = _r_squared(
        values[middle, None], label[middle], np.array([0]), np.array([middle.sum()]), 3
    )
    return 1.0 if r2 > MIDDLE_LIMIT else float(np.nan_to_num(r2))


def _of_health(values: Floats, rows: _Rows) -> float:
    """How well the line through all assets rebuilds SoH: R2; 1 where nothing is known of SoH."""
    if rows.nominal is None:
        return 1.0
    finite = np.isfinite(values)
    values, label, nominal = values[finite], rows.label[finite], rows.nominal[finite]
    dx, dy = values - values.mean(), label - label.mean()
    residual = (dy - dx * (dx @ dy) / (dx @ dx)) / nominal
    soh = label / nominal
    spread = ((soh - soh.mean()) ** 2).sum()
    return float(max(0.0, 1.0 - (residual @ residual) / spread)) if spread > 0 else 0.0
