"""Another cooling, another software, new vehicles: told from sensors, seasons, routes and age."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import polars as pl
import pytest

from batteryops.features.views import feature_table, get_view
from batteryops.monitoring.causes import explain
from batteryops.monitoring.changes import SOFTWARE, THERMAL, departure
from batteryops.monitoring.context import Context
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import DriftReport, detect
from batteryops.monitoring.pairs import Pair, Sample
from batteryops.monitoring.reference import Reference
from batteryops.telemetry.fleet_plan import Climate, FleetPlan
from batteryops.telemetry.scenario import (
    Event,
    NewChemistry,
    RouteChange,
    ThermalManagement,
    Winter,
)
from batteryops.telemetry.simulator import simulate_fleet

VIEW = get_view("discharge_summary")
NAMES = list(VIEW.names)
CHANGES_AT = 60
"""Operations (two for each discharge) of each vehicle that the reference has."""

DAY = 30 * 1.4
SEEDS = (3, 4)
RNG = np.random.default_rng(6)


def plan(
    seed: int, chemistry_shares: dict[str, float] | None = None, vehicles: int = 40
) -> FleetPlan:
    return FleetPlan(
        n_vehicles=vehicles,
        n_cycles=60,
        seed=seed,
        chemistry_shares=chemistry_shares or {"NMC": 1.0},
        climate=Climate(seasonal_c=0.0),
        c_rate=(0.5, 1.0),
        mean_days_between=1.4,
        rest_s=(885.0, 915.0),
    )


@cache
def fleet(seed: int, events: Sequence[Event] = ()) -> pl.DataFrame:
    """Rows of forty vehicles, a few of which change a little sooner or later than the others."""
    return feature_table(VIEW, simulate_fleet(plan(seed), events))


def before(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("op_index") <= CHANGES_AT - 12)


def after(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("op_index") > CHANGES_AT + 12)


def compare(reference: pl.DataFrame, current: pl.DataFrame) -> DriftReport:
    fitted = Reference.fit(reference, NAMES)
    counts = Counts.of(fitted, current)
    return explain(fitted, counts, detect(fitted, counts), sentinels=(-999.0,))


def causes(report: DriftReport) -> dict[str, str | None]:
    return {
        name: found.cause
        for name, found in report.features.items()
        if found.status in {"warning", "alert"}
    }


def later(seed: int, *events: Event) -> dict[str, str | None]:
    """What the later rows drift for, to which this happened."""
    return causes(compare(before(fleet(seed)), after(fleet(seed, events))))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("factor", [2.5, 0.4])
def test_another_cooling_is_named(seed: int, factor: float) -> None:
    named = later(seed, ThermalManagement(DAY, factor))
    assert named["delta_T_C"] == THERMAL
    assert not any("sensor_fault" in str(cause) for cause in named.values())
    assert "new_chemistry" not in named.values()


@pytest.mark.parametrize("seed", SEEDS)
def test_winter_and_another_route_are_no_cooling_and_no_software(seed: int) -> None:
    winter = later(seed, Winter(DAY - 14.0, days=300.0))
    assert winter["temperature_C_mean"] == "climate"
    route = later(seed, RouteChange(DAY, (0.8, 1.5)))
    assert route["current_A_mean"] == "operating_mode"
    for named in (winter, route):
        assert not {THERMAL, SOFTWARE} & {*named.values()}
        assert not any("sensor_fault" in str(cause) for cause in named.values())


def test_a_warmer_record_under_more_load_is_no_thermometer_that_reads_wrong() -> None:
    named = later(3, RouteChange(DAY, (0.8, 1.5)))
    assert named["temperature_C_max"] == "operating_mode"
    assert named.get("temperature_C_mean", "operating_mode") == "operating_mode"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_time_that_steps_in_all_assets_is_the_software(seed: int) -> None:
    reference, rows = before(fleet(seed)), after(fleet(seed))
    without_rest = rows.with_columns(pl.col("discharge_time_s") - 900.0)
    report = compare(reference, without_rest)
    assert causes(report) == {"discharge_time_s": SOFTWARE}
    assert report.retraining_wanted == ("discharge_time_s",)
    assert "in 100% of the rows" in report.features["discharge_time_s"].evidence


@pytest.mark.parametrize("in_ten", [3, 6])
def test_a_time_that_steps_in_some_assets_is_none(in_ten: int) -> None:
    reference, rows = before(fleet(3)), after(fleet(3))
    some = pl.col("asset_id").str.slice(-1).cast(pl.Int64) < in_ten
    time = pl.col("discharge_time_s")
    broken = rows.with_columns(discharge_time_s=pl.when(some).then(time - 1500.0).otherwise(time))
    assert SOFTWARE not in causes(compare(reference, broken)).values()


def test_a_time_that_stepped_in_assets_of_which_nobody_knows_when_is_none() -> None:
    reference, rows = before(fleet(3)), after(fleet(3))
    turned = rows.with_columns(pl.col("discharge_time_s") - 900.0, op_index=-pl.col("op_index"))
    assert causes(compare(reference, turned))["discharge_time_s"] == "sensor_fault: offset"


@pytest.mark.parametrize(
    "broken",
    [
        lambda rows: rows.with_columns(pl.col("temperature_C_mean", "temperature_C_max") + 5.0),
        lambda rows: rows.with_columns(pl.col("delta_T_C") + 3.0),
        lambda rows: rows.with_columns(pl.col("voltage_V_mean") - 0.1),
    ],
    ids=["a thermometer", "a rise", "a voltmeter"],
)
def test_a_constant_error_of_a_sensor_stays_one(
    broken: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    named = causes(compare(before(fleet(3)), broken(after(fleet(3)))))
    assert {*named.values()} == {"sensor_fault: offset"}


def test_cooling_and_software_are_named_beside_each_other() -> None:
    rows = after(fleet(3, (ThermalManagement(DAY),)))
    named = causes(compare(before(fleet(3)), rows.with_columns(pl.col("discharge_time_s") - 900.0)))
    assert named["discharge_time_s"] == SOFTWARE
    assert named["delta_T_C"] == THERMAL


@cache
def mixed(seed: int, events: Sequence[Event]) -> pl.DataFrame:
    shares = {"NMC": 0.7, "LFP": 0.3}
    return feature_table(VIEW, simulate_fleet(plan(seed, shares), events))


@pytest.mark.parametrize("seed", SEEDS)
def test_vehicles_that_join_are_compared_with_the_others_of_the_day(seed: int) -> None:
    joined = (NewChemistry(DAY),)
    reference = before(mixed(seed, joined))
    assert not reference["asset_id"].str.starts_with("EV-LFP").any()
    named = causes(compare(reference, after(mixed(seed, joined))))
    assert {*named.values()} == {"new_chemistry"}
    in_winter = after(mixed(seed, (*joined, Winter(DAY - 14.0, days=300.0))))
    named = causes(compare(reference, in_winter))
    assert named["temperature_C_mean"] == "climate"
    assert "new_chemistry" in named.values()
    assert not any("sensor_fault" in str(cause) for cause in named.values())


def test_a_fleet_with_more_vehicles_than_a_sample_holds_is_not_taken_for_strangers() -> None:
    """A reference of long lives holds 64 of them; nothing follows of the others."""
    rows = pl.concat(
        fleet(3).with_columns(pl.col("asset_id") + f"-{copy}") for copy in range(8)
    ).with_columns(
        pl.col(name) + pl.Series(RNG.normal(0.0, 1e-3, 8 * fleet(3).height)) for name in NAMES
    )
    reference = Reference.fit(rows, NAMES)
    assert reference.context is not None
    assert reference.assets == 320
    counts = Counts.of(reference, rows.filter(pl.col("op_index") > 110))
    assert counts.context is not None
    names, sampled = reference.context.names, reference.context.assets.height
    old, new = (Sample.of(side, names) for side in (reference.context, counts.context))
    pair = Pair(names, old, new, by_asset=True, complete=False)
    assert sampled < 320
    assert pair.known_assets == 1.0
    assert not pair.is_new.any()


def numbers(rows: int, step: float, seed: int) -> Sample:
    """Ten assets whose y is twice their x, and a step; and half of the noise is of the asset."""
    rng = np.random.default_rng(seed)
    assets = np.arange(rows, dtype=np.uint32) % 10
    x = rng.uniform(0.0, 10.0, rows)
    noise = np.random.default_rng(0).normal(0.0, 0.1, 10)[assets] + rng.normal(0.0, 0.1, rows)
    values = np.column_stack([x, 2.0 * x + step + noise])
    return Sample(values, np.ones(rows), assets, np.arange(rows, dtype=np.float64))


def test_a_departure_is_the_step_from_what_rows_should_be() -> None:
    pair = Pair(("x", "y"), numbers(2000, 0.0, 1), numbers(500, -1.0, 2), by_asset=True)
    found = departure(pair, 1, *(side[:, :1] for side in pair.scaled))
    assert found is not None
    assert found.is_step
    assert found.typical == pytest.approx(-1.0, abs=0.05)
    assert found.usual == pytest.approx(0.1 * np.sqrt(2.0), rel=0.15)
    assert (found.alike, found.covered, found.assets) == (1.0, 1.0, 10)


def test_rows_unlike_all_of_the_reference_say_nothing() -> None:
    far = numbers(500, -1.0, 2)
    far = Sample(far.values + 100.0, far.weights, far.assets, far.order)
    pair = Pair(("x", "y"), numbers(2000, 0.0, 1), far, by_asset=True)
    axes = pair.before.values[:, :1], pair.after.values[:, :1]
    assert departure(pair, 1, *axes) is None


def test_a_handful_of_rows_says_nothing() -> None:
    pair = Pair(("x", "y"), numbers(40, 0.0, 1), numbers(500, -1.0, 2), by_asset=True)
    assert departure(pair, 1, *(side[:, :1] for side in pair.scaled)) is None


def test_a_sample_of_rows_without_assets_knows_none() -> None:
    context = Context.of({"x": np.arange(300.0)}, 300)
    sample = Sample.of(context, ("x",))
    assert Pair(("x",), sample, sample, by_asset=False).known_assets == 0.0
