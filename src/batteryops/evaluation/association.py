"""Whether two numbers move together, and whether they still do once others are accounted for."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr, rankdata

from batteryops.errors import DataError

MIN_ROWS: Final = 3
"""Two points always lie on a line."""

_RESIDUE: Final = 1e-9  # of a variance: what rounding leaves of a variable that others explain

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Association:
    """Two correlations between the same two numbers.

    Args:
        pearson: of the values, -1 to 1; NaN where one of them does not vary, or of fewer than
            three rows.
        spearman: of their ranks, likewise.
        n: rows.
    """

    pearson: float
    spearman: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """By name; null where undefined."""
        return {"pearson": _number(self.pearson), "spearman": _number(self.spearman), "n": self.n}


def associate(x: ArrayLike, y: ArrayLike) -> Association:
    """Pearson's and Spearman's correlation over the rows where both numbers are finite.

    Raises:
        DataError: when the shapes disagree.

    Examples:
        >>> associate([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 16.0]).spearman
        1.0
    """
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape:
        raise DataError(f"shapes {left.shape} and {right.shape}; expected n numbers of each")
    known = np.isfinite(left) & np.isfinite(right)
    left, right = left[known], right[known]
    return Association(_pearson(left, right), _pearson(rankdata(left), rankdata(right)), len(left))


def partial_rank_correlation(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float:
    """Spearman's correlation of x and y that is left when others are accounted for.

    All are ranked; the ranks of the others are taken out of those of x and y by least squares, and
    what remains is correlated (M. G. Kendall, Partial rank correlation, Biometrika 32, 1942, with
    Spearman's rho).

    Args:
        x: (n,)
        y: (n,)
        given: (n, k), k may be 0.

    Returns:
        -1 to 1; NaN where the others explain x or y altogether, or too few rows are left.

    Examples:
        Longer trips are later and warmer; of equally long ones, later ones are no warmer.

        >>> rng = np.random.default_rng(0)
        >>> length = rng.uniform(0, 10, 400)
        >>> date, heat = length + rng.normal(size=400), length + rng.normal(size=400)
        >>> round(associate(date, heat).spearman, 1)
        0.9
        >>> abs(partial_rank_correlation(date, heat, length[:, None])) < 0.1
        True
    """
    left, right, others = _rows(x, y, given)
    if len(left) < MIN_ROWS + others.shape[1]:
        return math.nan
    ranks = [rankdata(column) for column in others.T]
    return _pearson(_rest(rankdata(left), ranks), _rest(rankdata(right), ranks))


def at_equal_load(values: ArrayLike, age: ArrayLike, given: ArrayLike) -> Floats:
    """Values (n,) with the effect of the others taken out, the effect of age left in.

    One least-squares fit on age and the others together tells their effects apart; those of the
    others, relative to their means, are subtracted. NaN where a number of the row is missing.

    Args:
        values: (n,)
        age: (n,)
        given: (n, k), k may be 0.

    Examples:
        >>> age, load = np.arange(6.0), np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
        >>> found = at_equal_load(2 * age + 7 * load, age, load[:, None])
        >>> np.allclose(found, 2 * age + 7 * load.mean())
        True
    """
    y, x = np.asarray(values, dtype=np.float64), np.asarray(age, dtype=np.float64)
    others = np.asarray(given, dtype=np.float64).reshape(len(y), -1)
    known = np.isfinite(y) & np.isfinite(x) & np.isfinite(others).all(axis=1)
    if known.sum() < MIN_ROWS + others.shape[1]:
        return np.full_like(y, np.nan)
    centred = others - others[known].mean(axis=0)
    spread = centred[known].std(axis=0)
    centred = centred / np.where(spread > 0, spread, 1.0)  # so that no unit outweighs another
    design = np.column_stack([np.ones(len(y)), x, centred])
    effects = np.linalg.lstsq(design[known], y[known], rcond=None)[0][2:]
    left: Floats = np.where(known, y - centred @ effects, np.nan)
    return left


def _rows(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> tuple[Floats, Floats, Floats]:
    left, right = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    others = np.asarray(given, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or others.shape[:1] != left.shape:
        raise DataError(
            f"shapes {left.shape}, {right.shape} and {others.shape}; expected n rows of each"
        )
    others = others.reshape(len(left), -1)
    known = np.isfinite(left) & np.isfinite(right) & np.isfinite(others).all(axis=1)
    return left[known], right[known], others[known]


def _rest(values: Floats, others: list[Floats]) -> Floats:
    """What a line through the others leaves of the values; zero where nothing is left."""
    design = np.column_stack([np.ones(len(values)), *others])
    rest: Floats = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return rest if rest.var() > _RESIDUE * max(values.var(), 1.0) else np.zeros_like(rest)


def _pearson(x: Floats, y: Floats) -> float:
    if len(x) < MIN_ROWS or x.min() == x.max() or y.min() == y.max():
        return math.nan
    return float(pearsonr(x, y).statistic)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
