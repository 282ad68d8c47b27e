"""What moved together: which of the causes explains the shifts of a pair of samples."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from batteryops.monitoring.axes import AGE, SCALES, SMALL, Axes, differences, error_left, find_axes
from batteryops.monitoring.cells import Floats
from batteryops.monitoring.pairs import Pair
from batteryops.monitoring.quantities import (
    ageing_sign,
    is_level,
    sensor_of,
    trend_features,
)
from batteryops.monitoring.reference import PREDICTION
from batteryops.monitoring.sensor_faults import distance
from batteryops.monitoring.ties import means

UNKNOWN: Final = "unknown"
NEW_CHEMISTRY: Final = "new_chemistry"

_FALL: Final = 0.3
_TOGETHER: Final = 2
_EXPLAINED: Final = 0.5
_PSI_EXPLAINED: Final = 0.4
_MOST: Final = 0.5
_HEATING: Final = 1.25
_BEGINS: Final = 0.5  # of what a temperature moved: so much the start may have moved
_LIKELY: Final = 0.1  # of what a level moved
_CHANCE: Final = 1.358  # Kolmogorov's distance that like samples exceed in one case of twenty


class Found(NamedTuple):
    """Why one feature drifts, and how that was told."""

    cause: str
    detail: str


def diagnose(pair: Pair, drifted: list[str], warning: float) -> Mapping[str, Found]:
    """Why each of these features drifts.

    Args:
        pair: both samples, without the values that faults were found in.
        drifted: names of the features.
        warning: PSI from which on something drifts.
    """
    aged = _with_age(pair)
    axes = find_axes(aged, drifted)
    found: dict[str, Found] = {}
    found |= _older_than_the_reference(aged, axes, drifted)
    left = [name for name in drifted if name not in found]
    found |= _followed(aged, axes, left, warning)
    left = [name for name in drifted if name not in found]
    return found | _by_themselves(pair, axes, left)


def _with_age(pair: Pair) -> Pair:
    """The pair with a column that falls with age: what was predicted, or features that do."""
    if PREDICTION in pair.names:
        place = pair.names.index(PREDICTION)
        sides = pair.before.values[:, place], pair.after.values[:, place]
        if all(np.isfinite(side).any() for side in sides):
            return pair.with_column(AGE, *sides)
    trends = [pair.names.index(name) for name in trend_features(pair.names)]
    if not trends:
        nothing = [np.full(side.weights.size, np.nan) for side in (pair.before, pair.after)]
        return pair.with_column(AGE, nothing[0], nothing[1])
    old, new = (scaled[:, trends].mean(axis=1) for scaled in pair.scaled)
    return pair.with_column(AGE, old, new)


def _older_than_the_reference(pair: Pair, axes: Axes, drifted: list[str]) -> dict[str, Found]:
    """Ageing as physics has it, beyond what the reference saw: the same assets, later."""
    if pair.known_assets < _MOST or pair.later is False:
        return {}
    own = pair.of_the_same()
    follow = [
        axis
        for axis, real in ((axes.load, axes.mode), (axes.temperature, axes.climate))
        if axis is not None and real and not _comes_of_age(own, axis)
    ]
    rest = own.shifts - own.follow(follow) if follow else own.shifts
    trends = _falling(own)
    if len(trends) < _TOGETHER or not (rest[trends] < -_FALL).all():
        return {}
    together = ", ".join(own.names[trend] for trend in trends)
    older = Found("ageing", f"the same assets, later: {together} fell together, as with age")
    return {
        name: older
        for name in drifted
        if (place := own.names.index(name)) not in follow
        and rest[place] * _sign(own, place) > _EXPLAINED * abs(own.shifts[place])
        and (not is_level(name) or name == PREDICTION or _comes_of_age(own, place))
    }


def _falling(pair: Pair) -> list[int]:
    """Columns that fall as capacity does, of which there are values."""
    names = [*trend_features(pair.names), *({PREDICTION} & {*pair.names})]
    places = [pair.names.index(name) for name in names]
    return [place for place in places if np.isfinite(pair.shifts[place])]


def _sign(pair: Pair, place: int) -> int:
    name = pair.names[place]
    return -1 if name == PREDICTION else ageing_sign(name, float(pair.scale.centre[place]))


def _comes_of_age(pair: Pair, place: int) -> bool:
    """Whether a level moved the way that age moves it, and not beyond what age can do.

    A temperature rises by no more than batteries warm by themselves. The mean current of a record
    with a rest at its end comes nearer to zero by no larger share than the load's time does.
    """
    name, shift = pair.names[place], pair.shifts[place]
    if shift * _sign(pair, place) <= 0:
        return False
    width, centre = pair.scale.width, pair.scale.centre
    if sensor_of(name) == "temperature":
        rises = [
            pair.shifts[other] * width[other]
            for other in differences(pair, "temperature")
            if np.isfinite(pair.shifts[other]) and pair.names[other].lower().startswith("delta")
        ]
        return not rises or bool(shift * width[place] <= _HEATING * max(rises))
    if sensor_of(name) == "current":
        falls = [
            -pair.shifts[other] * width[other] / abs(centre[other])
            for other in _falling(pair)
            if centre[other]
        ]
        share = abs(shift * width[place] / centre[place]) if centre[place] else np.inf
        return bool(falls) and bool(share <= _HEATING * max(falls))
    return True


def _followed(pair: Pair, axes: Axes, drifted: list[str], warning: float) -> dict[str, Found]:
    """What temperature, load and age of the rows explain."""
    age = pair.names.index(AGE)
    load = [] if axes.load is None or axes.mode is False else [axes.load]
    warm = [] if axes.temperature is None or axes.climate is False else [axes.temperature]
    if axes.mode and axes.temperature is not None and _begin_as_warm(pair, axes.temperature):
        warm = []  # warmer by what the load heats, not by the air
    both = [*load, *warm]
    nothing = np.zeros(len(pair.names))
    by_load = pair.follow(load) if load else nothing
    by_both = pair.follow(both) if both else nothing
    by_age = pair.follow([*both, age])
    shifts = pair.shifts
    places = [pair.names.index(name) for name in drifted]
    older = _is_older(pair, axes, by_both)
    found: dict[str, Found] = {}
    for name, place in zip(drifted, places, strict=True):
        if place in (axes.load, axes.temperature):
            continue
        parts = {
            "operating_mode": by_load[place],
            "climate": by_both[place] - by_load[place],
        }
        if older and place != age and name != PREDICTION:
            parts["ageing"] = by_age[place] - by_both[place]
        elif older and name == PREDICTION:
            parts["ageing"] = shifts[place] - by_both[place]
        cause = max(parts, key=lambda part: parts[part] * np.sign(shifts[place]))
        wanted = shifts[place]
        sum_told = sum(parts.values())
        real = axes.climate or axes.mode or cause == "ageing"
        scale = np.clip(wanted / sum_told, *SCALES) if real and sum_told else 1.0
        explained = abs(wanted - scale * sum_told) <= _EXPLAINED * abs(wanted)
        if explained and abs(wanted) > SMALL and parts[cause] * wanted > 0:
            found[name] = Found(
                cause,
                f"moved {wanted:+.2f} deviations; {parts[cause]:+.2f} follow from {_WORDS[cause]}",
            )
            continue
        again = _by_strata(pair, place, load, warm, warning)
        if again is not None:
            found[name] = again
    told = {"operating_mode": by_load, "climate": by_both - by_load}
    found |= _of_the_world(pair, axes, drifted, found, told)
    return found | _axes_themselves(pair, axes, drifted, by_load, found)


def _of_the_world(
    pair: Pair,
    axes: Axes,
    drifted: list[str],
    found: Mapping[str, Found],
    told: Mapping[str, Floats],
) -> dict[str, Found]:
    """What is left where the world did change: its likely cause.

    A time or a difference takes part in everything that happens, and ties are not exact. It is
    said to be of the world where it moved the way it should, if not as far, or where only its
    spread changed. So is a voltage, of which some part must follow: resistances rise faster in the
    cold, and under more load, than any straight line.

    Args:
        pair: both samples.
        axes: what moved for itself.
        drifted: names of the features.
        found: what is explained already.
        told: by how much each column should have moved, by cause.
    """
    if not (axes.climate or axes.mode):
        return {}
    causes = {had.cause for had in found.values() if had.cause != "ageing"}
    whole = np.sum([*told.values()], axis=0)
    left = {}
    for name in drifted:
        place = pair.names.index(name)
        shift = pair.shifts[place]
        if name in found or name == PREDICTION:
            continue
        if is_level(name):
            parts = {cause: part[place] / shift if shift else 0.0 for cause, part in told.items()}
            cause = max(parts, key=lambda cause: parts[cause])
            if sensor_of(name) != "voltage" or parts[cause] < _LIKELY:
                continue
        elif len(causes) == 1 and (abs(shift) <= SMALL or shift * whole[place] > 0):
            (cause,) = causes
        else:
            continue
        left[name] = Found(cause, "likely, as the others; it did not follow exactly")
    return left


_WORDS: Final = {
    "operating_mode": "the load",
    "climate": "the temperature",
    "ageing": "older batteries",
}


def _is_older(pair: Pair, axes: Axes, by_both: Floats) -> bool:
    """Whether current rows are those of older batteries, of an age that the reference knows."""
    age = pair.names.index(AGE)
    fell = pair.shifts[age] - by_both[age] < -_FALL
    if not fell or pair.known_assets < _MOST or pair.later is False:
        return False  # of assets that nobody knows, another make would look older as well
    sides = pair.before.values[:, age], pair.after.values[:, age]
    old, new = (side[np.isfinite(side)] for side in sides)
    inside = np.quantile(old, 0.01) <= np.median(new)
    shifts = pair.shifts
    targets = [
        place
        for place, name in enumerate(pair.names)
        if np.isfinite(shifts[place])
        and name not in {AGE, PREDICTION}
        and place not in (axes.load, axes.temperature)
    ]
    both = [
        axis
        for axis, real in ((axes.load, axes.mode), (axes.temperature, axes.climate))
        if axis is not None and real is not False
    ]
    with_age = pair.follow([*both, age])
    left = error_left(shifts[targets], with_age[targets])
    return bool(inside and left < _EXPLAINED * error_left(shifts[targets], by_both[targets]))


def _by_strata(
    pair: Pair, place: int, load: list[int], warm: list[int], warning: float
) -> Found | None:
    """Whether the drift goes away once current rows are weighted to the reference's strata."""
    best: tuple[float, Found] | None = None
    for cause, axes in (("operating_mode", load), ("climate", warm)):
        psi = pair.reweighted_psi(place, axes) if axes else None
        if psi is None or psi[1] >= max(warning, _PSI_EXPLAINED * psi[0]) or psi[1] >= psi[0]:
            continue
        detail = f"weighted to the reference's strata of {_WORDS[cause].removeprefix('the ')}, "
        detail += f"PSI falls from {psi[0]:.2f} to {psi[1]:.2f}"
        if best is None or psi[1] < best[0]:
            best = psi[1], Found(cause, detail)
    return None if best is None else best[1]


def _axes_themselves(
    pair: Pair,
    axes: Axes,
    drifted: list[str],
    by_load: Floats,
    others: Mapping[str, Found],
) -> dict[str, Found]:
    """Temperature and load where they moved for themselves, and what else their sensors say."""
    found = {}
    for name in drifted:
        sensor = sensor_of(name)
        if name in others or name == PREDICTION or not is_level(name):
            continue
        place = pair.names.index(name)
        if sensor == "current" and axes.mode:
            found[name] = Found("operating_mode", "the load changed, and the others followed it")
        as_warm = bool(axes.mode) and _begin_as_warm(pair, place)
        if sensor == "temperature" and (
            axes.climate or as_warm or (axes.climate is None and axes.mode)
        ):
            heated = as_warm or (
                axes.mode
                and by_load[place] * pair.shifts[place] > 0
                and abs(pair.shifts[place] - by_load[place]) <= _EXPLAINED * abs(pair.shifts[place])
            )
            found[name] = (
                Found("operating_mode", "warmer or colder by itself under the load that changed")
                if heated
                else Found("climate", "the temperature changed, and the others followed it")
            )
    return found


def _begin_as_warm(pair: Pair, place: int) -> bool:
    """Whether a temperature moved by what batteries warm, and records begin as warm as before."""
    starts = pair.starts
    if starts is None:
        return False
    moved = means(starts[1][:, None], pair.after.weights) - means(
        starts[0][:, None], pair.before.weights
    )
    return bool(abs(moved[0]) <= _BEGINS * abs(pair.shifts[place] * pair.scale.width[place]))


def _by_themselves(pair: Pair, axes: Axes, left: list[str]) -> dict[str, Found]:
    """What nothing explains: an offset of one sensor, a new chemistry, or nobody knows."""
    features = [name for name in left if name != PREDICTION]
    if not features:
        return {name: Found(UNKNOWN, "no feature explains it") for name in left}
    sensors = {sensor_of(name) for name in features}
    if len(sensors) > 1 and (len(features) > _TOGETHER or "voltage" in sensors):
        return dict.fromkeys(left, _joint(pair, features))
    changed = bool(axes.climate or axes.mode)
    found = {name: _alone(pair, name, changed=changed) for name in left}
    warm = [name for name in features if sensor_of(name) == "temperature" and is_level(name)]
    if warm and axes.climate is None and _all_levels_moved(pair, warm):
        climate = Found("climate", "all temperatures moved, and nothing else is tied to them")
        found |= dict.fromkeys(warm, climate)
    return found


def _alone(pair: Pair, name: str, *, changed: bool) -> Found:
    """What one feature says that nothing else explains."""
    if name == PREDICTION:
        return Found(UNKNOWN, "no feature explains it")
    if changed and not is_level(name):  # a time or a difference takes part in what happens
        return Found(UNKNOWN, "temperature or load changed, and this did not follow as it used to")
    return _offset(pair, name)


def _joint(pair: Pair, features: list[str]) -> Found:
    """Features of several sensors that moved together, which nothing else explains."""
    together = "moved together, "
    if pair.by_asset and pair.known_assets < _MOST:
        return Found(
            NEW_CHEMISTRY,
            f"{together}of assets that the reference does not know, and neither temperature, load "
            "nor age explains it",
        )
    levels = [name for name in features if is_level(name)]
    crossings = {name for name in features if name.startswith("voltage") and name not in levels}
    if (
        len(levels) == 1
        and sensor_of(levels[0]) == "voltage"
        and {*features}
        <= {
            *levels,
            *crossings,
        }
    ):  # a voltage is passed earlier or later where it reads too low or too high
        return _offset(pair, levels[0])
    return Found(UNKNOWN, f"{together}and nothing that is known explains it")


def _all_levels_moved(pair: Pair, moved: list[str]) -> bool:
    """Whether all temperatures of the same sensor moved alike."""
    shifts = {
        name: pair.shifts[place] * pair.scale.width[place]
        for place, name in enumerate(pair.names)
        if sensor_of(name) == "temperature" and is_level(name) and name not in {PREDICTION, AGE}
    }
    largest = max(abs(shifts[name]) for name in moved)
    return all(abs(shift) >= _MOST * largest for shift in shifts.values())


def _offset(pair: Pair, name: str) -> Found:
    """A constant that takes the drift of one feature away."""
    place = pair.names.index(name)
    before, after = pair.before.column(place), pair.after.column(place)
    if not before.known.any() or not after.known.any():
        return Found(UNKNOWN, "no values to compare")
    shift = float(np.median(after.values[after.known]) - np.median(before.values[before.known]))
    whole = distance(before, after.values, after.weights)
    rest = distance(before, after.values - shift, after.weights)
    sizes = int(before.known.sum()), int(after.known.sum())
    chance = _CHANCE * np.sqrt(sum(sizes) / (sizes[0] * sizes[1]))
    if whole <= chance or rest > max(_EXPLAINED * whole, chance):
        return Found(UNKNOWN, "moved alone, and no constant takes it away")
    return Found(
        "sensor_fault: offset",
        f"moved by {shift:+.4g} alone: what is tied to it did not follow",
    )
