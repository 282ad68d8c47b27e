"""Feature view `partial_window` v1: what a vehicle records without ever discharging fully.

One row per discharge, whose capacity is the label. Its features come from the last usable charge
since the previous discharge, from the rest between, and from the first 15 minutes of the load.
"""

from typing import Final

import polars as pl

from batteryops.features import charge_windows as charge
from batteryops.features import load_windows as load
from batteryops.features.charge_windows import charge_windows, window_name
from batteryops.features.discharge_physics import CUTOFF_V
from batteryops.features.load_windows import load_windows
from batteryops.features.runs import Runs, in_runs
from batteryops.features.view import Feature, FeatureView
from batteryops.schema import FEATURE_KEY

_HOURS: Final = 1.0 / 3600.0  # a factor, not a divisor: batteryops.features.runs says why

_BEFORE: Final = (
    "the charge is over before the discharge begins, and its windows are short of the whole "
    "charge that went in"
)
_STATE: Final = "a state before the load, without any charge that flowed"
_EARLY: Final = (
    f"at most the first {load.OBSERVED_S / 60:.0f} minutes of the load and nothing from where the "
    f"voltage falls below {load.FLOOR_V} V, {load.FLOOR_V - CUTOFF_V:.1f} V above the cutoff: the "
    "rest of the discharge, which decides the capacity, has not happened"
)
_VOLTAGE_WINDOW: Final = "charge between two voltages under load; partial discharge curves"

_CHARGE_GROWTHS: Final = (
    ("Ah", "charge", 0.0, 10.0, "charge that flowed"),
    ("s", "time", 0.0, 86_400.0, "time that passed"),
    ("Wh", "energy", 0.0, 40.0, "energy that flowed"),
)

CHARGE: Final = (
    Feature(
        name="charge_current_A",
        unit="A",
        low=0.0,
        high=20.0,
        meaning=(
            "level of the constant-current part: median of the charging current below "
            f"{charge.BELOW_LIMIT_V} V"
        ),
        source="definition; what the windows of the charge are to be read against",
        optional=True,
        why_safe="a setting of the charger",
    ),
    *(
        Feature(
            name=f"charge_{window_name(low_v, high_v)}_{unit}",
            unit=unit,
            low=low,
            high=high,
            meaning=(
                f"{what} while the voltage first rose from {low_v:.2f} to {high_v:.2f} V in the "
                "constant-current part; null where the charge began above"
            ),
            source="partial charging curves; trapezoidal rule, linear interpolation",
            optional=True,
            why_safe=_BEFORE,
            trend=1,
        )
        for low_v, high_v in charge.WINDOWS_V
        for unit, _, low, high, what in _CHARGE_GROWTHS
    ),
    *(
        Feature(
            name=f"cv_to_{name}_{unit}",
            unit=unit,
            low=low,
            high=high,
            meaning=(
                f"{what} from the start of the constant-voltage part until the current fell to "
                f"{share:.0%} of its constant level; null where it was stopped before"
            ),
            source="constant-voltage decay",
            optional=True,
            why_safe=_BEFORE,
        )
        for name, share in (("half", charge.HALF_SHARE), ("fifth", charge.FIFTH_SHARE))
        for unit, _, low, high, what in _CHARGE_GROWTHS[:2]
    ),
    Feature(
        name="cv_time_constant_s",
        unit="s",
        low=0.0,
        high=86_400.0,
        meaning=(
            "time in which the current of the constant-voltage part fell from 2/3 to 1/5 of its "
            "constant level, over ln(10/3)"
        ),
        source="exponential decay: I = I0 exp(-t / tau)",
        optional=True,
        why_safe=_BEFORE,
    ),
    Feature(
        name="ic_peak_V",
        unit="V",
        low=3.0,
        high=4.5,
        meaning=(
            "voltage of the incremental-capacity peak: middle of the "
            f"{charge.IC_WIDTH_V * 1000:.0f} mV in which most charge flowed, between "
            f"{charge.IC_RANGE_V[0]} and {charge.IC_RANGE_V[1]} V; null where it lies at the end "
            "of what was recorded"
        ),
        source="incremental capacity analysis, dQ/dV",
        optional=True,
        why_safe=_BEFORE,
    ),
    Feature(
        name="ic_peak_Ah_per_V",
        unit="Ah/V",
        low=0.0,
        high=200.0,
        meaning=(
            f"height of that peak: the charge in its {charge.IC_WIDTH_V * 1000:.0f} mV over these"
        ),
        source="incremental capacity analysis, dQ/dV",
        optional=True,
        why_safe=_BEFORE,
        trend=1,
    ),
    Feature(
        name="ic_peak_area_Ah",
        unit="Ah",
        low=0.0,
        high=10.0,
        meaning=f"charge that flowed within {charge.IC_AREA_HALF_V * 1000:.0f} mV of that peak",
        source="incremental capacity analysis, dQ/dV",
        optional=True,
        why_safe=_BEFORE,
        trend=1,
    ),
    Feature(
        name="charge_temperature_rise_K",
        unit="K",
        low=-40.0,
        high=60.0,
        meaning=(
            "by how much the cell warmed while the charge's voltage rose from "
            f"{charge.WARMING_V[0]:.2f} to {charge.WARMING_V[1]:.2f} V"
        ),
        source="difference",
        optional=True,
        why_safe="a temperature, over before the discharge begins",
    ),
    Feature(
        name="relaxation_V",
        unit="V",
        low=-0.5,
        high=1.0,
        meaning=(
            "voltage of the charge's last charging sample minus that of the last sample before "
            "the load"
        ),
        source="difference",
        optional=True,
        why_safe=_STATE,
    ),
    Feature(
        name="rest_before_h",
        unit="h",
        low=0.0,
        high=20_000.0,
        meaning="time from the last sample of the charge's record to the start of the discharge's",
        source="cycle table",
        optional=True,
        why_safe=_STATE,
    ),
)

LOAD: Final = (
    Feature(
        name="rest_voltage_V",
        unit="V",
        low=0.0,
        high=5.0,
        meaning="voltage of the last sample before the load",
        source="definition",
        optional=True,
        why_safe=_STATE,
    ),
    Feature(
        name="start_temperature_C",
        unit="degC",
        low=-40.0,
        high=70.0,
        meaning="temperature of the last sample before the load",
        source="definition",
        optional=True,
        why_safe=_STATE,
    ),
    Feature(
        name="ambient_temperature_C",
        unit="degC",
        low=-40.0,
        high=60.0,
        meaning="ambient temperature that the publisher states for the cycle",
        source="cycle table",
        optional=True,
        why_safe="weather",
    ),
    Feature(
        name="load_current_A",
        unit="A",
        low=-20.0,
        high=0.0,
        meaning="plain mean of the current over loaded samples of the first 5 minutes",
        source="definition",
        optional=True,
        why_safe="what the driver asks for; without a duration it holds no charge",
    ),
    Feature(
        name="load_current_A_mean",
        unit="A",
        low=-20.0,
        high=0.0,
        meaning=(
            "mean over time of the current of the first 5 minutes, the rests of a pulsed load "
            "included: delivered charge over time"
        ),
        source="trapezoidal rule",
        optional=True,
        why_safe="what the driver asks for; without a duration it holds no charge",
    ),
    Feature(
        name="ohmic_step_ohm",
        unit="ohm",
        low=0.0,
        high=2.0,
        meaning=(
            "voltage of the last sample before the load minus that of the first loaded sample, "
            "over the change of the current; includes what polarises until that sample"
        ),
        source="Ohm's law; the voltage step at the onset of a current pulse",
        optional=True,
        why_safe=_EARLY,
        trend=-1,
    ),
    *(
        Feature(
            name=f"voltage_V_{seconds:.0f}s",
            unit="V",
            low=0.0,
            high=5.0,
            meaning=f"voltage {seconds:.0f} s after the first loaded sample",
            source="linear interpolation between loaded samples",
            optional=True,
            why_safe=_EARLY,
            trend=1,
        )
        for seconds in load.FIXED_TIMES_S
    ),
    *(
        Feature(
            name=f"warming_{seconds:.0f}s_K_per_min",
            unit="K/min",
            low=-5.0,
            high=20.0,
            meaning=f"rise of the temperature in the first {seconds:.0f} s of the load, per minute",
            source="difference quotient",
            optional=True,
            why_safe=_EARLY,
        )
        for seconds in load.WARMING_S
    ),
    Feature(
        name=f"discharge_to_{load.FIRST_V:.2f}_V_Ah",
        unit="Ah",
        low=0.0,
        high=10.0,
        meaning=(
            f"charge delivered from the first loaded sample until {load.FIRST_V:.2f} V; null where "
            "that one is below"
        ),
        source=_VOLTAGE_WINDOW,
        optional=True,
        why_safe=_EARLY,
        trend=1,
    ),
    *(
        Feature(
            name=f"discharge_{window_name(high_v, low_v)}_{unit}",
            unit=unit,
            low=low,
            high=high,
            meaning=(
                f"{what} while the voltage of loaded samples first fell from {high_v:.2f} to "
                f"{low_v:.2f} V; null where it began below or did not get there in time"
            ),
            source=_VOLTAGE_WINDOW,
            optional=True,
            why_safe=_EARLY,
            trend=1,
        )
        for high_v, low_v in load.WINDOWS_V
        for unit, _, low, high, what in _CHARGE_GROWTHS[:2]
    ),
)


def compute(samples: pl.DataFrame, cycles: pl.DataFrame) -> pl.DataFrame:
    """The features of every discharge among `samples`; `FeatureView` has the contract."""
    runs = in_runs(samples, "discharge")
    table = runs.table(*load_windows(runs))
    started = cycles.select(
        "asset_id",
        pl.col("cycle_index").alias("op_index"),
        "started_at",
        pl.col("ambient_temperature_c").alias("ambient_temperature_C"),
    )
    charges = charge_windows(samples).join(
        started.drop("ambient_temperature_C"), on=FEATURE_KEY, how="left"
    )
    rest_s = (pl.col("started_at") - pl.col("charge_started_at")).dt.total_microseconds() * 1e-6
    rest_h = (rest_s - pl.col("record_end_s")) * _HOURS
    return (
        table.join(started, on=FEATURE_KEY, how="left", maintain_order="left")
        .join(_charge_of(runs, cycles, charges), on=FEATURE_KEY, how="left", maintain_order="left")
        .with_columns(
            relaxation_V=pl.col("last_charging_v") - pl.col("rest_voltage_V"),
            rest_before_h=pl.when(rest_h >= 0.0).then(rest_h),
        )
        .select(*FEATURE_KEY, *PARTIAL_WINDOW.names)
    )


def _charge_of(runs: Runs, cycles: pl.DataFrame, charges: pl.DataFrame) -> pl.DataFrame:
    """Beside each discharge the last usable charge since the previous one, where there is one."""
    listed = cycles.filter(pl.col("kind") == "discharge").select(
        "asset_id", pl.col("cycle_index").alias("op_index")
    )
    discharges = (
        pl.concat([listed, runs.keys.select(FEATURE_KEY)])
        .unique()
        .sort(FEATURE_KEY)
        .with_columns(previous=pl.col("op_index").shift().over("asset_id"))
    )
    return (
        discharges.join_asof(
            charges.rename({"started_at": "charge_started_at"})
            .with_columns(charge_index="op_index")
            .sort(FEATURE_KEY),
            on="op_index",
            by="asset_id",
            check_sortedness=False,  # sorted within each asset
        )
        .filter(pl.col("charge_index") > pl.col("previous").fill_null(0))
        .drop("previous", "charge_index")
    )


PARTIAL_WINDOW: Final = FeatureView(
    name="partial_window",
    version=1,
    kind="discharge",
    needs=("charge",),
    features=CHARGE + LOAD,
    compute=compute,
    leak_free=True,
)
