"""Features of one short charging segment of a pack: 0.1 V of mean cell voltage, nothing beyond.

The source of the idea, a segment of 0.1 V of one charge, is Z. Deng et al., Journal of Energy
Chemistry 89 (2024) 345-354, doi 10.1016/j.jechem.2023.10.056. Three things are read from it: how
much charge it took, how far the voltage jumps when charging begins, and how far the highest cell
stands above the mean. All are relative to the rated capacity, so that packs of different size
compare; none is relative to a state of charge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.features.view import Feature

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SEGMENT_V: Final = 0.1
"""Width of a segment, V of mean cell voltage."""

CHARGING_C: Final = 0.1
"""Least charging current, as a share of rated Ah per hour; below it a pack counts as resting."""

SETTLING_S: Final = 300.0
"""Until charging has lasted so long, the voltage still jumps and does not place a sample."""

STEP_S: Final = 180.0
"""The resistance is read so long after charging began."""

RAMP_S: Final = 30.0
"""Chargers take seconds to reach their current; the rest before is looked for no further back."""

SAME_C: Final = 0.01
"""Samples whose current differs by no more are at the same current."""

LONGEST_GAP_S: Final = 60.0
"""Current is taken to have flowed on over a gap in the record, but no longer than this."""

NEEDED: Final = ("segment", "time_s", "current_a", "cell_mean_v", "cell_max_v")

PACK_FEATURES: Final = (
    Feature(
        name="segment_charge_pct",
        unit="% of rated capacity",
        low=0.0,
        high=60.0,
        meaning=(
            "charge between the two voltages that bound the segment, over rated capacity; the "
            f"voltage counts where charging has lasted {SETTLING_S:g} s"
        ),
        source="incremental capacity over 0.1 V, Deng et al. 2024",
        why_safe=(
            "charge of a tenth of a volt only, a tenth to a third of a full charge; how large a "
            "share of the pack's own capacity that is, is unknown and differs between packs by "
            "7 to 15 percent"
        ),
    ),
    Feature(
        name="segment_resistance_mV_per_C",
        unit="mV at 1 C",
        low=0.0,
        high=1000.0,
        meaning=(
            f"rise of the mean cell voltage from the rest to {STEP_S:g} s of charging over the "
            "rise of the current in rated Ah per hour; mean over the times that charging begins "
            "within the segment"
        ),
        source="charging step; Ohm's law",
        optional=True,
        why_safe="voltages and a current, of three minutes",
    ),
    Feature(
        name="segment_spread_mV",
        unit="mV",
        low=0.0,
        high=500.0,
        meaning="how far the highest cell stands above the mean while charging, mean over samples",
        source="definition; the highest cell ends the charge",
        optional=True,
        why_safe="differences between voltages at one moment, without any charge that flowed",
    ),
)
"""What is declared of each feature; `low` and `high` are for packs of lithium-ion cells."""

PACK_FEATURE_NAMES: Final = tuple(feature.name for feature in PACK_FEATURES)

CHARGE, RESISTANCE, SPREAD = PACK_FEATURE_NAMES


@dataclass(frozen=True, slots=True)
class _Record:
    """One pack's charge in arrays of one length, in the order of time."""

    seconds: Floats  # that each sample stands for
    rate_c: Floats  # positive = charging
    mean_v: Floats
    max_v: Floats
    charged_pct: Floats  # up to and with each sample, of rated capacity
    charging: Flags
    lasting_s: Floats  # how long it has been charging; 0 where it is not


def segment_table(
    samples: pl.DataFrame, *, rated_capacity_ah: float, starts_v: Sequence[float]
) -> pl.DataFrame:
    """The features of each of several segments of one pack's charge, each on its own.

    Args:
        samples: one row per sample in the order of time: `segment` (number of the stretch of the
            record), `time_s` since the start of the stretch, `current_a` (positive = charging),
            `cell_mean_v` and `cell_max_v` (V; the latter may be null).
        rated_capacity_ah: as the maker states it.
        starts_v: mean cell voltage under load at which a segment starts, V; it ends 0.1 V above.

    Returns:
        One row per segment: `start_v` and `PACK_FEATURE_NAMES`, null where the record does not
        cover the segment or has nothing to read the feature from.

    Raises:
        DataError: a column that is missing, no rows, or a rated capacity that is not above 0.

    Examples:
        A charge of 30 minutes at 20 A that raises the cells from 3.6 to 3.8 V: 0.1 V takes 5 Ah.

        >>> time_s = [float(second) for second in range(1801)]
        >>> volts = [3.6 + 0.2 * second / 1800 for second in time_s]
        >>> charge = pl.DataFrame(
        ...     {"segment": 1, "time_s": time_s, "current_a": 20.0, "cell_mean_v": volts}
        ... ).with_columns(cell_max_v=pl.col("cell_mean_v") + 0.01)
        >>> row = segment_table(charge, rated_capacity_ah=50.0, starts_v=[3.65]).row(0, named=True)
        >>> round(row["segment_charge_pct"], 3), round(row["segment_spread_mV"], 3)
        (10.0, 10.0)
        >>> row["segment_resistance_mV_per_C"] is None  # charging did not begin in the segment
        True
    """
    record = _record(samples, rated_capacity_ah)
    settled = np.flatnonzero(record.lasting_s > SETTLING_S)
    highest = np.maximum.accumulate(record.mean_v[settled])
    rows = []
    for start_v in starts_v:
        reached = np.searchsorted(highest, (start_v, start_v + SEGMENT_V))
        covered = reached[0] > 0 and reached[1] < settled.size
        rows.append(_features(record, settled, highest, start_v) if covered else (None, None, None))
    schema = {"start_v": pl.Float64, **dict.fromkeys(PACK_FEATURE_NAMES, pl.Float64)}
    return pl.DataFrame(
        [(start, *row) for start, row in zip(starts_v, rows, strict=True)],
        schema=schema,
        orient="row",
    )


def _record(samples: pl.DataFrame, rated_capacity_ah: float) -> _Record:
    if missing := [name for name in NEEDED if name not in samples.columns]:
        raise DataError(
            f"charge of a pack: missing column {', '.join(missing)}; "
            f"given {', '.join(samples.columns) or 'no columns'}, expected {', '.join(NEEDED)}"
        )
    if samples.is_empty():
        raise DataError("charge of a pack: no rows; expected one per sample")
    if not rated_capacity_ah > 0:
        raise DataError(f"rated capacity {rated_capacity_ah:g} Ah; expected above 0")
    table = samples.select(pl.col(NEEDED).cast(pl.Float64))
    time_s, stretch = table["time_s"].to_numpy(), table["segment"].to_numpy()
    rate = table["current_a"].to_numpy() / rated_capacity_ah
    continues = np.diff(stretch, prepend=np.nan) == 0
    step = np.diff(time_s, prepend=0.0)
    usual = float(np.median(step[continues])) if continues.any() else 1.0
    seconds = np.clip(np.where(continues, step, usual), 0.0, LONGEST_GAP_S)
    charging = rate >= CHARGING_C
    return _Record(
        seconds=seconds,
        rate_c=rate,
        mean_v=table["cell_mean_v"].to_numpy(),
        max_v=table["cell_max_v"].to_numpy(),
        charged_pct=np.cumsum(rate * seconds) / 36.0,  # C times seconds; 3600 / 100
        charging=charging,
        lasting_s=_lasting(charging, seconds),
    )


def _lasting(on: Flags, seconds: Floats) -> Floats:
    """Seconds since `on` last became true, 0 where it is false."""
    total = np.cumsum(np.where(on, seconds, 0.0))
    before = np.maximum.accumulate(np.where(on, 0.0, total))
    return np.where(on, total - before, 0.0)


def _features(
    record: _Record, settled: NDArray[np.int64], highest: Floats, start_v: float
) -> tuple[float | None, float | None, float | None]:
    bounds = (start_v, start_v + SEGMENT_V)
    rising = np.concatenate([[True], np.diff(highest) > 0])
    charge = np.interp(bounds, highest[rising], record.charged_pct[settled[rising]])
    reached = np.searchsorted(highest, bounds)
    inside = slice(int(settled[reached[0] - 1]) + 1, int(settled[reached[1]]) + 1)
    apart = (record.max_v - record.mean_v)[inside][record.charging[inside]]
    apart = apart[np.isfinite(apart)]
    return (
        float(charge[1] - charge[0]),
        _resistance(record, inside),
        max(0.0, 1000.0 * float(apart.mean())) if apart.size else None,
    )


def _resistance(record: _Record, inside: slice) -> float | None:
    """Mean over the beginnings of charging within the segment, mV at 1 C; None without any."""
    began = np.diff(record.charging.astype(np.int8), prepend=1) == 1
    clock = np.cumsum(record.seconds)
    found = []
    for first in np.flatnonzero(began[inside]) + inside.start:
        lasting = record.lasting_s[first : inside.stop]
        last = int(first) + int(np.searchsorted(lasting, STEP_S))
        if last >= inside.stop or not record.charging[first : last + 1].all():
            continue
        ramp = min(int(np.searchsorted(clock, clock[first] - RAMP_S)), int(first) - 1)
        before = record.rate_c[ramp:first]
        rest = ramp + int(np.flatnonzero(before <= before.min() + SAME_C)[-1])
        rise_v = record.mean_v[last] - record.mean_v[rest]
        level_c = float(np.median(record.rate_c[first + (last - first) // 2 : last + 1]))
        rise_c = level_c - record.rate_c[rest]
        found.append(1000.0 * rise_v / rise_c)
    return float(np.mean(found)) if found else None
