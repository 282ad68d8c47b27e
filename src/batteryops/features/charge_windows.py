"""What short windows of a charge tell of a cell: charge, decay, incremental capacity.

A charge is read as its constant-current part followed by its constant-voltage part. Samples of
the first seconds are dropped (chargers close with a spike), as are samples with a voltage that no
cell has or with current flowing out. A charge is used when its constant-current part lasts ten
minutes: a stub or the topping-up of a full cell says nothing of the windows.
"""

import math
from typing import Final

import polars as pl

from batteryops.features.crossings import between, crossings
from batteryops.features.runs import Runs, in_runs

SETTLING_S: Final = 30.0
"""Samples earlier in a charge are dropped."""

POSSIBLE_V: Final = (2.0, 4.5)
CHARGING_A: Final = 0.1
"""Least charge current of a charging sample."""

BELOW_LIMIT_V: Final = 4.15
"""Below it a charge is at constant current; the charger's limit is 4.2 V."""

MIN_CONSTANT_CURRENT_S: Final = 600.0
CV_START_SHARE: Final = 0.95
"""The constant-voltage part starts where the current falls below this share of its level."""

WINDOWS_V: Final = ((3.80, 4.00), (3.95, 4.15))
HALF_SHARE: Final = 0.5
FIFTH_SHARE: Final = 0.2
DECAY_SHARES: Final = (2.0 / 3.0, FIFTH_SHARE)
WARMING_V: Final = (3.95, 4.15)

IC_RANGE_V: Final = (3.85, 4.125)
"""Where the middle of the incremental-capacity peak is looked for."""

IC_WIDTH_V: Final = 0.05
IC_AREA_HALF_V: Final = 0.045

_GRID_START_V: Final = 3.60
_GRID_STEP_V: Final = 0.01
_GRID_V: Final = tuple(round(_GRID_START_V + _GRID_STEP_V * step, 2) for step in range(60))
_IC_STEPS: Final = round(IC_WIDTH_V / _GRID_STEP_V)
_IC_MARGIN: Final = round((IC_AREA_HALF_V - IC_WIDTH_V / 2) / _GRID_STEP_V)

# Factors, not divisors: batteryops.features.runs says why.
_HOURS: Final = 1.0 / 3600.0
_PER_IC_WIDTH: Final = 1.0 / IC_WIDTH_V
_PER_DECAY: Final = 1.0 / math.log(DECAY_SHARES[0] / DECAY_SHARES[1])


def charge_windows(samples: pl.DataFrame) -> pl.DataFrame:
    """The windows of every usable charge among `samples`.

    Args:
        samples: as `schema.SAMPLES` declares them, of any kinds, in any order.

    Returns:
        One row per usable charge: `asset_id`, `op_index` of the charge, `record_end_s` (time of
        its record's last sample), `last_charging_v`, and the features of the charge.
    """
    runs = in_runs(samples, "charge")
    charging = _charging(runs)
    constant, falling = _parts(charging)
    crossed = crossings(
        constant, "voltage_v", _GRID_V, ("time_s", "charged_ah", "energy_wh", "temperature_c")
    )
    usable = charging.group_by("run").agg(
        charge_current_A=pl.col("level_a").first(),
        last_charging_v=pl.col("voltage_v").last(),
    )
    ends = runs.samples.group_by("run").agg(record_end_s=pl.col("time_s").max())
    parts = (
        ends,
        *(_window(crossed, low, high) for low, high in WINDOWS_V),
        *_decay(falling),
        _peak(crossed),
        between(
            crossed,
            _position(WARMING_V[0]),
            _position(WARMING_V[1]),
            {"temperature_c": "charge_temperature_rise_K"},
        ),
    )
    known = runs.keys.join(usable, on="run", maintain_order="left")
    for part in parts:
        known = known.join(part, on="run", how="left", maintain_order="left")
    return known.drop("run")


def _charging(runs: Runs) -> pl.DataFrame:
    """Charging samples of usable charges, with the charge and energy that flowed before each.

    Adds `level_a`, the current of the constant-current part: the median below `BELOW_LIMIT_V`.
    """
    current, voltage, time = pl.col("current_a"), pl.col("voltage_v"), pl.col("time_s")
    first_s = runs.samples.group_by("run", maintain_order=True).agg(time.min())["time_s"]
    since = runs.samples["time_s"] - first_s.gather(runs.samples["run"])
    charging = runs.samples.filter(
        (since >= SETTLING_S) & (current >= CHARGING_A) & voltage.is_between(*POSSIBLE_V)
    )
    constant = (
        charging.filter(voltage < BELOW_LIMIT_V)
        .group_by("run", maintain_order=True)
        .agg(level_a=current.median(), lasts_s=time.last() - time.first())
        .filter(pl.col("lasts_s") >= MIN_CONSTANT_CURRENT_S)
    )
    by_run = runs.keys.join(constant, on="run", how="left", maintain_order="left")
    level = by_run["level_a"].gather(charging["run"])  # runs are numbered from 0
    usable = charging.with_columns(level_a=level).filter(level.is_not_null())
    continues = pl.col("run") == pl.col("run").shift()
    seconds = pl.when(continues).then(time - time.shift()).otherwise(0.0)
    power = voltage * current
    return usable.with_columns(
        charged_ah=(seconds * (current + current.shift().fill_null(0.0)) * (0.5 * _HOURS))
        .cum_sum()
        .over("run"),
        energy_wh=(seconds * (power + power.shift().fill_null(0.0)) * (0.5 * _HOURS))
        .cum_sum()
        .over("run"),
    )


def _parts(charging: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The constant-current and the constant-voltage part; the second's first sample starts it."""
    falls = (pl.col("voltage_v") >= BELOW_LIMIT_V) & (
        pl.col("current_a") < pl.col("level_a") * CV_START_SHARE
    )
    marked = charging.with_columns(falling=falls.cum_max().over("run"))
    return marked.filter(~pl.col("falling")), marked.filter("falling")


def _position(volts: float) -> int:
    return _GRID_V.index(volts)


def _window(crossed: pl.DataFrame, low: float, high: float) -> pl.DataFrame:
    name = window_name(low, high)
    return between(
        crossed,
        _position(low),
        _position(high),
        {
            "charged_ah": f"charge_{name}_Ah",
            "time_s": f"charge_{name}_s",
            "energy_wh": f"charge_{name}_Wh",
        },
    )


def window_name(first: float, last: float) -> str:
    """How a window of voltage is called in the name of a feature.

    Examples:
        >>> window_name(3.8, 4.0)
        '3.80_to_4.00_V'
    """
    return f"{first:.2f}_to_{last:.2f}_V"


def _decay(falling: pl.DataFrame) -> tuple[pl.DataFrame, ...]:
    """Charge and time until the current fell to given shares, and how fast it fell."""
    shares = (*DECAY_SHARES[:1], HALF_SHARE, FIFTH_SHARE)
    fallen = falling.with_columns(share=-pl.col("current_a") / pl.col("level_a"))
    crossed = crossings(fallen, "share", [-share for share in shares], ("time_s", "charged_ah"))
    start = falling.group_by("run").agg(
        pl.col("time_s", "charged_ah").first(), level=pl.lit(-1, pl.Int64)
    )
    crossed = pl.concat([crossed, start.select(crossed.columns)])
    return (
        *(
            between(
                crossed,
                -1,
                shares.index(share),
                {"charged_ah": f"cv_to_{name}_Ah", "time_s": f"cv_to_{name}_s"},
            )
            for share, name in ((HALF_SHARE, "half"), (FIFTH_SHARE, "fifth"))
        ),
        between(crossed, 0, 2, {"time_s": "cv_time_constant_s"}).with_columns(
            pl.col("cv_time_constant_s") * _PER_DECAY
        ),
    )


def _peak(crossed: pl.DataFrame) -> pl.DataFrame:
    """Height, position and area of the peak of dQ/dV, smoothed over `IC_WIDTH_V`.

    A maximum at either end of what was recorded is no peak.
    """
    charge = crossed.sort("run", "level").select("run", "level", "charged_ah")
    later = charge.select("run", pl.col("level") - _IC_STEPS, charged_later_ah=pl.col("charged_ah"))
    middle = pl.col("level") * _GRID_STEP_V + (_GRID_START_V + IC_WIDTH_V * 0.5)
    slope = (pl.col("charged_later_ah") - pl.col("charged_ah")) * _PER_IC_WIDTH
    curve = charge.join(later, on=["run", "level"], maintain_order="left").select(
        "run", "level", middle=middle, slope=slope
    )
    highest = (
        curve.filter(pl.col("middle").is_between(*IC_RANGE_V))
        .filter(pl.col("slope") == pl.col("slope").max().over("run"))
        .unique("run", keep="first", maintain_order=True)
    )
    lower = charge.select("run", pl.col("level") + _IC_MARGIN, lower_ah="charged_ah")
    upper = charge.select(
        "run", pl.col("level") - _IC_STEPS - _IC_MARGIN, upper_ah=pl.col("charged_ah")
    )
    return (
        highest.join(lower, on=["run", "level"])
        .join(upper, on=["run", "level"])
        .select(
            "run",
            ic_peak_V="middle",
            ic_peak_Ah_per_V="slope",
            ic_peak_area_Ah=pl.col("upper_ah") - pl.col("lower_ah"),
        )
    )
