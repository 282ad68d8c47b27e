"""How fast a number changes with age: Theil and Sen's slope, which outliers cannot turn."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import theilslopes

from batteryops.errors import DataError

MIN_POINTS: Final = 3
"""Fewer points than this give no slope with an interval."""

MAX_POINTS: Final = 240
"""More points than this are replaced by medians of consecutive blocks, as many."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope per unit of age, with its interval.

    Args:
        slope: change per unit of age.
        low: lower end of the interval.
        high: upper end.
        span: age of the last point minus age of the first.
        n: points that it rests on, before blocks were formed.
    """

    slope: float
    low: float
    high: float
    span: float
    n: int

    @property
    def falls(self) -> bool:
        """The whole interval lies below zero."""
        return self.high < 0.0

    @property
    def rises(self) -> bool:
        """The whole interval lies above zero."""
        return self.low > 0.0

    @property
    def change(self) -> float:
        """Change over the whole span."""
        return self.slope * self.span

    def to_json(self) -> dict[str, float | int]:
        """The fields by name."""
        return {
            "slope": self.slope,
            "low": self.low,
            "high": self.high,
            "span": self.span,
            "n": self.n,
        }


def robust_trend(age: ArrayLike, values: ArrayLike, *, confidence: float = 0.95) -> Trend | None:
    """The median of the slopes of all pairs of points, and Sen's interval.

    Up to 29 percent of the points may be wild without turning it (P. K. Sen, Estimates of the
    regression coefficient based on Kendall's tau, Journal of the American Statistical Association
    63, 1968, 1379-1389; the interval: his equation 2.6). The interval takes deviations from the
    line to be independent. Neighbouring cycles of a battery resemble each other, so that it is
    somewhat too narrow.

    Args:
        age: (n,), any order; months, say.
        values: (n,), pairs with a value that is not finite are left out.
        confidence: of the interval.

    Returns:
        None where fewer than three points, or one age only, are left.

    Raises:
        DataError: when the shapes disagree.

    Examples:
        >>> found = robust_trend([0, 1, 2, 3, 4, 5, 6], [100, 99, 98, 97, 12, 95, 94])
        >>> found.slope, found.falls, found.span
        (-1.0, True, 6.0)
    """
    x, y = _pairs(age, values)
    n = len(x)
    if n < MIN_POINTS or x.min() == x.max():
        return None
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    span = float(x[-1] - x[0])
    if n > MAX_POINTS:
        x, y = _block_medians(x, MAX_POINTS), _block_medians(y, MAX_POINTS)
    found = theilslopes(y, x, alpha=confidence)
    slope, low, high = float(found[0]), float(found[2]), float(found[3])
    if not math.isfinite(low) or not math.isfinite(high):  # too few slopes for this confidence
        return None
    return Trend(slope, low, high, span, n)


def _block_medians(values: Floats, blocks: int) -> Floats:
    return np.array([np.median(block) for block in np.array_split(values, blocks)])


def _pairs(age: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(age, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(f"ages of shape {x.shape}, values of shape {y.shape}; expected n of each")
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]
