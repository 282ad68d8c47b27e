"""Published values that mean "no measurement": where they cannot be a measurement."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from batteryops.quality.units import largest_current_a
from batteryops.schema import Profile

PEAK_FACTOR: Final = 2.0  # peaks of the current are within twice the largest mean


def sentinel_values(column: str, sentinels: Sequence[float], profile: Profile) -> list[float]:
    """The values that mean "no measurement" in a column of an asset of that profile.

    Publishers mark a missing number by one that cannot occur, such as -1000 A; a reader that
    turns the sign of a current turns the mark too, so both signs count. A number that the asset
    can well show is no mark: a 586 V pack passes 511 V, and a trip lasts 1000 s.

    Args:
        column: its name says the quantity: `voltage…`, `current…`, anything with `temp`; a time
            ends in `_s`.
        sentinels: the values configured.
        profile: windows of the asset.

    Examples:
        >>> from batteryops.settings import load_settings
        >>> settings = load_settings()
        >>> pack = settings.profile("chengdu_pack_586v")
        >>> sentinel_values("current_min", settings.quality.sentinels, pack)
        [-65535.0, -1000.0, -999.0, 999.0, 1000.0, 65535.0]
        >>> sentinel_values("voltage_mean", [511.0], pack), sentinel_values("trip_s", [511.0], pack)
        ([-511.0], [-511.0])
    """
    low, high = _plausible(column, profile)
    both = {sign * value for value in sentinels for sign in (1.0, -1.0)}
    return sorted(value for value in both if not low <= value <= high)


def is_sentinel(column: str, sentinels: Sequence[float], profile: Profile) -> pl.Expr:
    """Whether each value of `column` means "no measurement"; null counts as no."""
    marks = pl.Series(sentinel_values(column, sentinels, profile), dtype=pl.Float64)
    return pl.col(column).is_in(marks.implode()).fill_null(value=False)


def _plausible(column: str, profile: Profile) -> tuple[float, float]:
    name = column.lower()
    if name.endswith("_s"):
        return 0.0, float("inf")
    if name.startswith("voltage"):
        return profile.voltage_sample_v
    if name.startswith("current"):
        peak = PEAK_FACTOR * largest_current_a(profile)
        return -peak, peak
    return 0.0, 0.0  # unknown: every mark counts, zero is never one
