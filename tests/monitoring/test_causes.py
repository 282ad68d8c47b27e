"""Causes of drift: each that is planted is named, on simulated fleets and on real measurements."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteryops.features.views import feature_table, get_view
from batteryops.monitoring.causes import explain
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import DriftReport, detect
from batteryops.monitoring.reference import Reference
from batteryops.schema import Recording
from batteryops.telemetry.fleet_plan import Climate, FleetPlan
from batteryops.telemetry.simulator import simulate_fleet

VIEW = get_view("discharge_summary")
NAMES = list(VIEW.names)
TEMPERATURES = ["temperature_C_mean", "temperature_C_max"]
SENTINELS = (-1000.0, -999.0, 511.0, 65535.0)
PLAN = FleetPlan(n_vehicles=40, n_cycles=60, seed=1)
OTHERS = replace(PLAN, seed=2)
RNG = np.random.default_rng(50)


@cache
def simulated(plan_name: str) -> Recording:
    return simulate_fleet(PLANS[plan_name])


@cache
def fleet(plan_name: str) -> pl.DataFrame:
    return feature_table(VIEW, simulated(plan_name))


PLANS = {
    "reference": PLAN,
    "others": OTHERS,
    "winter": replace(OTHERS, climate=Climate(mean_c=2.0)),
    "heat": replace(OTHERS, climate=Climate(mean_c=36.0)),
    "highway": replace(OTHERS, c_rate=(1.5, 2.5)),
    "city": replace(OTHERS, c_rate=(0.5, 0.8)),
    "LFP": replace(OTHERS, chemistry_shares={"LFP": 1.0}),
    "a third LFP": replace(OTHERS, chemistry_shares={"NMC": 0.7, "LFP": 0.3}),
    "long lives": replace(PLAN, n_cycles=220, mean_days_between=14.0, age_days=(0.0, 600.0)),
}


@cache
def reference(predicted: str | None = None) -> Reference:
    table = fleet("reference")
    return Reference.fit(table, NAMES, predictions=table[predicted] if predicted else None)


def compare(before: Reference, after: pl.DataFrame, predicted: str | None = None) -> DriftReport:
    counts = Counts.of(before, after, predictions=after[predicted] if predicted else None)
    report = detect(before, counts)
    return explain(before, counts, report, sentinels=SENTINELS)


def causes(report: DriftReport) -> dict[str, str | None]:
    """The cause of every feature that drifts."""
    return {
        name: found.cause
        for name, found in report.features.items()
        if found.status in {"warning", "alert"}
    }


def test_what_does_not_drift_has_no_cause() -> None:
    report = compare(reference(), fleet("others"))
    assert report.verdict == "OK"
    assert {found.cause for found in report.features.values()} == {None}


@pytest.mark.parametrize("predicted", [None, "capacity_ah"])
@pytest.mark.parametrize(
    ("plan", "cause", "feature"),
    [
        ("winter", "climate", "temperature_C_mean"),
        ("heat", "climate", "temperature_C_mean"),
        ("highway", "operating_mode", "current_A_mean"),
        ("city", "operating_mode", "current_A_mean"),
        ("LFP", "new_chemistry", "voltage_V_mean"),
        ("a third LFP", "new_chemistry", "voltage_V_mean"),
    ],
)
def test_what_changed_around_a_fleet_is_named(
    plan: str, cause: str, feature: str, predicted: str | None
) -> None:
    report = compare(reference(predicted), fleet(plan), predicted)
    named = causes(report)
    assert report.verdict == "ALERT"
    assert named[feature] == cause
    assert [*named.values()].count(cause) >= 0.75 * len(named)
    assert not any("sensor_fault" in str(other) for other in named.values())


@pytest.mark.parametrize("predicted", [None, "capacity_ah"])
def test_a_fleet_that_only_grew_older_is_as_expected(predicted: str | None) -> None:
    lives = fleet("long lives").sort("asset_id", "op_index")
    by_vehicle = lives.group_by("asset_id", maintain_order=True)
    first, last = by_vehicle.head(110), by_vehicle.tail(60)
    before = Reference.fit(first, NAMES, predictions=first[predicted] if predicted else None)
    report = compare(before, last, predicted)
    assert report.features["discharge_time_s"].status == "alert"
    assert {*causes(report).values()} == {"ageing"}
    assert (report.verdict, report.retraining_wanted) == ("OK", ())
    if predicted:
        assert report.prediction is not None
        assert (report.prediction.status, report.prediction.cause) == ("alert", "ageing")


def test_what_looks_older_in_an_earlier_life_is_no_ageing() -> None:
    lives = fleet("long lives").sort("asset_id", "op_index")
    by_vehicle = lives.group_by("asset_id", maintain_order=True)
    turned = by_vehicle.tail(60).with_columns(op_index=-pl.col("op_index"))
    report = compare(Reference.fit(by_vehicle.head(110), NAMES), turned)
    assert report.verdict == "ALERT"
    assert "ageing" not in causes(report).values()


def on(column: str, by: Callable[[pl.Expr], pl.Expr]) -> pl.DataFrame:
    return fleet("others").with_columns(by(pl.col(column)))


def some(share: float, column: str, value: float | None) -> pl.DataFrame:
    """A share of the rows has another value."""
    rows = fleet("others")
    struck = pl.Series(RNG.random(rows.height) < share)
    return rows.with_columns(pl.when(struck).then(value).otherwise(column).alias(column))


def a_third(column: str, by: Callable[[pl.Expr], pl.Expr]) -> pl.DataFrame:
    """Every third vehicle has it."""
    rows = fleet("others")
    struck = pl.col("asset_id").is_in(rows["asset_id"].unique().sort()[::3].implode())
    return rows.with_columns(
        pl.when(struck).then(by(pl.col(column))).otherwise(column).alias(column)
    )


def sticks(column: str) -> pl.DataFrame:
    """From early in its life on every vehicle repeats a value of its own."""
    late = pl.int_range(pl.len()).over("asset_id") >= 10
    last = pl.col(column).last().over("asset_id")
    return fleet("others").with_columns(pl.when(late).then(last).otherwise(column).alias(column))


FAULTS: dict[str, tuple[str, str, Callable[[], pl.DataFrame]]] = {
    "thousandths": ("voltage_V_mean", "unit", lambda: on("voltage_V_mean", lambda x: x * 1000)),
    "a third in thousandths": (
        "voltage_V_mean",
        "unit",
        lambda: a_third("voltage_V_mean", lambda x: x * 1000),
    ),
    "milliamperes": ("current_A_mean", "unit", lambda: on("current_A_mean", lambda x: x * 1000)),
    "turned sign": ("current_A_mean", "unit", lambda: on("current_A_mean", lambda x: -x)),
    "minutes": ("discharge_time_s", "unit", lambda: on("discharge_time_s", lambda x: x / 60)),
    "hours": ("discharge_time_s", "unit", lambda: on("discharge_time_s", lambda x: x / 3600)),
    "kelvin": (
        "temperature_C_mean",
        "unit",
        lambda: fleet("others").with_columns(pl.col(TEMPERATURES) + 273.15),
    ),
    "fahrenheit": (
        "temperature_C_mean",
        "unit",
        lambda: fleet("others").with_columns(pl.col(TEMPERATURES) * 1.8 + 32),
    ),
    "a mark": ("current_A_mean", "sentinel", lambda: some(0.3, "current_A_mean", -1000.0)),
    "infinite": ("current_A_mean", "sentinel", lambda: some(0.3, "current_A_mean", np.inf)),
    "one value": ("voltage_V_mean", "stuck", lambda: some(0.3, "voltage_V_mean", 3.7)),
    "one value always": ("voltage_V_mean", "stuck", lambda: some(1.0, "voltage_V_mean", 3.5)),
    "own values": ("temperature_C_mean", "stuck", lambda: sticks("temperature_C_mean")),
    "too warm": (
        "temperature_C_mean",
        "offset",
        lambda: fleet("others").with_columns(pl.col(TEMPERATURES) + 5),
    ),
    "one too warm": (
        "temperature_C_mean",
        "offset",
        lambda: on("temperature_C_mean", lambda x: x + 3),
    ),
    "a third too warm": (
        "temperature_C_mean",
        "offset",
        lambda: a_third("temperature_C_mean", lambda x: x + 12),
    ),
    "volts": ("voltage_V_mean", "offset", lambda: on("voltage_V_mean", lambda x: x - 0.06)),
    "amperes": ("current_A_mean", "offset", lambda: on("current_A_mean", lambda x: x + 0.5)),
    "late": ("discharge_time_s", "offset", lambda: on("discharge_time_s", lambda x: x + 900)),
    "lost": ("delta_T_C", "missing", lambda: some(0.4, "delta_T_C", None)),
    "lost wholly": ("delta_T_C", "missing", lambda: fleet("others").drop("delta_T_C")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_sensors_are_named(fault: str) -> None:
    feature, kind, broken = FAULTS[fault]
    report = compare(reference(), broken())
    assert report.verdict == "ALERT"
    assert report.features[feature].cause == f"sensor_fault: {kind}"
    assert {*causes(report).values()} <= {f"sensor_fault: {kind}"}
    assert report.retraining_wanted == ()


def test_a_thermometer_that_reads_too_warm_in_every_sample_is_an_offset() -> None:
    recording = simulated("others")
    warmer = recording.samples.with_columns(pl.col("temperature_c") + 6.0)
    report = compare(reference(), feature_table(VIEW, replace(recording, samples=warmer)))
    assert {*causes(report)} == {*TEMPERATURES}
    assert {*causes(report).values()} == {"sensor_fault: offset"}


def test_a_voltmeter_that_reads_too_low_is_an_offset_and_no_new_chemistry() -> None:
    # the same vehicles: a battery is not changed overnight in all of them
    recording = simulated("reference")
    lower = recording.samples.with_columns(pl.col("voltage_v") - 0.1)
    report = compare(reference(), feature_table(VIEW, replace(recording, samples=lower)))
    assert causes(report)["voltage_V_mean"] == "sensor_fault: offset"
    assert {*causes(report).values()} == {"sensor_fault: offset"}


def test_a_fault_in_winter_is_told_beside_the_winter() -> None:
    broken = fleet("winter").with_columns(pl.col("voltage_V_mean") * 1000)
    named = causes(compare(reference(), broken))
    assert named["voltage_V_mean"] == "sensor_fault: unit"
    assert named["temperature_C_mean"] == "climate"
    assert named["delta_T_C"] == "climate"


def test_predictions_drift_for_what_their_features_drift_for() -> None:
    table = fleet("reference")
    before = Reference.fit(table, NAMES, predictions=table["discharge_time_s"] / 1800)
    after = fleet("highway")
    counts = Counts.of(before, after, predictions=after["discharge_time_s"] / 1800)
    report = explain(before, counts, detect(before, counts))
    assert report.prediction is not None
    assert (report.prediction.status, report.prediction.cause) == ("alert", "operating_mode")


def test_without_a_sample_the_cause_is_unknown_and_says_why() -> None:
    document = reference().to_json() | {"context": None}
    report = compare(Reference.from_json(document), fleet("winter"))
    assert {*causes(report).values()} == {"unknown"}
    assert "no sample" in report.features["voltage_V_mean"].evidence


def test_features_that_nobody_knows_are_explained_as_far_as_can_be() -> None:
    before = pl.DataFrame({f"x{n}": RNG.normal(size=500) for n in range(3)})
    report = compare(Reference.fit(before, before.columns), before.with_columns(pl.col("x1") + 1))
    assert causes(report) == {"x1": "sensor_fault: offset"}
    wider = before.with_columns(pl.col("x1") * 3)
    assert causes(compare(Reference.fit(before, before.columns), wider)) == {"x1": "unknown"}


def test_a_report_with_causes_is_plain_json() -> None:
    report = compare(reference("capacity_ah"), fleet("winter"), "capacity_ah")
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["features"]["temperature_C_mean"]["cause"] == "climate"
    assert "the others followed" in told["features"]["temperature_C_mean"]["evidence"]


STRANGE = st.sampled_from([0.0, -1.8, 3.5, 25.0, 1e300, -1e300, np.inf, -np.inf, np.nan, -1000.0])


@settings(max_examples=15)
@given(
    rows=st.lists(st.tuples(STRANGE, STRANGE, STRANGE, STRANGE), min_size=120, max_size=140),
    strange_reference=st.booleans(),
    by_asset=st.booleans(),
)
def test_nothing_that_comes_breaks_it(
    *, rows: list[tuple[float, ...]], strange_reference: bool, by_asset: bool
) -> None:
    names = ["voltage_V_mean", "current_A_mean", "temperature_C_mean", "discharge_time_s"]
    odd = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Float64), orient="row")
    sound = fleet("reference").select(*names, *(["asset_id", "op_index"] if by_asset else []))[:500]
    if by_asset:
        odd = odd.with_columns(asset_id=pl.lit("EV-0001"), op_index=pl.int_range(pl.len()))
    before, after = (odd, sound) if strange_reference else (sound, odd)
    report = compare(Reference.fit(before, names), after)
    assert all(found.cause for found in report.features.values() if found.status == "alert")


def nasa(data_folder: Path) -> pl.DataFrame:
    table = pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv")
    return table.rename({"battery_id": "asset_id", "cycle": "op_index"})


@pytest.mark.data
@pytest.mark.parametrize("predicted", [None, "capacity"])
def test_the_first_and_the_last_fifty_cycles_of_nasa_cells_differ_by_age(
    data_folder: Path, predicted: str | None
) -> None:
    cells = nasa(data_folder).filter(pl.col("asset_id").is_in(["B0005", "B0006", "B0007"]))
    by_cell = cells.sort("asset_id", "op_index").group_by("asset_id", maintain_order=True)
    first, last = by_cell.head(50), by_cell.tail(50)
    before = Reference.fit(first, NAMES, predictions=first[predicted] if predicted else None)
    report = compare(before, last, predicted)
    assert {found.status for found in report.features.values()} == {"alert"}
    assert {found.cause for found in report.features.values()} == {"ageing"}
    assert (report.verdict, report.retraining_wanted) == ("OK", ())


@pytest.mark.data
@pytest.mark.parametrize("sign", [1, -1], ids=["as published", "sign turned"])
def test_trips_of_packs_are_another_kind_of_battery_than_nasa_cells(
    data_folder: Path, sign: int
) -> None:
    trips = pl.read_parquet(data_folder / "source_system" / "chengdu_trip_features.parquet").select(
        asset_id="vehicle_id",
        op_index="trip_id",
        voltage_V_mean="voltage_mean",
        current_A_mean=sign * pl.col("current_mean"),
        temperature_C_mean="mean_max_temp",
        temperature_C_max="max_temp",
        discharge_time_s="duration_s",
        delta_T_C="delta_temp",
        voltage_drop_time_s="voltage_drop_time_s",
    )
    report = compare(Reference.fit(nasa(data_folder), NAMES), trips)
    assert report.verdict == "ALERT"
    assert {found.cause for found in report.features.values()} == {"new_chemistry"}
