"""What the first minutes of a load tell of a cell, long before its discharge ends.

Only loaded samples of the observed part count: those of the first 15 minutes of the load, and of
these only those before the voltage first falls below 3.2 V, half a volt above the cutoff. What a
weak cell reaches later than that, or lower, is not looked at.
"""

from typing import Final

import polars as pl

from batteryops.features.charge_windows import window_name
from batteryops.features.crossings import MAX_GAP_S, between, crossings
from batteryops.features.discharge_physics import LOADED_A
from batteryops.features.runs import Runs

OBSERVED_S: Final = 900.0
FLOOR_V: Final = 3.2
"""Half a volt above the voltage of one cell at which capacity ends."""

WINDOWS_V: Final = ((3.90, 3.80), (3.90, 3.70), (3.80, 3.70), (3.80, 3.60), (3.60, 3.40))
FIRST_V: Final = 3.80
FIXED_TIMES_S: Final = (60.0, 300.0, 600.0, 900.0)
WARMING_S: Final = (300.0, 900.0)
FIRST_MINUTES_S: Final = 300.0

_LEVELS_V: Final = (3.90, 3.80, 3.70, 3.60, 3.40)

# Factors, not divisors: batteryops.features.runs says why.
_HOURS: Final = 1.0 / 3600.0
_PER_MIN: Final = 60.0  # from 1/s


def load_windows(runs: Runs) -> tuple[pl.DataFrame, ...]:
    """Tables with the column `run` and features of the load's first minutes.

    `rest_voltage_V` and `start_temperature_C` are those of the last sample before the load.
    """
    load = _observed(runs.samples)
    fallen = load.with_columns(depth=-pl.col("voltage_v"))
    by_voltage = crossings(
        fallen, "depth", [-volts for volts in _LEVELS_V], ("load_s", "delivered_ah")
    ).filter(pl.col("load_s") <= OBSERVED_S)
    by_time = crossings(
        load, "load_s", FIXED_TIMES_S, ("voltage_v", "temperature_c", "delivered_ah")
    )
    return (
        _onset(load),
        _current(load),
        *(
            by_time.filter(level=position).select(
                "run", pl.col("voltage_v").alias(f"voltage_V_{seconds:.0f}s")
            )
            for position, seconds in enumerate(FIXED_TIMES_S)
        ),
        *(_warming(load, by_time, seconds) for seconds in WARMING_S),
        by_voltage.filter(level=_LEVELS_V.index(FIRST_V)).select(
            "run", pl.col("delivered_ah").alias(f"discharge_to_{FIRST_V:.2f}_V_Ah")
        ),
        *(_window(by_voltage, high, low) for high, low in WINDOWS_V),
    )


def _observed(samples: pl.DataFrame) -> pl.DataFrame:
    """Loaded samples of the observed part, and the next, for interpolation up to its end.

    Adds `load_s` (since the run's first loaded sample), `delivered_ah` (since then, the rests of
    a pulsed load included), and `voltage_before_v`, `current_before_a`, `temperature_before_c`
    of the sample before.
    """
    channels = ("time_s", "voltage_v", "current_a")
    whole = samples.drop_nulls(channels)
    continues = pl.col("run") == pl.col("run").shift()
    before = whole.with_columns(
        pl.when(continues).then(pl.col(name).shift()).alias(f"{name[:-2]}_before{name[-2:]}")
        for name in (*channels, "temperature_c")
    )
    loaded = pl.col("current_a") <= -LOADED_A
    begun = before.with_columns(begun=loaded.cum_max().over("run")).filter("begun")
    first = pl.col("run").ne_missing(pl.col("run").shift())
    seconds = pl.when(first).then(0.0).otherwise(pl.col("time_s") - pl.col("time_before_s"))
    mean_a = (pl.col("current_a") + pl.col("current_before_a").fill_null(0.0)) * 0.5
    below = loaded & (pl.col("voltage_v") < FLOOR_V)
    return (
        begun.with_columns(
            load_s=pl.col("time_s") - pl.col("time_s").first().over("run"),
            delivered_ah=(-(seconds * mean_a) * _HOURS).cum_sum().over("run"),
            ended=below.cum_max().over("run"),
        )
        .filter(loaded & ~pl.col("ended") & (pl.col("load_s") <= OBSERVED_S + MAX_GAP_S))
        .drop("begun", "ended")
    )


def _onset(load: pl.DataFrame) -> pl.DataFrame:
    """Features of the step into the load."""
    step_v = pl.col("voltage_before_v").first() - pl.col("voltage_v").first()
    step_a = pl.col("current_before_a").first() - pl.col("current_a").first()
    return load.group_by("run").agg(
        rest_voltage_V=pl.col("voltage_before_v").first(),
        start_temperature_C=pl.col("temperature_before_c").first(),
        ohmic_step_ohm=step_v / step_a,
    )


def _current(load: pl.DataFrame) -> pl.DataFrame:
    """Mean current of the first minutes: of loaded samples, and over time."""
    # filtered before grouping: a mean over a group's filtered samples may differ in its last bit
    # between one group and many
    early = load.filter(pl.col("load_s") <= FIRST_MINUTES_S).group_by("run")
    lasts_s = pl.col("load_s").last()
    over_time = -pl.col("delivered_ah").last() / (lasts_s * _HOURS)
    return early.agg(
        load_current_A=pl.col("current_a").mean(),
        load_current_A_mean=pl.when(lasts_s > 0.0).then(over_time),
    )


def _warming(load: pl.DataFrame, by_time: pl.DataFrame, seconds: float) -> pl.DataFrame:
    """How fast the cell warms from the onset of the load to a fixed time."""
    first = load.group_by("run", maintain_order=True).agg(first_c=pl.col("temperature_c").first())
    rise = (pl.col("temperature_c") - pl.col("first_c")) * (_PER_MIN / seconds)
    return (
        by_time.filter(level=FIXED_TIMES_S.index(seconds))
        .join(first, on="run")
        .select("run", rise.alias(f"warming_{seconds:.0f}s_K_per_min"))
    )


def _window(by_voltage: pl.DataFrame, high: float, low: float) -> pl.DataFrame:
    name = window_name(high, low)
    return between(
        by_voltage,
        _LEVELS_V.index(high),
        _LEVELS_V.index(low),
        {"delivered_ah": f"discharge_{name}_Ah", "load_s": f"discharge_{name}_s"},
    )
