"""What a feature's name says of it: which sensor it comes from, and which way ageing moves it."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final, Literal

from batteryops.features.views import VIEWS
from batteryops.monitoring.strata import TEMPERATURES

Sensor = Literal["voltage", "current", "temperature", "clock", "charge"]

LOADS: Final = ("current_A_mean", "load_current_A_mean", "load_current_A", "charge_current_A")
"""Features that tell how hard a cycle was, the first that a table has counts."""

_TRENDS: Final = MappingProxyType(
    {feature.name: feature.trend for view in VIEWS.values() for feature in view.features}
)
_DIFFERENCES: Final = ("delta", "rise", "warming", "slope", "std", "step", "per_min", "drop")


def sensor_of(name: str) -> Sensor:
    """The sensor whose fault would show in this feature alone, as far as the name says.

    Examples:
        >>> [sensor_of(name) for name in ("voltage_V_mean", "delta_T_C", "voltage_drop_time_s")]
        ['voltage', 'temperature', 'clock']
    """
    word = name.lower()
    if word.endswith(("_s", "_h")):
        return "clock"
    if "temp" in word or "delta_t" in word or "warming" in word:
        return "temperature"
    if word.endswith(("ah", "wh", "ah_per_v", "_ohm")) or "power" in word:
        return "charge"
    if "current" in word:
        return "current"
    return "voltage" if "volt" in word or word.endswith("_v") else "charge"


def is_level(name: str) -> bool:
    """Whether a sensor's constant error shifts the feature by itself: not where it is a difference.

    Examples:
        >>> is_level("temperature_C_max"), is_level("delta_T_C")
        (True, False)
    """
    word = name.lower()
    return sensor_of(name) in {"voltage", "current", "temperature"} and not any(
        part in word for part in _DIFFERENCES
    )


def temperature_axis(names: Sequence[str]) -> str | None:
    """The feature that says how warm it was."""
    return next((name for name in TEMPERATURES if name in names), None)


def load_axis(names: Sequence[str]) -> str | None:
    """The feature that says how hard the load was."""
    return next((name for name in LOADS if name in names), None)


def trend_features(names: Sequence[str]) -> list[str]:
    """Features that capacity can only rise with, all else equal."""
    return [name for name in names if _TRENDS.get(name) == 1]


def ageing_sign(name: str, typical: float) -> int:
    """Which way a feature goes as a battery ages under the same load and climate.

    Capacity falls and resistance rises: it is empty sooner, its voltage under load is lower, and it
    warms more. The mean current of a record with a rest at its end comes nearer to zero, because
    the load takes less of the record. 0 where physics does not say.

    Args:
        name: of the feature.
        typical: a value of it, whose sign counts for a current.

    Examples:
        >>> [ageing_sign(name, -1.8) for name in ("discharge_time_s", "delta_T_C", "current_A")]
        [-1, 1, 1]
    """
    trend = _TRENDS.get(name, 0)
    if trend:
        return -trend
    sensor = sensor_of(name)
    if sensor == "temperature":
        return 1
    if sensor == "current" and is_level(name):
        return -1 if typical > 0 else 1
    return -1 if sensor == "voltage" and is_level(name) else 0
