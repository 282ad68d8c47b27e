"""What moves for itself: temperature and load, and whether the other features followed them."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from batteryops.monitoring.cells import Floats
from batteryops.monitoring.pairs import Pair
from batteryops.monitoring.quantities import is_level, load_axis, sensor_of, temperature_axis
from batteryops.monitoring.reference import PREDICTION

AGE: Final = "age"
"""The column that falls as batteries age."""

SMALL: Final = 0.15
"""In deviations: such a shift is none."""

SCALES: Final = (0.4, 2.5)
"""Ties are straight lines, and physics is not: this much less or more than they say."""

_FOLLOWED: Final = 0.8  # of the error that is left where nothing is said to have followed
_REACH: Final = 0.5


@dataclass(frozen=True, slots=True)
class Axes:
    """What moves for itself, and whether other features followed.

    Args:
        temperature: column of the temperature, None without one.
        load: column of the load.
        climate: whether others followed the temperature; None where it did not move or nothing is
            tied to it.
        mode: likewise of the load.
    """

    temperature: int | None
    load: int | None
    climate: bool | None
    mode: bool | None


def find_axes(pair: Pair, drifted: list[str]) -> Axes:
    """Did the others follow temperature and load, or did a sensor move alone?"""
    names = pair.names
    temperature, load = (
        names.index(name) if name is not None else None
        for name in (temperature_axis(names), load_axis(names))
    )
    mode = climate = None
    if load is not None and names[load] in drifted:
        mode = _within_reach(pair, load) and _better(pair, _others(pair, "current"), [load], None)
    if temperature is not None and names[temperature] in drifted:
        others = _others(pair, "temperature") | differences(pair, "temperature")
        held = load if load is not None and mode is not False else None
        climate = _within_reach(pair, temperature) and _better(pair, others, [temperature], held)
    return Axes(temperature, load, climate, mode)


def _others(pair: Pair, sensor: str) -> set[int]:
    return {
        place
        for place, name in enumerate(pair.names)
        if name not in {PREDICTION, AGE} and sensor_of(name) != sensor
    }


def differences(pair: Pair, sensor: str) -> set[int]:
    """Columns of a sensor that its constant error does not move."""
    return {
        place
        for place, name in enumerate(pair.names)
        if name not in {PREDICTION, AGE} and sensor_of(name) == sensor and not is_level(name)
    }


def _within_reach(pair: Pair, place: int) -> bool:
    """Whether the reference's ties say anything of where an axis is now."""
    sides = pair.before.values[:, place], pair.after.values[:, place]
    old, new = (side[np.isfinite(side)] for side in sides)
    if not old.size or not new.size:
        return False
    beyond = _REACH * float(old.max() - old.min())
    return bool(old.min() - beyond <= np.median(new) <= old.max() + beyond)


def _better(pair: Pair, others: set[int], axis: list[int], held: int | None) -> bool | None:
    """Whether the others' shifts are nearer to what follows from the axis than to what does not."""
    targets = [place for place in sorted(others) if np.isfinite(pair.shifts[place])]
    if not targets:
        return None
    keep = [] if held is None else [held]
    age = pair.names.index(AGE)
    shifts = pair.shifts[targets]
    for more in ([], [age]):  # by itself, and among batteries of one age
        moved = pair.follow([*keep, *axis, *more])
        still = pair.follow([*keep, *more]) if keep or more else np.zeros(len(pair.names))
        if not more and np.abs(moved - still)[targets].max() < SMALL:
            return None
        if error_left(shifts, moved[targets]) < _FOLLOWED * error_left(shifts, still[targets]):
            return True
    return False


def error_left(shifts: Floats, predicted: Floats) -> float:
    """Sum of squares of the shifts, less the prediction, more or less strong."""
    scaled = _scale(shifts, predicted) * predicted
    return float(((shifts - scaled) ** 2).sum())


def _scale(shifts: Floats, predicted: Floats) -> float:
    size = float(predicted @ predicted)
    if size < SMALL**2:
        return 1.0
    return float(np.clip(shifts @ predicted / size, *SCALES))
