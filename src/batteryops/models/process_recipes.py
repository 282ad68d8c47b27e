"""What physics says to compare: which features a battery process learns from, per view.

A recipe says which features stand together, which are added (a voltage below the voltage at rest
does not depend on a sensor's offset; the logarithm of a charge is what ratios are taken of), and
what is learned: the capacity itself or, where the features hold the energy or charge that flowed,
the logarithm of capacity over it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from batteryops.errors import DataError
from batteryops.models.held_out import Floats

Columns = Mapping[str, Floats]

LEAST_AH: Final = 0.01
"""No capacity is taken to be less: it has a logarithm."""

_REGIME: Final = (
    "load_current_A",
    "load_current_A_mean",
    "ambient_temperature_C",
    "start_temperature_C",
)
_TIMES_S: Final = (60, 300, 600, 900)
_VOLTAGES: Final = tuple(f"voltage_V_{seconds}s" for seconds in _TIMES_S)
_BELOW_REST: Final = tuple(f"below_rest_V_{seconds}s" for seconds in _TIMES_S)
_WINDOWS: Final = (
    "discharge_to_3.80_V_Ah",
    "discharge_3.90_to_3.80_V_Ah",
    "discharge_3.90_to_3.70_V_Ah",
    "discharge_3.80_to_3.70_V_Ah",
    "discharge_3.80_to_3.60_V_Ah",
    "discharge_3.60_to_3.40_V_Ah",
)
_WARMING: Final = ("warming_300s_K_per_min", "warming_900s_K_per_min")
_SUMMARY: Final = (
    "voltage_V_mean",
    "current_A_mean",
    "temperature_C_mean",
    "temperature_C_max",
    "discharge_time_s",
    "delta_T_C",
    "voltage_drop_time_s",
    "log_charge",
    "log_time",
    "log_drop_time",
    "log_current",
)
_PHYSICS: Final = (  # of mean voltage only voltages tell, however long or strong the load
    "voltage_V_mean",
    "voltage_V_std",
    "voltage_V_60s",
    "voltage_V_300s",
    "voltage_V_900s",
    "ohmic_step_ohm",
    "ambient_temperature_C",
)


def _logarithm(values: Floats) -> Floats:
    """Natural logarithm, NaN where there is none."""
    return np.log(np.where(values > 0.0, values, np.nan))


def _charge_ah(given: Columns) -> Floats:
    return -given["current_A_mean"] * given["discharge_time_s"] / 3600.0


def _below_rest(seconds: int) -> Callable[[Columns], Floats]:
    return lambda given: given[f"voltage_V_{seconds}s"] - given["rest_voltage_V"]


ADDED: Final[Mapping[str, Callable[[Columns], Floats]]] = {
    **{f"below_rest_V_{seconds}s": _below_rest(seconds) for seconds in _TIMES_S},
    "log_charge": lambda given: _logarithm(_charge_ah(given)),
    "log_time": lambda given: _logarithm(given["discharge_time_s"]),
    "log_drop_time": lambda given: _logarithm(given["voltage_drop_time_s"]),
    "log_current": lambda given: _logarithm(-given["current_A_mean"]),
}
"""Features that a recipe adds, from the view's."""

NOMINAL_V: Final = 3.5
"""Voltage that turns energy into charge; which one does not matter, the process learns the rest."""


def _energy_over_voltage(given: Columns) -> Floats:
    """Charge in Ah that the energy to the cutoff amounts to; the record's charge where unknown."""
    by_energy = given["energy_to_cutoff_Wh"] / NOMINAL_V
    return np.where(by_energy > LEAST_AH, by_energy, np.maximum(_charge_ah(given), LEAST_AH))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a view's features are learned from.

    Args:
        members: one process each: blocks of features that share a scale.
        slopes: one per member, whether its assets have slopes of their own.
        line: features of the ridge to fall back to.
        charge_ah: from the view's features the charge whose ratio to the capacity is learned;
            None where the capacity itself is.
    """

    members: tuple[tuple[tuple[str, ...], ...], ...]
    slopes: tuple[bool, ...]
    line: tuple[str, ...]
    charge_ah: Callable[[Columns], Floats] | None = None


RECIPES: Final[Mapping[str, Recipe]] = {
    "partial_window": Recipe(
        members=(
            (_REGIME, _BELOW_REST, _WINDOWS, ("rest_voltage_V",), _WARMING),
            (_REGIME, _VOLTAGES, ("rest_voltage_V",)),
            (_REGIME, _BELOW_REST, _WINDOWS),
        ),
        slopes=(True, False, False),
        line=(*_REGIME, *_VOLTAGES, "ohmic_step_ohm", *_WINDOWS),
    ),
    "discharge_summary": Recipe(
        members=((_SUMMARY,), (_SUMMARY,)), slopes=(False, True), line=_SUMMARY
    ),
    "discharge_physics": Recipe(
        members=((_PHYSICS,),), slopes=(False,), line=_PHYSICS, charge_ah=_energy_over_voltage
    ),
}
"""By feature view."""


def recipe_of(view: str) -> Recipe:
    """The recipe of a view.

    Raises:
        DataError: when there is none.
    """
    if view not in RECIPES:
        raise DataError(
            f"there is no process for view {view!r}; expected one of {', '.join(RECIPES)}"
        )
    return RECIPES[view]


def used_features(view: str, names: Sequence[str]) -> frozenset[str]:
    """Those of a view's features that its recipe looks at.

    Raises:
        DataError: when there is no recipe for the view.

    Examples:
        >>> sorted(used_features("partial_window", ["voltage_V_60s", "charge_current_A"]))
        ['voltage_V_60s']
    """
    recipe = recipe_of(view)
    asked = {name for member in recipe.members for block in member for name in block}
    asked |= set(recipe.line)
    looked_at = _Remembers()
    for name in asked & set(ADDED):
        ADDED[name](looked_at)
    if recipe.charge_ah is not None:
        recipe.charge_ah(looked_at)
    return frozenset(names) & (asked | set(looked_at))


class _Remembers(dict[str, Floats]):
    """Columns of ones, those that were asked for."""

    def __missing__(self, name: str) -> Floats:
        self[name] = np.ones(1)
        return self[name]


def with_added(names: tuple[str, ...], features: ArrayLike) -> Columns:
    """The view's features (n, k) and all added ones that can be computed from them, by name.

    Raises:
        DataError: when the features are not (n, k).
    """
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(names):  # noqa: PLR2004 - a matrix
        raise DataError(f"features have shape {values.shape}; expected (n, {len(names)})")
    columns = dict(zip(names, values.T, strict=True))
    for name, compute in ADDED.items():
        try:
            columns[name] = compute(columns)
        except KeyError:  # of another view
            continue
    return columns
