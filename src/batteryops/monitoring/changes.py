"""Changes that leave batteries, air and load as they were: another cooling, and another software.

Both are told by what a feature should be in rows like those of the reference, of the same assets,
later: nearly all of them depart from it alike.

* Thermal management: a battery warms otherwise under the same load in the same air. The air is the
  temperature at the start of the record, the highest one less the rise; a thermometer's error
  shifts both, and leaves the rise alone.
* A software update: a time or a charge, which no sensor reads but software computes, steps in
  nearly all assets, while what is physically tied to it stays. A sensor breaks in one asset.

What changed so is put back to what it should be, and other causes are looked for in the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from batteryops.monitoring.cells import Floats
from batteryops.monitoring.pairs import HIGHEST, RISE, Pair
from batteryops.monitoring.quantities import is_level, load_axis, sensor_of
from batteryops.monitoring.reference import PREDICTION
from batteryops.monitoring.sensor_faults import distance
from batteryops.monitoring.ties import means

THERMAL: Final = "thermal_management"
SOFTWARE: Final = "software_update"

_NEIGHBOURS: Final = 15
_FAR: Final = 3.0  # times the reference's own distance to its neighbours, at its 95th percentile
_COVERED: Final = 0.3  # of the rows must be like some of the reference
_SAME: Final = 0.5  # of the rows must be of assets that the reference knows
_NEARLY_ALL: Final = 0.8
_ALIKE: Final = 0.4  # an asset steps with the others if it goes so far of the way
_STEP: Final = 1.0  # in deviations of rows from what they should be
_FEWEST_ASSETS: Final = 5
_FEWEST_ROWS: Final = 50
_LESS: Final = 0.8  # of the rise at most, or ...
_MORE: Final = 1.4  # ... so much at least: as they age, batteries warm more, by some percent a year
_STARTS_MOVED: Final = 0.5  # of what the rise moved
_BETTER: Final = 0.6
_FELL: Final = 0.3  # in deviations of the reference


class Change(NamedTuple):
    """What changed: features it explains, and the pair as it would be without."""

    cause: str
    detail: str
    names: tuple[str, ...]
    pair: Pair


@dataclass(frozen=True, slots=True, eq=False)
class Departure:
    """By how much rows depart from what they should be.

    Args:
        by: (m,) of the current rows, NaN where nothing can be said.
        usual: standard deviation of the reference's own.
        typical: median over assets.
        alike: share of the rows, of those of which something can be said, whose asset departs like
            the others.
        covered: share of the rows of known assets of which something can be said.
        assets: how many these are of.
    """

    by: Floats
    usual: float
    typical: float
    alike: float
    covered: float
    assets: int

    @property
    def is_step(self) -> bool:
        """Whether nearly all assets went the same way, and further than rows vary."""
        return (
            self.assets >= _FEWEST_ASSETS
            and self.covered >= _COVERED
            and self.alike >= _NEARLY_ALL
            and abs(self.typical) >= _STEP * self.usual
        )


def changes(pair: Pair, drifted: Sequence[str]) -> list[Change]:
    """What changed in nearly all of the same assets; empty where nothing did, or none are known.

    Args:
        pair: both samples, without the values that faults were found in.
        drifted: names of the features that drift.
    """
    if pair.known_assets < _SAME or not pair.later:
        return []
    found: list[Change] = []
    if (change := _software(pair, drifted)) is not None:
        found.append(change)
        pair = change.pair
    if (change := _thermal(pair, drifted)) is not None:
        found.append(change)
    return found


def _software(pair: Pair, drifted: Sequence[str]) -> Change | None:
    computed = [
        name
        for name in drifted
        if name != PREDICTION and sensor_of(name) in {"clock", "charge"} and not is_level(name)
    ]
    stepped: dict[str, Departure] = {}
    for name in computed:
        place = pair.names.index(name)
        tied = [
            other
            for other, label in enumerate(pair.names)
            if other != place and label != PREDICTION and _is_known(pair, other)
        ]
        if len(tied) < 2:  # noqa: PLR2004 - a time by itself is tied to nothing
            continue
        departed = departure(pair, place, pair.scaled[0][:, tied], pair.scaled[1][:, tied])
        if departed is not None and departed.is_step and _brings_back(pair, place, departed):
            stepped[name] = departed
    if not stepped:
        return None
    values = pair.after.values.copy()
    told = []
    for name, departed in stepped.items():
        place = pair.names.index(name)
        values[:, place] -= np.where(np.isnan(departed.by), departed.typical, departed.by)
        told.append(f"{name} by {departed.typical:+.4g} in {departed.alike:.0%} of the rows")
    if PREDICTION in pair.names:  # made of them
        values[:, pair.names.index(PREDICTION)] = np.nan
    detail = f"stepped in nearly all assets at once: {', '.join(told)}; what is tied to it did not"
    return Change(SOFTWARE, detail, tuple(stepped), _with(pair, values))


def _thermal(pair: Pair, drifted: Sequence[str]) -> Change | None:
    warm = [name for name in drifted if sensor_of(name) == "temperature" and name != PREDICTION]
    load, starts = load_axis(pair.names), pair.starts
    if not warm or load is None or starts is None:
        return None
    rise = pair.names.index(RISE)
    rises = pair.before.values[:, rise], pair.after.values[:, rise]
    departed = _warming(pair, pair.names.index(load), rises, starts)
    if departed is None or not _is_cooling(pair, departed, rises, starts):
        return None
    more = rises[1] * (1.0 - np.exp(-np.nan_to_num(departed.by, nan=departed.typical)))
    values = pair.after.values.copy()
    names = []
    for name in warm:
        column = pair.names.index(name)
        without = values[:, column] - _part_of_rise(pair, column, rises[0], starts[0]) * more
        if _nearer(pair, column, without):
            values[:, column] = without
            names.append(name)
    if not names:
        return None
    factor = float(np.exp(departed.typical))
    detail = f"under the same load in the same air batteries warm {factor:.2f} times as much"
    return Change(THERMAL, detail, tuple(names), _with(pair, values))


def _warming(
    pair: Pair, load: int, rises: tuple[Floats, Floats], starts: tuple[Floats, Floats]
) -> Departure | None:
    """By what factor, as a logarithm, rows warm otherwise than such a load in such air used to."""
    known = starts[0][np.isfinite(starts[0])]
    width = float(known.std()) if known.size else 0.0
    logs = pair.with_column("log rise", *(np.log(np.where(own > 0, own, np.nan)) for own in rises))
    axes = [
        np.column_stack([scaled[:, load], start / (width or 1.0)])
        for scaled, start in zip(pair.scaled, starts, strict=True)
    ]
    return departure(logs, len(pair.names), axes[0], axes[1])


def _is_cooling(
    pair: Pair, departed: Departure, rises: tuple[Floats, Floats], starts: tuple[Floats, Floats]
) -> bool:
    """Whether a departure of the rise can be another cooling, and nothing else that warms."""
    if not departed.is_step or not _air_stayed(pair, rises, starts):
        return False
    factor = float(np.exp(departed.typical))
    if factor > 1.0:  # a larger resistance warms more too, and the voltage says so
        return factor >= _MORE and not _voltage_fell(pair)
    return factor <= _LESS


def _part_of_rise(pair: Pair, column: int, rise: Floats, start: Floats) -> float:
    """How much of a rise is in a feature: all of it in the highest, less in the mean."""
    if pair.names[column] in (RISE, HIGHEST):
        return 1.0
    if not is_level(pair.names[column]):
        return 0.0
    known = np.isfinite(rise) & (rise > 0) & np.isfinite(pair.before.values[:, column])
    if not known.any():
        return 0.0
    return float(np.median((pair.before.values[known, column] - start[known]) / rise[known]))


def _air_stayed(pair: Pair, rises: tuple[Floats, Floats], starts: tuple[Floats, Floats]) -> bool:
    """Whether records of the same load begin as warm as before, or the air moved for itself.

    A rise that is told too large by an offset moves the start by as much the other way.
    """
    rise, start = (
        float(
            means(after[:, None], pair.after.weights)[0]
            - means(before[:, None], pair.before.weights)[0]
        )
        for before, after in (rises, starts)
    )
    return rise * start > 0 or abs(start) <= _STARTS_MOVED * abs(rise)


def _voltage_fell(pair: Pair) -> bool:
    places = [
        place
        for place, name in enumerate(pair.names)
        if name != PREDICTION and sensor_of(name) == "voltage" and is_level(name)
    ]
    return any(pair.shifts[place] < -_FELL for place in places)


def departure(pair: Pair, place: int, before: Floats, after: Floats) -> Departure | None:
    """By how much a column departs from what it should be in rows like those of the reference.

    What it should be is a straight line of the axes, and what the reference's nearest rows lie
    above or below it. Rows that are unlike all of the reference are passed over.

    Args:
        pair: both samples.
        place: of the column.
        before: (n, a) axes of the reference's rows.
        after: (m, a) of the current ones.

    Returns:
        None where too few rows are known.
    """
    target = pair.before.values[:, place]
    ours = np.isfinite(before).all(axis=1) & np.isfinite(target)
    theirs = np.isfinite(after).all(axis=1) & np.isfinite(pair.after.values[:, place])
    if ours.sum() < _FEWEST_ROWS or not theirs.any():
        return None
    x, y = before[ours], target[ours]
    design = np.column_stack([np.ones(len(x)), x])
    line, *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ line
    tree = cKDTree(x)
    near, who = (found[:, 1:] for found in _neighbours(tree, x, _NEIGHBOURS + 1))
    own = rest - rest[who].mean(axis=1)
    limit = _FAR * float(np.quantile(near.mean(axis=1), 0.95))
    points = after[theirs]
    near, who = _neighbours(tree, points, _NEIGHBOURS)
    should = np.column_stack([np.ones(len(points)), points]) @ line + rest[who].mean(axis=1)
    by = np.full(after.shape[0], np.nan)
    by[theirs] = np.where(
        near.mean(axis=1) <= limit, pair.after.values[theirs, place] - should, np.nan
    )
    return _departure(pair, by, own, ours)


def _neighbours(tree: cKDTree, points: Floats, k: int) -> tuple[Floats, NDArray[np.intp]]:
    """Distances (n, k) of the nearest rows of the reference, and which these are."""
    near, who = tree.query(points, k=k)
    return np.asarray(near).reshape(-1, k), np.asarray(who).reshape(-1, k)


def _departure(pair: Pair, by: Floats, own: Floats, ours: NDArray[np.bool_]) -> Departure | None:
    """Departures by asset: each less its own of before, where there was one."""
    said = np.isfinite(by) & pair.is_known
    usual = float(own.std())
    if not said.any() or not usual:
        return None
    total = float(pair.after.weights[pair.is_known].sum())
    assets, whose = np.unique(pair.after.assets[said], return_inverse=True)
    weights: Floats = pair.after.weights[said]
    mass = np.bincount(whose, weights)
    mean = np.bincount(whose, weights * by[said]) / mass
    theirs, before = np.unique(pair.before.assets[ours], return_inverse=True)
    means_of = np.bincount(before, own) / np.bincount(before)
    usually = dict(zip(theirs.tolist(), means_of.tolist(), strict=True))
    departs = mean - np.array([usually.get(asset, 0.0) for asset in assets.tolist()])
    typical = float(np.median(departs))
    alike = departs * np.sign(typical) >= _ALIKE * abs(typical)
    return Departure(
        by=by,
        usual=usual,
        typical=typical,
        alike=float(mass[alike].sum() / mass.sum()),
        covered=float(mass.sum() / total),
        assets=assets.size,
    )


def _brings_back(pair: Pair, place: int, departed: Departure) -> bool:
    """Whether the feature is near the reference again without the step."""
    step = np.where(np.isnan(departed.by), departed.typical, departed.by)
    return _nearer(pair, place, pair.after.values[:, place] - step)


def _nearer(pair: Pair, place: int, values: Floats) -> bool:
    before = pair.before.column(place)
    whole = distance(before, pair.after.values[:, place], pair.after.weights)
    return distance(before, values, pair.after.weights) <= _BETTER * whole


def _is_known(pair: Pair, place: int) -> bool:
    sides = pair.before.values[:, place], pair.after.values[:, place]
    return all(np.isfinite(side).mean() > _NEARLY_ALL for side in sides)


def _with(pair: Pair, values: Floats) -> Pair:
    return replace(pair, after=replace(pair.after, values=values))


def names_explained(found: Sequence[Change]) -> Mapping[str, Change]:
    """The change that explains each feature, the first that does."""
    told: dict[str, Change] = {}
    for change in found:
        for name in change.names:
            told.setdefault(name, change)
    return told
