"""Shifts whose cause is known, to be planted into a copy of traffic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from batteryops.monitoring.quantities import is_level, sensor_of, temperature_axis

SIGMAS: Final = (0.25, 0.5, 1.0)
STUCK_ASSETS: Final = 3
"""One asset of so many has the stuck sensor."""

WINTER_K: Final = -15.0

_LFP_VOLTAGE: Final = 0.89
_LFP_DROP_TIME: Final = 0.03
_LFP_TIME: Final = 1.12
_LFP_WARMING: Final = 0.75
"""A simulated LFP fleet over an NMC fleet of the same climate and load: means of the features."""

_COLD_VOLTAGE: Final = 0.975
_COLD_WARMING: Final = 1.64
_COLD_DROP_TIME: Final = 0.985
"""A simulated NMC fleet 15 K colder over itself: resistance rises, and so do heat and sag."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Something that is known to have changed.

    Args:
        name: of the shift.
        features: where it has to show.
        cause: that is right.
        plant: makes the changed copy of a table.
    """

    name: str
    features: tuple[str, ...]
    cause: str
    plant: Callable[[pl.DataFrame], pl.DataFrame]


def shifts_of(
    features: Sequence[str], feature: str, sigma: float, *, asset: str
) -> tuple[Shift, ...]:
    """The shifts that a table with these features can have.

    Args:
        features: that there are.
        feature: which of them is shifted, and is stuck.
        sigma: standard deviation of that feature.
        asset: the column that says whose row it is.

    Examples:
        >>> names = ["voltage_V_mean", "temperature_C_mean", "discharge_time_s"]
        >>> [shift.name for shift in shifts_of(names, "discharge_time_s", 60.0, asset="asset_id")]
        ['0.25 sigma', '0.5 sigma', '1 sigma', 'stuck sensor', 'new chemistry', 'winter']
    """
    moved = [
        Shift(
            f"{times:g} sigma",
            (feature,),
            "sensor_fault: offset",
            lambda table, by=times * sigma: table.with_columns(pl.col(feature) + by),  # type: ignore[misc]  # mypy cannot infer a lambda's default
        )
        for times in SIGMAS
    ]
    stuck = Shift(
        "stuck sensor",
        (feature,),
        "sensor_fault: stuck",
        lambda table: _stuck(table, feature, asset),
    )
    lfp = {name: factor for name in features if (factor := _lfp(name)) is not None}
    cold = {name: factor for name in features if (factor := _cold(name)) is not None}
    warmth = [name for name in features if sensor_of(name) == "temperature" and is_level(name)]
    joint = []
    if len({sensor_of(name) for name in lfp}) > 1:
        joint.append(
            Shift(
                "new chemistry",
                tuple(lfp),
                "new_chemistry",
                lambda table: _scaled(table, lfp).with_columns(
                    pl.concat_str(pl.lit("new-"), pl.col(asset).cast(pl.String)).alias(asset)
                ),
            )
        )
    if temperature_axis(features) is not None and cold:
        joint.append(
            Shift(
                "winter",
                tuple(warmth),
                "climate",
                lambda table: _scaled(table, cold).with_columns(pl.col(warmth) + WINTER_K),
            )
        )
    return (*moved, stuck, *joint)


def _stuck(table: pl.DataFrame, feature: str, asset: str) -> pl.DataFrame:
    """In one asset of three the feature stays at the end of its range."""
    name = pl.col(asset).cast(pl.String)
    struck = (name.rank("dense") - 1) % STUCK_ASSETS == 0
    largest = pl.col(feature).fill_nan(None).max()
    return table.with_columns(pl.when(struck).then(largest).otherwise(feature).alias(feature))


def _scaled(table: pl.DataFrame, factors: Mapping[str, float]) -> pl.DataFrame:
    return table.with_columns(pl.col(name) * factor for name, factor in factors.items())


def _lfp(name: str) -> float | None:
    if sensor_of(name) == "voltage" and is_level(name):
        return _LFP_VOLTAGE
    if name == "voltage_drop_time_s":
        return _LFP_DROP_TIME
    if name == "discharge_time_s":
        return _LFP_TIME
    return _LFP_WARMING if name == "delta_T_C" else None


def _cold(name: str) -> float | None:
    if sensor_of(name) == "voltage" and is_level(name):
        return _COLD_VOLTAGE
    if name == "voltage_drop_time_s":
        return _COLD_DROP_TIME
    return _COLD_WARMING if name == "delta_T_C" else None
