"""SoH of a pack from one short charging segment: a health index of three signs of ageing.

Few packs have a measured capacity, so that every fitted number is paid for. Three physical signs
enter with the sign that physics gives them, and only a level and one slope are fitted:

* a healthier pack takes more charge per 0.1 V (of its rating), and
* has less resistance (at 1 C). Both are standardised over the training packs and averaged with
  equal weights; with so few rows equal weights beat fitted ones (R. Dawes, The robust beauty of
  improper linear models in decision making, American Psychologist 34 (1979) 571-582).
* The highest cell ends the charge, so a cell that stands above the mean by d leaves the others
  d below full. The open-circuit voltage of NCM cells rises near full by about 1 V per full
  capacity, so each mV costs `SPREAD_COST` = 0.1 points, which is not fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.features.pack_segment import CHARGE, RESISTANCE, SPREAD

Floats = NDArray[np.float64]

SPREAD_COST: Final = 0.1
"""Points of SoH per mV by which the highest cell stands above the mean."""

LEAST_PACKS: Final = 4
"""A level, a slope, and the judgement of both on a pack left out need so many packs."""

_COLUMNS: Final = ("asset_id", "start_v", CHARGE, RESISTANCE, SPREAD)


@dataclass(frozen=True, slots=True)
class SegmentModel:
    """The estimator for segments that start at one voltage.

    Args:
        start_v: where the segment starts, V of mean cell voltage.
        charge: mean and standard deviation over the training packs, % of rated capacity.
        resistance: the same, mV at 1 C; NaN where no training pack has it.
        spread_mv: mean over the training packs, taken where a pack has none.
        index: mean of the training packs' health index.
        level_points: SoH at that index, for a pack without spread.
        slope_points: SoH per unit of the index, at least 0.
        held_out: absolute errors of training packs, each left out in turn, points.
    """

    start_v: float
    charge: tuple[float, float]
    resistance: tuple[float, float]
    spread_mv: float
    index: float
    level_points: float
    slope_points: float
    held_out: tuple[float, ...]

    @property
    def rmse_points(self) -> float:
        """Root mean square of the held-out errors, points; NaN with too few packs."""
        return float(np.sqrt(np.mean(np.square(self.held_out)))) if self.held_out else float("nan")

    @property
    def half_width_points(self) -> float:
        """Half the width of the interval: the largest held-out error.

        Of n errors of packs left out, a further pack's exceeds the largest once in n + 1 times
        (conformal), so that n packs cannot promise more than n / (n + 1).
        """
        return max(self.held_out, default=float("nan"))

    def estimate(self, features: Floats) -> Floats:
        """SoH in points of rated capacity.

        Args:
            features: shape (n, 3): charge, resistance (NaN where unknown), spread (likewise).

        Returns:
            Shape (n,); NaN where the charge is.
        """
        spread = np.where(np.isnan(features[:, 2]), self.spread_mv, features[:, 2])
        away = _index(features, self.charge, self.resistance) - self.index
        return self.level_points + self.slope_points * away - SPREAD_COST * spread


@dataclass(frozen=True, slots=True)
class PackEstimator:
    """The estimators for several segments, the one to be preferred first.

    A pack is estimated from one segment alone: the first of these that its record covers.
    """

    models: tuple[SegmentModel, ...]

    def estimate(self, table: pl.DataFrame) -> pl.DataFrame:
        """SoH of each pack from the preferred one of its segments.

        Args:
            table: `asset_id`, `start_v` and the three features, one row per pack and segment.

        Returns:
            One row per pack, sorted by name: `asset_id`, `start_v`, `soh_points`, `low_points`,
            `high_points`; all null but the name where no segment is covered.
        """
        rank = {model.start_v: place for place, model in enumerate(self.models)}
        every = self.estimate_segments(table).filter(pl.col("soh_points").is_not_null())
        best = (
            every.with_columns(place=pl.col("start_v").replace_strict(rank, default=None))
            .sort("asset_id", "place")
            .unique("asset_id", keep="first", maintain_order=True)
            .drop("place")
        )
        packs = table.select(pl.col("asset_id").unique().sort())
        return packs.join(best, on="asset_id", how="left", maintain_order="left")

    def estimate_segments(self, table: pl.DataFrame) -> pl.DataFrame:
        """SoH of each pack from each of its segments, each on its own.

        Args:
            table: as `estimate` takes it.

        Returns:
            `asset_id`, `start_v`, `soh_points`, `low_points`, `high_points` for each row of
            `table` whose segment a model is for; null where the segment is not covered.
        """
        found = []
        for model in self.models:
            rows = table.filter(pl.col("start_v") == model.start_v)
            soh = pl.Series("soh_points", model.estimate(_matrix(rows)), nan_to_null=True)
            half = model.half_width_points
            found.append(
                rows.select("asset_id", "start_v").with_columns(
                    soh, (soh - half).alias("low_points"), (soh + half).alias("high_points")
                )
            )
        return pl.concat(found)


def fit_pack_estimator(table: pl.DataFrame, soh_points: Mapping[str, float]) -> PackEstimator:
    """Fit one model per segment, and rank the segments by how packs left out were met.

    Segments that more training packs cover come first, among equals the one with the least root
    mean square error over training packs left out one at a time. A pack to be estimated has no
    part in it.

    Args:
        table: `asset_id`, `start_v` and the three features, one row per pack and segment.
        soh_points: measured SoH of each pack in `table`, points of rated capacity.

    Raises:
        DataError: a column that is missing, a pack without SoH, or fewer than `LEAST_PACKS` packs
            that cover any one segment.

    Examples:
        Packs whose SoH is 4 points per percent of charge, 10 points above it, are met exactly.

        >>> packs = pl.DataFrame(
        ...     {
        ...         "asset_id": ["a", "b", "c", "d", "e"],
        ...         "start_v": [3.65] * 5,
        ...         "segment_charge_pct": [20.0, 21.0, 22.5, 23.0, 22.0],
        ...         "segment_resistance_mV_per_C": [None] * 5,
        ...         "segment_spread_mV": [0.0] * 5,
        ...     },
        ...     schema_overrides={"segment_resistance_mV_per_C": pl.Float64},
        ... )
        >>> known = {"a": 90.0, "b": 94.0, "c": 100.0, "d": 102.0}
        >>> estimator = fit_pack_estimator(packs.head(4), known)
        >>> answer = estimator.estimate(packs.tail(1)).row(0, named=True)
        >>> round(answer["soh_points"], 6)
        98.0
    """
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise DataError(
            f"features of packs: missing column {', '.join(missing)}; "
            f"given {', '.join(table.columns)}, expected {', '.join(_COLUMNS)}"
        )
    if unknown := sorted(set(table["asset_id"]) - set(soh_points)):
        raise DataError(
            f"packs to train on: {', '.join(unknown)} have no measured SoH; each needs one"
        )
    models = []
    for rows in table.partition_by("start_v", maintain_order=True):
        covered = rows.filter(pl.col(CHARGE).is_finite())
        if covered.height >= LEAST_PACKS:
            measured = np.array([soh_points[name] for name in covered["asset_id"]])
            models.append(_judged(rows["start_v"].item(0), _matrix(covered), measured))
    if not models:
        raise DataError(
            f"packs to train on: no segment is covered by {LEAST_PACKS} packs; given "
            f"{table['asset_id'].n_unique()} packs and the segments "
            f"{', '.join(f'{start:g} V' for start in table['start_v'].unique().sort())}"
        )
    return PackEstimator(
        tuple(sorted(models, key=lambda model: (-len(model.held_out), model.rmse_points)))
    )


def _judged(start_v: float, features: Floats, measured: Floats) -> SegmentModel:
    """A model of all packs, with the errors of models that each leave one of them out."""
    errors = []
    for left_out in range(len(measured)):
        others = np.arange(len(measured)) != left_out
        model = _fitted(start_v, features[others], measured[others], ())
        answer = model.estimate(features[left_out : left_out + 1])[0]
        errors.append(abs(float(answer) - float(measured[left_out])))
    return _fitted(start_v, features, measured, tuple(errors))


def _fitted(
    start_v: float, features: Floats, measured: Floats, held_out: tuple[float, ...]
) -> SegmentModel:
    charge, resistance = _moments(features[:, 0]), _moments(features[:, 1])
    spreads = features[:, 2]
    known = spreads[np.isfinite(spreads)]
    usual_mv = float(known.mean()) if known.size else 0.0
    whole = measured + SPREAD_COST * np.where(np.isfinite(spreads), spreads, usual_mv)
    index = _index(features, charge, resistance)
    away = index - index.mean()
    varies = float(away @ away)
    slope = float(away @ (whole - whole.mean())) / varies if varies > 0 else 0.0
    return SegmentModel(
        start_v=start_v,
        charge=charge,
        resistance=resistance,
        spread_mv=usual_mv,
        index=float(index.mean()),
        level_points=float(whole.mean()),
        slope_points=max(0.0, slope),
        held_out=held_out,
    )


def _moments(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return (float(known.mean()), float(known.std())) if known.size else (np.nan, np.nan)


def _index(
    features: Floats, charge: tuple[float, float], resistance: tuple[float, float]
) -> Floats:
    """The mean of the signs that are known: charge, and resistance turned round."""
    taken = _standard(features[:, 0], charge)
    resisted = _standard(features[:, 1], resistance)
    return np.where(np.isnan(resisted), taken, (taken - resisted) / 2.0)


def _standard(values: Floats, moments: tuple[float, float]) -> Floats:
    """Distance from the mean in standard deviations; 0 where training did not vary."""
    mean, deviation = moments
    away = values - mean
    return away / deviation if deviation > 0 else 0.0 * away


def _matrix(rows: pl.DataFrame) -> Floats:
    """Charge, resistance and spread; NaN where null."""
    return (
        rows.select(pl.col(CHARGE, RESISTANCE, SPREAD).cast(pl.Float64))
        .fill_null(np.nan)
        .to_numpy()
    )
