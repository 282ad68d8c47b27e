"""Is a whole asset in the wrong unit? Its medians against the windows of its profile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from batteryops.schema import Profile

THOUSAND: Final = 1000.0
KELVIN: Final = (200.0, 400.0)  # no battery is that hot in degC, or beyond these in K
CELSIUS_ZERO_K: Final = 273.15
CURRENT_EXCESS: Final = 10.0  # times the profile's largest mean current

Quantity = str  # "voltage", "current" or "temperature"


@dataclass(frozen=True, slots=True)
class UnitSuspicion:
    """A column of an asset that looks to be in another unit.

    Args:
        asset_id: whose values they are.
        quantity: `voltage`, `current` or `temperature`.
        value: the median found.
        limit: the nearest plausible value.
        message: what it looks like and what to do.
    """

    asset_id: str
    quantity: Quantity
    value: float
    limit: float
    message: str


def suspect_units(
    medians: pl.DataFrame, profile_of: Callable[[str], Profile]
) -> list[UnitSuspicion]:
    """Assets whose typical values make sense only in another unit.

    Args:
        medians: one row per asset: `asset_id`, `voltage` (V), `current` (A, a typical size while
            in use), `temperature` (degC), each null where unknown.
        profile_of: the profile of an asset.

    Examples:
        >>> from batteryops.settings import load_settings
        >>> row = {"asset_id": "B0005", "voltage": 3521.0, "current": 2.0, "temperature": 297.2}
        >>> for found in suspect_units(pl.DataFrame([row]), load_settings().profile_of):
        ...     print(found.message)
        B0005: typical voltage 3521 looks like millivolts; divide by 1000
        B0005: typical temperature 297.2 looks like kelvin; subtract 273.15
    """
    found: list[UnitSuspicion] = []
    for row in medians.sort("asset_id").iter_rows(named=True):
        asset_id = str(row["asset_id"])
        profile = profile_of(asset_id)
        found += _voltage(asset_id, row, profile)
        found += _current(asset_id, row, profile)
        found += _temperature(asset_id, row, profile)
    return found


def turned_current(asset_id: str, value: float) -> UnitSuspicion:
    """The suspicion that an asset's discharges were recorded as positive."""
    return UnitSuspicion(
        asset_id,
        "current",
        value,
        0.0,
        f"{asset_id}: current of the discharges is positive (typically {value:.4g} A); "
        "discharge is negative here: multiply by -1",
    )


def _voltage(
    asset_id: str, row: Mapping[str, float | None], profile: Profile
) -> list[UnitSuspicion]:
    value = row["voltage"]
    low, high = profile.voltage_sample_v
    if value is None or value <= high or not max(low, high / 10) <= value / THOUSAND <= high:
        return []
    return [_say(asset_id, "voltage", value, high, "millivolts; divide by 1000")]


def _current(
    asset_id: str, row: Mapping[str, float | None], profile: Profile
) -> list[UnitSuspicion]:
    value = row["current"]
    largest = largest_current_a(profile)
    if value is None or abs(value) <= CURRENT_EXCESS * largest:
        return []
    return [_say(asset_id, "current", value, largest, "milliamperes; divide by 1000")]


def _temperature(
    asset_id: str, row: Mapping[str, float | None], profile: Profile
) -> list[UnitSuspicion]:
    value = row["temperature"]
    if value is None or not KELVIN[0] < value < KELVIN[1]:
        return []
    high = profile.temperature_mean_c[1]
    return [_say(asset_id, "temperature", value, high, f"kelvin; subtract {CELSIUS_ZERO_K}")]


def largest_current_a(profile: Profile) -> float:
    """The size of the largest mean current that the profile allows, in A."""
    return max(abs(bound) for bound in profile.current_mean_a)


def _say(
    asset_id: str, quantity: Quantity, value: float, limit: float, looks: str
) -> UnitSuspicion:
    message = f"{asset_id}: typical {quantity} {value:.4g} looks like {looks}"
    return UnitSuspicion(asset_id, quantity, value, limit, message)
