"""Faults that show in a feature's own values: a mark, one value repeated, another unit, nothing.

Each is said only where taking the faulty rows away, or turning them back, brings the others near
the reference again: what looks like a fault and explains nothing is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batteryops.monitoring.cells import Floats
from batteryops.monitoring.quantities import is_level, sensor_of

SHARE: Final = 0.05
"""Fewer faulty rows than this make no drift."""

_HALVED: Final = 0.5
_REPEATED: Final = 0.25
_ALL: Final = 0.95
_FEWEST_REPEATS: Final = 8
_INSIDE: Final = 0.8
_APART: Final = 0.5
_NEAR: Final = 0.4

UNITS: Final[Mapping[str, Callable[[Floats], Floats]]] = MappingProxyType(
    {
        "looks 1000 times too large": lambda x: x / 1000.0,
        "looks 1000 times too small": lambda x: x * 1000.0,
        "looks 100 times too large": lambda x: x / 100.0,
        "looks 100 times too small": lambda x: x * 100.0,
        "looks 3600 times too large": lambda x: x / 3600.0,
        "looks 3600 times too small": lambda x: x * 3600.0,
        "looks 60 times too large": lambda x: x / 60.0,
        "looks 60 times too small": lambda x: x * 60.0,
        "looks to have its sign turned": lambda x: -x,
    }
)
"""What turns a number back that came in another unit of the same quantity."""

TEMPERATURE_UNITS: Final[Mapping[str, Callable[[Floats], Floats]]] = MappingProxyType(
    {
        "looks like kelvin": lambda x: x - 273.15,
        "looks like degrees Fahrenheit": lambda x: (x - 32.0) / 1.8,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """A fault of one feature.

    Args:
        kind: `sentinel`, `stuck` or `unit`.
        detail: for people.
        values: (n,) the current values without the fault: NaN where nothing is known instead.
    """

    kind: str
    detail: str
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """One feature of a sample: values (n,), what each row counts, whose it is, and when."""

    values: Floats
    weights: Floats
    assets: NDArray[np.uint32]
    order: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which values are finite numbers."""
        return np.isfinite(self.values)

    def share(self, which: NDArray[np.bool_]) -> float:
        """How much of the rows these are."""
        total = float(self.weights.sum())
        return float(self.weights[which].sum()) / total if total else 0.0


def distance(before: Values, after: Floats, weights: Floats) -> float:
    """Kolmogorov's distance of the known values; 0 where a side has none."""
    known = np.isfinite(after)
    ours = before.known
    if not known.any() or not ours.any():
        return 0.0
    x, y = before.values[ours], after[known]
    points = np.concatenate([x, y])
    order = np.argsort(points, kind="stable")
    steps = np.concatenate(
        [
            before.weights[ours] / before.weights[ours].sum(),
            -weights[known] / weights[known].sum(),
        ]
    )[order]
    last = np.append(np.diff(points[order]) > 0, True)
    return float(np.abs(np.cumsum(steps)[last]).max())


def fault_of(name: str, before: Values, after: Values, sentinels: Sequence[float]) -> Fault | None:
    """The fault that the values of one feature show by themselves, if any.

    Args:
        name: of the feature.
        before: of the reference.
        after: of the current rows.
        sentinels: values that mean "no measurement"; with either sign.
    """
    if not before.known.any() or not after.known.any():
        return None
    return (
        _sentinel(before, after, sentinels)
        or _unit(name, before, after)
        or _stuck(name, before, after)
    )


def _sentinel(before: Values, after: Values, sentinels: Sequence[float]) -> Fault | None:
    low, high = before.values[before.known].min(), before.values[before.known].max()
    marks = {sign * np.float32(mark) for mark in sentinels for sign in (1, -1)}
    strange = [mark for mark in marks if not low <= mark <= high]
    marked = np.isin(after.values, strange) | np.isinf(after.values)
    share = after.share(marked)
    if share < SHARE:
        return None
    found = sorted(np.unique(after.values[marked]).tolist())
    said = ", ".join(f"{mark:g}" for mark in found)
    detail = f"{share:.0%} of the rows say {said}, which means that nothing was measured"
    return Fault("sentinel", detail, np.where(marked, np.nan, after.values))


def _stuck(name: str, before: Values, after: Values) -> Fault | None:
    """One value that stays: among all rows, or within each of some assets.

    No level that is measured repeats itself for long; a time may, where samples are far apart.
    """
    held, usual = _repeats(after), _repeats(before)
    certain = is_level(name) and after.share(held) - before.share(usual) >= SHARE
    value, share = _most_frequent(after)
    same = after.values == value
    if share - before.share(before.values == value) >= SHARE:
        held |= same
    more = after.share(held) - before.share(usual)
    if more < SHARE:
        return None
    rest = np.where(held, np.nan, after.values)
    left, whole = (distance(before, x, after.weights) for x in (rest, after.values))
    if not certain and after.share(held) < _ALL and left > _HALVED * whole:
        return None
    what = f"{value:g}" if after.share(same) >= _HALVED * after.share(held) else "their last value"
    return Fault("stuck", f"{after.share(held):.0%} of the rows repeat {what}", rest)


def _most_frequent(sample: Values) -> tuple[float, float]:
    values, places = np.unique(sample.values[sample.known], return_inverse=True)
    held = np.bincount(places, sample.weights[sample.known])
    most = int(held.argmax())
    return float(values[most]), float(held[most] / sample.weights.sum())


def _repeats(sample: Values) -> NDArray[np.bool_]:
    """Rows whose value stayed the same from some row of their asset on, or for long."""
    repeated = np.zeros(sample.values.size, dtype=np.bool_)
    for asset in np.unique(sample.assets):
        own = np.flatnonzero((sample.assets == asset) & sample.known)
        own = own[np.argsort(sample.order[own], kind="stable")]
        if own.size < _FEWEST_REPEATS:
            continue
        _, places, times = np.unique(sample.values[own], return_inverse=True, return_counts=True)
        most = int(times.argmax())
        same = np.flatnonzero(places == most)
        lasting = same.size / (same[-1] - same[0] + 1)
        if same.size >= max(_REPEATED * own.size, _FEWEST_REPEATS) and lasting >= _ALL:
            repeated[own[same]] = True
    return repeated


def _unit(name: str, before: Values, after: Values) -> Fault | None:
    """Rows that another unit would bring back to where the reference is."""
    units = dict(UNITS)
    if sensor_of(name) == "temperature" and is_level(name):
        units |= TEMPERATURE_UNITS
    whole = distance(before, after.values, after.weights)
    low, high = np.quantile(before.values[before.known], (0.001, 0.999))
    outside = after.known & ((after.values < low) | (after.values > high))
    best: tuple[float, str, Floats] | None = None
    for detail, back in units.items():
        turned = back(after.values)
        home = outside & (turned >= low) & (turned <= high)
        candidates = []
        if after.share(outside) >= SHARE and after.share(home) >= _INSIDE * after.share(outside):
            candidates.append(np.where(home, turned, after.values))
        if whole >= _APART:
            candidates.append(turned)
        for values in candidates:
            left = distance(before, values, after.weights)
            better = left <= _HALVED * whole and (best is None or left < best[0])
            if better and _like(before, values[(values != after.values) & after.known]):
                best = (left, detail, values)
    if best is None:
        return None
    changed = best[2] != after.values
    share = after.share(changed & after.known)
    typical = float(np.median(after.values[changed & after.known]))
    detail = f"{share:.0%} of the rows: typically {typical:.4g}, which {best[1]}"
    return Fault("unit", detail, best[2])


def _like(before: Values, turned: Floats) -> bool:
    """Whether turned values are typically where the reference is: a range may be wide."""
    low, typical, high = np.quantile(before.values[before.known], (0.25, 0.5, 0.75))
    return turned.size > 0 and bool(
        abs(np.median(turned) - typical) <= max(_NEAR * abs(typical), high - low)
    )
