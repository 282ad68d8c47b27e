"""Rows of before a software update, told as the new software would tell them.

A library computes a feature otherwise from one day on: a record that ends sooner, another unit,
another mean. Rows of before then contradict those of after: they hold the same battery, and say
another number. A model that learns both learns neither, and one that has learned the new looks
worse on the old, as it must. So what was recorded before is brought to what it would be now.

How, the other features tell: they say what the feature was under the old software, in rows of
before, and by how much rows of after depart from that, by a constant or by a factor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.features.view import FeatureView
from batteryops.models.boosting import fit, predict

Floats = NDArray[np.float64]

MAX_ROWS: Final = 5000
"""Rows of before from which is learned what a feature should be."""

_PARAMETERS: Final[Mapping[str, float | int | str]] = {
    "n_estimators": 100,
    "max_depth": 5,
    "learning_rate": 0.1,
    "tree_method": "hist",
}
_FEWEST: Final = 30
_SIGMA: Final = 1.4826  # of a normal distribution, over its median absolute deviation
_CLEAR: Final = 2.0  # deviations that a step must have
_CUT: Final = 5.0  # deviations that an outlier counts at most


@dataclass(frozen=True, slots=True)
class Realignment:
    """How a feature of before becomes what it would be now: `factor * value + shift`.

    Args:
        feature: which.
        factor: 1 where a constant explains it better.
        shift: in the feature's unit, 0 where a factor does.
        since: when the first question of after was asked, UTC.
    """

    feature: str
    factor: float
    shift: float
    since: datetime

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {**asdict(self), "since": self.since.isoformat()}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**told, "since": datetime.fromisoformat(told["since"])})

    def __str__(self) -> str:
        how = f"{self.shift:+.4g}" if self.factor == 1.0 else f"times {self.factor:.4g}"
        return f"{self.feature} {how} since {self.since:%Y-%m-%d %H:%M} UTC"


def find_realignments(
    view: FeatureView,
    changed: Sequence[str],
    before: pl.DataFrame,
    asked: pl.DataFrame,
    *,
    seed: int,
) -> tuple[Realignment, ...]:
    """How features of before become what they would be now.

    Args:
        view: of the features.
        changed: names of those that software computes otherwise now.
        before: rows of the view from before, at least of two assets.
        asked: `answered_at` and the features of what was asked lately, of before and after.
        seed: of the fits.

    Returns:
        One for each of the features that made a clear step; none for what did not, or of which
        there are too few rows.
    """
    others = [name for name in view.names if name not in changed]
    rows = before.drop_nulls(changed)
    asked = asked.drop_nulls(changed).sort("answered_at")
    if not others or rows.height < 2 * _FEWEST or asked.height < 2 * _FEWEST:
        return ()
    if rows.height > MAX_ROWS:
        rows = rows.sample(MAX_ROWS, seed=seed, shuffle=True)
    assets = rows["asset_id"].unique(maintain_order=True)
    first = rows["asset_id"].is_in(assets[: assets.len() // 2].implode())
    found = []
    for name in changed:
        halves = [rows.filter(first), rows.filter(~first)]
        if min(half.height for half in halves) < _FEWEST:
            continue
        bridge = fit(
            _matrix(halves[0], others),
            halves[0][name].to_numpy(),
            feature_names=others,
            parameters=_PARAMETERS,
            seed=seed,
        )
        usual = halves[1][name].to_numpy() - predict(bridge, _matrix(halves[1], others))
        expected = predict(bridge, _matrix(asked, others))
        step = _step(name, asked, expected, usual)
        if step is not None:
            found.append(step)
    return tuple(found)


def realign(table: pl.DataFrame, steps: Sequence[Realignment]) -> pl.DataFrame:
    """Bring rows of before to what they would be now.

    Args:
        table: features, and `answered_at`; rows without that are of before.
        steps: in the order in which they happened.
    """
    for step in steps:
        there = "answered_at" in table.columns
        before = (pl.col("answered_at") < step.since).fill_null(value=True)
        old = before if there else pl.lit(value=True)
        now = step.factor * pl.col(step.feature) + step.shift
        told = pl.when(old).then(now).otherwise(pl.col(step.feature))
        table = table.with_columns(told.alias(step.feature))
    return table


def _step(name: str, asked: pl.DataFrame, expected: Floats, usual: Floats) -> Realignment | None:
    """Where the feature stepped, and by how much."""
    actual = asked[name].to_numpy()
    middle, width = float(np.median(usual)), max(_width(usual), np.finfo(float).tiny)
    off = actual - expected - middle
    place = _change_point(np.clip(off, -_CUT * width, _CUT * width))
    if abs(np.median(off[:place])) > abs(np.median(off[place:])) / 2.0:
        place = 0  # what is at hand is all of after
    times = asked["answered_at"]
    since: datetime = times[place]
    after = (times >= since).to_numpy()
    if int(after.sum()) < _FEWEST:
        return None
    shift = float(np.median(off[after]))
    if abs(shift) < _CLEAR * width:
        return None
    positive = after & (expected > 0.0) & (actual > 0.0)
    if int(positive.sum()) >= _FEWEST:
        ratio = actual[positive] / (expected[positive] + middle)
        factor = float(np.median(ratio))
        by_factor = _width((ratio / factor - 1.0) * actual[positive])
        if by_factor < _width(off[after] - shift):
            return Realignment(name, factor, 0.0, since)
    return Realignment(name, 1.0, shift, since)


def _change_point(values: Floats) -> int:
    """Where the mean of values changes most: the first place after the change.

    The place at which the squares that two means leave are least; of sums, in one pass.
    """
    n = values.size
    left = np.arange(1, n)
    sums = np.cumsum(values)
    between = (sums[:-1] - left * sums[-1] / n) ** 2 / (left * (n - left))
    return int(between.argmax()) + 1


def _width(values: Floats) -> float:
    return _SIGMA * float(np.median(np.abs(values - np.median(values))))


def _matrix(table: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float32]:
    return table.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy()
