"""Feature view `discharge_physics` v1: the seven, and what a discharge tells of the cell's physics.

A sample counts as loaded when at least `LOADED_A` flows out of the cell. Fixed times, slopes and
deviations look at loaded samples only, so that a pulsed load, which rests every few seconds, is
described by its pulses. Samples without time, voltage or current take no part in these features.
"""

from typing import Final

import polars as pl

from batteryops.features.discharge_summary import SUMMARY, summarise
from batteryops.features.runs import in_runs
from batteryops.features.view import Feature, FeatureView

CUTOFF_V: Final = 2.7
"""Voltage of one cell at which NASA's capacity ends; fixed in version 1, whatever the profile."""

LOADED_A: Final = 0.1
"""Least discharge current of a loaded sample: far above sensors' noise, far below any load."""

FIXED_TIMES_S: Final = (60.0, 300.0, 900.0)
MAX_GAP_S: Final = 60.0
"""Between loaded samples further apart no voltage is interpolated."""

EARLY_S: Final = (60.0, 600.0)
LATE_S: Final = (600.0, 1800.0)

# Factors, not divisors: batteryops.features.runs says why.
_MV_PER_MIN: Final = 60_000.0  # from V/s
_PER_MIN: Final = 60.0  # from 1/s
_WH: Final = 1.0 / 3600.0  # from Ws

_CONSTANT_LOAD = "times the load's current it is the charge delivered to the cutoff: the capacity"

PHYSICS: Final = (
    Feature(
        name="time_to_cutoff_s",
        unit="s",
        low=0.0,
        high=86_400.0,
        meaning=(
            f"time from the first loaded sample to the first loaded sample below {CUTOFF_V} V; "
            "null where the record does not get there"
        ),
        source="NASA's definition of capacity: discharge till 2.7 V",
        optional=True,
        leaks_label=_CONSTANT_LOAD,
        trend=1,
    ),
    Feature(
        name="energy_to_cutoff_Wh",
        unit="Wh",
        low=0.0,
        high=60.0,
        meaning=(
            "energy delivered from the record's start to the first loaded sample below "
            f"{CUTOFF_V} V: integral of -V*I by the trapezoidal rule; null where the record does "
            "not get there"
        ),
        source="E = integral of P dt",
        optional=True,
        leaks_label="over the mean voltage it is the capacity",
        trend=1,
    ),
    Feature(
        name="power_W_mean",
        unit="W",
        low=0.0,
        high=100.0,
        meaning="plain mean of -V*I over loaded samples; null without load",
        source="P = V*I",
        optional=True,
    ),
    Feature(
        name="current_A_std",
        unit="A",
        low=0.0,
        high=20.0,
        meaning="standard deviation (divisor n) of the current over loaded samples",
        source="definition",
        optional=True,
    ),
    Feature(
        name="voltage_V_std",
        unit="V",
        low=0.0,
        high=2.5,
        meaning="standard deviation (divisor n) of the voltage over loaded samples",
        source="definition",
        optional=True,
    ),
    *(
        Feature(
            name=f"voltage_V_{seconds:.0f}s",
            unit="V",
            low=0.0,
            high=5.0,
            meaning=(
                f"voltage {seconds:.0f} s after the first loaded sample, by linear interpolation "
                f"between loaded samples; null where the load ended before, or where loaded "
                f"samples are more than {MAX_GAP_S:.0f} s apart"
            ),
            source="linear interpolation",
            optional=True,
            trend=1,
        )
        for seconds in FIXED_TIMES_S
    ),
    Feature(
        name="ohmic_step_ohm",
        unit="ohm",
        low=0.0,
        high=2.0,
        meaning=(
            "voltage of the last sample before the load minus that of the first loaded sample, "
            "over the change of the current; includes what polarises until that sample; null "
            "without a sample before the load"
        ),
        source="Ohm's law; the voltage step at the onset of a current pulse",
        optional=True,
        trend=-1,
    ),
    Feature(
        name="temperature_rise_C_per_min",
        unit="K/min",
        low=-5.0,
        high=20.0,
        meaning=(
            "temperature of the last minus that of the first loaded sample, over the time between"
        ),
        source="difference quotient",
        optional=True,
    ),
    *(
        Feature(
            name=f"voltage_slope_{name}_mV_per_min",
            unit="mV/min",
            low=-3000.0,
            high=200.0,
            meaning=(
                f"least-squares slope of the voltage over loaded samples from {start:.0f} s to "
                f"before {end:.0f} s after the first; null with fewer than two"
            ),
            source="ordinary least squares: cov(t, V) / var(t)",
            optional=True,
        )
        for name, (start, end) in (("early", EARLY_S), ("late", LATE_S))
    ),
    Feature(
        name="ambient_temperature_C",
        unit="degC",
        low=-40.0,
        high=60.0,
        meaning="ambient temperature that the publisher states for the cycle",
        source="cycle table",
        optional=True,
    ),
)


def compute(samples: pl.DataFrame, cycles: pl.DataFrame) -> pl.DataFrame:
    """The features of every discharge among `samples`; `FeatureView` has the contract."""
    runs = in_runs(samples, "discharge")
    whole = _whole_samples(runs.samples)
    loaded = _loaded_samples(whole)
    ambient = cycles.select(
        "asset_id",
        pl.col("cycle_index").alias("op_index"),
        pl.col("ambient_temperature_c").alias("ambient_temperature_C"),
    )
    return (
        runs.table(
            summarise(runs),
            _under_load(loaded),
            _to_cutoff(runs.keys, whole, loaded),
            *(_voltage_at(loaded, seconds) for seconds in FIXED_TIMES_S),
            _slope(loaded, "early", EARLY_S),
            _slope(loaded, "late", LATE_S),
        )
        .join(ambient, on=["asset_id", "op_index"], how="left", maintain_order="left")
        .select("asset_id", "op_index", *DISCHARGE_PHYSICS.names)
    )


def _whole_samples(samples: pl.DataFrame) -> pl.DataFrame:
    """Samples with time, voltage and current, each beside the one before it in its run.

    Adds `power_w` (delivered power), and `time_before_s`, `voltage_before_v`,
    `current_before_a`, `power_before_w`, null for a run's first.
    """
    whole = samples.drop_nulls(["time_s", "voltage_v", "current_a"]).with_columns(
        power_w=-pl.col("voltage_v") * pl.col("current_a")
    )
    continues = pl.col("run") == pl.col("run").shift()
    return whole.with_columns(
        pl.when(continues).then(pl.col(value).shift()).alias(before)
        for value, before in (
            ("time_s", "time_before_s"),
            ("voltage_v", "voltage_before_v"),
            ("current_a", "current_before_a"),
            ("power_w", "power_before_w"),
        )
    )


def _loaded_samples(whole: pl.DataFrame) -> pl.DataFrame:
    """Loaded samples, each beside the loaded one after it in its run.

    Adds `load_s` (time since the run's first loaded sample), `load_after_s` and
    `voltage_after_v`, null for a run's last.
    """
    loaded = whole.filter(pl.col("current_a") <= -LOADED_A)
    first = pl.col("run").ne_missing(pl.col("run").shift())
    start = loaded.filter(loaded.select(first).to_series())["time_s"]
    since = loaded["time_s"] - start.gather(loaded["run"].rle_id())
    continues = pl.col("run") == pl.col("run").shift(-1)
    return loaded.with_columns(load_s=since).with_columns(
        pl.when(continues).then(pl.col("load_s").shift(-1)).alias("load_after_s"),
        pl.when(continues).then(pl.col("voltage_v").shift(-1)).alias("voltage_after_v"),
    )


def _under_load(loaded: pl.DataFrame) -> pl.DataFrame:
    """Features of the loaded samples as a whole, per run."""
    voltage, current, temperature = (
        pl.col(name) for name in ("voltage_v", "current_a", "temperature_c")
    )
    step_v = pl.col("voltage_before_v").first() - voltage.first()
    step_a = pl.col("current_before_a").first() - current.first()
    seconds = pl.col("load_s").last()
    rise = temperature.last() - temperature.first()
    return loaded.group_by("run").agg(
        power_W_mean=pl.col("power_w").mean(),
        current_A_std=current.std(ddof=0),
        voltage_V_std=voltage.std(ddof=0),
        ohmic_step_ohm=step_v / step_a,
        temperature_rise_C_per_min=(pl.when(seconds > 0.0).then(rise / seconds) * _PER_MIN),
    )


def _to_cutoff(keys: pl.DataFrame, whole: pl.DataFrame, loaded: pl.DataFrame) -> pl.DataFrame:
    """Time and energy to the cutoff, per run that gets there."""
    cutoff = (
        loaded.filter(pl.col("voltage_v") < CUTOFF_V)
        .group_by("run")
        .agg(time_to_cutoff_s=pl.col("load_s").first(), cutoff_s=pl.col("time_s").first())
    )
    by_run = keys.select("run").join(cutoff, on="run", how="left", maintain_order="left")
    until = by_run["cutoff_s"].gather(whole["run"])  # runs are numbered from 0
    trapezoid_ws = (
        (pl.col("power_w") + pl.col("power_before_w"))
        * (pl.col("time_s") - pl.col("time_before_s"))
        * 0.5
    )
    energy = (
        whole.select("run", "time_s", delivered_ws=trapezoid_ws)
        .filter(pl.col("time_s") <= until)
        .group_by("run")
        .agg(energy_to_cutoff_Wh=pl.col("delivered_ws").sum() * _WH)
    )
    return cutoff.drop("cutoff_s").join(energy, on="run", how="left")


def _voltage_at(loaded: pl.DataFrame, seconds: float) -> pl.DataFrame:
    """Voltage at a fixed time after the first loaded sample, per run that is loaded then."""
    since, after = pl.col("load_s"), pl.col("load_after_s")
    voltage, voltage_after = pl.col("voltage_v"), pl.col("voltage_after_v")
    gap = after - since
    between = voltage + (voltage_after - voltage) * ((seconds - since) / gap)
    reached = (since <= seconds) & ((after > seconds) | (after.is_null() & (since == seconds)))
    return loaded.filter(reached).select(
        "run",
        pl.when(since == seconds)
        .then(voltage)
        .when(gap <= MAX_GAP_S)
        .then(between)
        .alias(f"voltage_V_{seconds:.0f}s"),
    )


def _slope(loaded: pl.DataFrame, name: str, window_s: tuple[float, float]) -> pl.DataFrame:
    """Least-squares slope of the voltage over a window of time, per run that has samples there."""
    since = pl.col("load_s")
    spread = since.var(ddof=0)
    slope = pl.cov(since, pl.col("voltage_v"), ddof=0) / spread
    return (
        loaded.filter(since.is_between(*window_s, closed="left"))
        .group_by("run")
        .agg(
            pl.when(spread > 0.0)
            .then(slope * _MV_PER_MIN)
            .alias(f"voltage_slope_{name}_mV_per_min")
        )
    )


DISCHARGE_PHYSICS: Final = FeatureView(
    name="discharge_physics",
    version=1,
    kind="discharge",
    features=SUMMARY + PHYSICS,
    compute=compute,
)
