"""Whether prediction intervals hold what was measured, how wide they are, and where none is due."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.metrics import Floats
from batteryops.evaluation.owners import Names, Owners

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Intervals of n predictions.

    Args:
        low_ah: (n,), lower ends, Ah.
        high_ah: (n,), upper ends, Ah.
        inside: (n,), whether the features lie inside what training covered.

    Raises:
        DataError: when lengths differ, or an end is not finite or below the other.
    """

    low_ah: Floats
    high_ah: Floats
    inside: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Hold the arrays to their contract."""
        if not self.low_ah.shape == self.high_ah.shape == self.inside.shape:
            raise DataError(
                f"intervals have {self.low_ah.shape} lower and {self.high_ah.shape} upper ends "
                f"and {self.inside.shape} verdicts; expected one of each per prediction"
            )
        width = self.high_ah - self.low_ah
        if not (np.isfinite(width).all() and (width >= 0).all()):
            raise DataError("an interval is unbounded or upside down; expected low <= high, in Ah")


MakeBounds = Callable[[Matrix, Floats, Names], Bounds]
"""From features (n, k), predictions (n,) in Ah and assets (n,) to their intervals."""

FitBounds = Callable[[Matrix, Floats, Owners], MakeBounds]
"""From training's features, labels in Ah and owners, nothing else, to what makes intervals."""


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """What intervals are worth.

    Over cycles, a few batteries of long life decide; a battery's cycles are mostly held by their
    intervals together or missed together. Over batteries, each weighs the same, as in calibration.

    Args:
        interval_coverage: share of cycles whose measured capacity lies in the interval.
        asset_coverage: mean over assets of the share of each one's cycles.
        interval_width_ah: mean width over cycles, Ah.
        in_domain_share: share of cycles whose features lie inside what training covered: only for
            these is the interval the model's own.
        in_domain_coverage: `interval_coverage` of these; NaN when there are none.
        in_domain_asset_coverage: `asset_coverage` of these, over assets that have any; likewise.
        in_domain_width_ah: mean width of these, Ah; likewise.
        per_asset: `asset_id`, `interval_coverage`, `interval_width_ah`, `in_domain_share`, sorted.
    """

    interval_coverage: float
    asset_coverage: float
    interval_width_ah: float
    in_domain_share: float
    in_domain_coverage: float
    in_domain_asset_coverage: float
    in_domain_width_ah: float
    per_asset: pl.DataFrame

    def facts(self) -> dict[str, float]:
        """Every number by its name, as gates look them up."""
        return {
            "interval_coverage": self.interval_coverage,
            "asset_coverage": self.asset_coverage,
            "interval_width_ah": self.interval_width_ah,
            "in_domain_share": self.in_domain_share,
            "in_domain_coverage": self.in_domain_coverage,
            "in_domain_asset_coverage": self.in_domain_asset_coverage,
            "in_domain_width_ah": self.in_domain_width_ah,
        }

    def to_json(self) -> dict[str, float | None]:
        """All numbers by name; null where undefined."""
        return {name: value if np.isfinite(value) else None for name, value in self.facts().items()}


def measure_coverage(asset_id: Names, actual_ah: Floats, bounds: Bounds) -> Coverage:
    """Judge intervals against measured capacities.

    Args:
        asset_id: (n,), whose cycle it was.
        actual_ah: (n,), measured, Ah.
        bounds: of the n predictions.

    Examples:
        >>> found = measure_coverage(
        ...     np.array(["B0005", "B0018"], dtype=object),
        ...     np.array([1.8, 1.5]),
        ...     Bounds(np.array([1.7, 1.6]), np.array([1.9, 1.7]), np.array([True, True])),
        ... )
        >>> found.interval_coverage, round(found.interval_width_ah, 6)
        (0.5, 0.15)
    """
    holds = (bounds.low_ah <= actual_ah) & (actual_ah <= bounds.high_ah)
    width = bounds.high_ah - bounds.low_ah
    some = bool(bounds.inside.any())
    rows = pl.DataFrame(
        {
            "asset_id": pl.Series(asset_id, dtype=pl.String),
            "interval_coverage": holds,
            "interval_width_ah": width,
            "in_domain_share": bounds.inside,
        }
    )
    per_asset = rows.group_by("asset_id").agg(pl.all().mean()).sort("asset_id")
    inside = rows.filter("in_domain_share").group_by("asset_id").agg(pl.all().mean())
    return Coverage(
        interval_coverage=float(holds.mean()),
        asset_coverage=float(per_asset["interval_coverage"].to_numpy().mean()),
        interval_width_ah=float(width.mean()),
        in_domain_share=float(bounds.inside.mean()),
        in_domain_coverage=float(holds[bounds.inside].mean()) if some else np.nan,
        in_domain_asset_coverage=(
            float(inside["interval_coverage"].to_numpy().mean()) if some else np.nan
        ),
        in_domain_width_ah=float(width[bounds.inside].mean()) if some else np.nan,
        per_asset=per_asset,
    )
