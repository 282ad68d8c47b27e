"""Simulated fleets: canonical, deterministic, consistent with their labels, and worth learning."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import SeedSequence, default_rng

from batteryops.errors import DataError
from batteryops.schema import CYCLES, SAMPLES, Recording
from batteryops.telemetry.chemistry import CHEMISTRIES
from batteryops.telemetry.fleet import live, vehicles
from batteryops.telemetry.fleet_plan import Climate, FleetPlan, SensorNoise, Variation
from batteryops.telemetry.simulator import simulate_chunks, simulate_fleet

SMALL = FleetPlan(n_vehicles=3, n_cycles=6)
MIXED = replace(SMALL, n_vehicles=5, chemistry_shares={"NMC": 0.6, "LFP": 0.4})
QUIET = SensorNoise(voltage_v=0.0, current_a=0.0, temperature_c=0.0, capacity_share=0.0)
ALIKE = Variation(capacity=0.0, resistance=0.0, ageing=0.0)
STEADY = Climate(seasonal_c=0.0, vehicle_spread_c=0.0, weather_spread_c=0.0)


def of_asset(recording: Recording, asset_id: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    this = pl.col("asset_id") == asset_id
    return recording.samples.filter(this), recording.cycles.filter(this)


def integral_to_cutoff_ah(cycle: pl.DataFrame, cutoff_v: float) -> float:
    """NASA's label: the trapezoids of -current up to the first sample below the cutoff."""
    end = int(np.argmax(cycle["voltage_v"].to_numpy() < cutoff_v)) + 1
    current = cycle["current_a"].to_numpy()[:end]
    return float(np.trapezoid(-current, cycle["time_s"].to_numpy()[:end])) / 3600.0


def test_a_recording_is_canonical_and_sorted() -> None:
    recording = simulate_fleet(replace(MIXED, record_charges=True))
    assert recording.samples.schema == SAMPLES
    assert recording.cycles.schema == CYCLES
    assert recording.samples.equals(recording.samples.sort("asset_id", "cycle_index", "time_s"))
    assert recording.cycles.equals(recording.cycles.sort("asset_id", "cycle_index"))
    assert recording.asset_ids == ["EV-0001", "EV-0002", "EV-0003", "EV-LFP-0001", "EV-LFP-0002"]
    counted = recording.samples.group_by("asset_id", "cycle_index").len("n")
    joined = recording.cycles.join(counted, on=["asset_id", "cycle_index"])
    assert joined["n_samples"].equals(joined["n"].cast(pl.Int64), check_names=False)
    assert recording.samples.null_count().sum_horizontal().item() == 0


def test_discharges_are_every_second_operation_whether_charges_are_recorded_or_not() -> None:
    without = simulate_fleet(SMALL)
    with_charges = simulate_fleet(replace(SMALL, record_charges=True))
    assert of_asset(without, "EV-0001")[1]["cycle_index"].to_list() == [2, 4, 6, 8, 10, 12]
    assert with_charges.cycles["kind"].to_list() == ["charge", "discharge"] * 18
    assert with_charges.samples.filter(pl.col("kind") == "discharge").equals(without.samples)
    charges = with_charges.cycles.filter(pl.col("kind") == "charge")
    assert charges["capacity_ah"].null_count() == len(charges)


def test_equal_plans_give_equal_recordings_and_another_seed_another_one() -> None:
    first, second = simulate_fleet(MIXED), simulate_fleet(MIXED)
    assert first.samples.equals(second.samples)
    assert first.cycles.equals(second.cycles)
    assert not simulate_fleet(replace(MIXED, seed=43)).cycles.equals(first.cycles)


def test_a_vehicle_lives_the_same_life_in_a_larger_fleet() -> None:
    small = simulate_fleet(MIXED)
    large = simulate_fleet(replace(MIXED, n_vehicles=11))
    for asset_id in small.asset_ids:
        for some, more in zip(of_asset(small, asset_id), of_asset(large, asset_id), strict=True):
            assert some.equals(more)


def test_the_first_cycles_do_not_depend_on_how_many_follow() -> None:
    early = pl.col("cycle_index") <= 12
    longer = simulate_fleet(replace(SMALL, n_cycles=9))
    assert longer.samples.filter(early).equals(simulate_fleet(SMALL).samples)


def test_sensor_noise_does_not_change_what_happened() -> None:
    noisy = simulate_fleet(SMALL)
    quiet = simulate_fleet(replace(SMALL, noise=QUIET))
    assert noisy.samples["time_s"].equals(quiet.samples["time_s"])
    off_v = (noisy.samples["voltage_v"] - quiet.samples["voltage_v"]).to_numpy().std()
    assert off_v == pytest.approx(0.001, rel=0.2)


def test_a_vehicles_randomness_is_what_the_seed_sequence_spawns_for_it() -> None:
    spawned = SeedSequence(SMALL.seed).spawn(3)[2].spawn(5)
    streams = vehicles(SMALL)[2].streams(SMALL)
    for child, stream in zip(spawned, streams, strict=True):
        assert stream.random() == default_rng(child).random()


@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_chunks_together_are_the_fleet(size: int) -> None:
    chunks = list(simulate_chunks(MIXED, vehicles_per_chunk=size))
    whole = simulate_fleet(MIXED)
    assert pl.concat([chunk.samples for chunk in chunks]).equals(whole.samples)
    assert pl.concat([chunk.cycles for chunk in chunks]).equals(whole.cycles)
    assert max(len(chunk.asset_ids) for chunk in chunks) <= size


def test_a_chunk_without_vehicles_is_refused() -> None:
    with pytest.raises(DataError, match="vehicles_per_chunk is 0, expected 1 or more"):
        simulate_chunks(SMALL, vehicles_per_chunk=0)


def test_the_label_is_the_integral_of_the_samples_to_the_cutoff() -> None:
    recording = simulate_fleet(MIXED)
    for (asset_id, cycle_index), cycle in recording.samples.group_by("asset_id", "cycle_index"):
        chemistry = CHEMISTRIES["LFP" if "LFP" in str(asset_id) else "NMC"]
        label = recording.cycles.filter(
            (pl.col("asset_id") == asset_id) & (pl.col("cycle_index") == cycle_index)
        )["capacity_ah"].item()
        measured = integral_to_cutoff_ah(cycle.sort("time_s"), chemistry.discharge_cutoff_v)
        assert measured == pytest.approx(label, rel=5e-3)


def test_without_noise_the_label_is_the_integral_but_for_the_first_second() -> None:
    recording = simulate_fleet(replace(SMALL, noise=QUIET))
    samples, cycles = of_asset(recording, "EV-0001")
    cycle = samples.filter(pl.col("cycle_index") == 2)
    # half a second of current at the step is what trapezoids miss
    missed = 0.5 * -cycle["current_a"][1] / 3600.0
    label = cycles["capacity_ah"][0]
    assert integral_to_cutoff_ah(cycle, 2.7) + missed == pytest.approx(label, rel=1e-3)


def test_a_discharge_goes_on_into_a_rest_without_current_in_which_the_voltage_recovers() -> None:
    samples, _ = of_asset(simulate_fleet(SMALL), "EV-0001")
    cycle = samples.filter(pl.col("cycle_index") == 2)
    end = int(np.argmax(cycle["voltage_v"].to_numpy() < 2.7))
    tail = cycle[end + 1 :]
    assert (tail["current_a"].abs() < 0.03).all()
    assert (tail["voltage_v"] > 2.7).all()
    assert 300.0 - 25.0 <= cycle["time_s"][-1] - cycle["time_s"][end] <= 600.0 + 25.0


def test_capacity_fades_and_resistance_grows_over_a_vehicles_life() -> None:
    plan = replace(SMALL, n_cycles=40)
    lives = live(plan, vehicles(plan), CHEMISTRIES["NMC"])
    assert np.all(np.diff(lives.capacity_ah, axis=1) < 0.0)
    assert np.all(np.diff(lives.r0_ohm, axis=1) > 0.0)
    assert np.all(np.diff(lives.r1_ohm, axis=1) > 0.0)


def test_a_vehicle_of_one_use_in_a_steady_climate_fades_as_the_published_law_says() -> None:
    plan = replace(
        SMALL,
        variation=ALIKE,
        climate=STEADY,
        age_days=(1000.0, 1000.0),
        full_cycles_per_day=(0.3, 0.3),
        parked_soc=(0.5, 0.5),
        depth_of_discharge=(0.5, 0.5),
    )
    nmc = CHEMISTRIES["NMC"]
    lives = live(plan, vehicles(plan)[:1], nmc)
    days = 1000.0 + lives.day[0]
    throughput_ah = 2 * 2.05 * (0.3 * days + np.arange(6))
    volts = float(nmc.open_circuit(np.array(0.5)))
    alpha = (7.543 * volts - 23.75) * 1e6 * np.exp(-6976 / (plan.climate.mean_c + 273.15))
    beta = 7.348e-3 * (volts - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * 0.5
    kept = 1.0 - alpha * days**0.75 - beta * np.sqrt(throughput_ah)
    assert lives.capacity_ah[0] == pytest.approx(2.15 * kept, rel=1e-9)


@pytest.mark.parametrize(
    "worse",
    [
        {"age_days": (2500.0, 2500.0)},
        {"full_cycles_per_day": (0.9, 0.9)},
        {"climate": replace(STEADY, mean_c=30.0)},
    ],
    ids=["time", "throughput", "temperature"],
)
def test_with_other_things_equal_more_wear_leaves_less_capacity(worse: dict[str, object]) -> None:
    plan = replace(SMALL, climate=STEADY, age_days=(500.0, 500.0), full_cycles_per_day=(0.3, 0.3))
    nmc = CHEMISTRIES["NMC"]
    # mypy cannot follow which field a parameter of this test changes
    worn = replace(plan, **worse)  # type: ignore[arg-type]  # as said above
    base, after = live(plan, vehicles(plan), nmc), live(worn, vehicles(worn), nmc)
    assert np.all(after.capacity_ah < base.capacity_ah)
    assert np.all(after.r0_ohm > base.r0_ohm)


def test_a_cold_fleet_delivers_less_than_a_mild_one() -> None:
    new = replace(SMALL, age_days=(0.0, 0.0))
    cold = simulate_fleet(replace(new, climate=replace(STEADY, mean_c=0.0)))
    mild = simulate_fleet(replace(new, climate=replace(STEADY, mean_c=25.0)))
    assert (cold.cycles["capacity_ah"] < mild.cycles["capacity_ah"]).all()


def test_an_absurdly_long_and_hot_life_ends_at_the_least_capacity() -> None:
    plan = replace(
        SMALL,
        age_days=(7000.0, 7000.0),
        full_cycles_per_day=(10.0, 10.0),
        climate=replace(STEADY, mean_c=50.0),
        c_rate=(5.0, 5.0),
    )
    recording = simulate_fleet(plan)
    assert recording.cycles["capacity_ah"].is_between(0.0, 0.2 * 2.3).all()


def test_the_seasons_reach_the_recorded_ambient_temperature() -> None:
    plan = replace(SMALL, n_cycles=60, climate=Climate(vehicle_spread_c=0.0, weather_spread_c=0.0))
    cycles = simulate_fleet(plan).cycles
    summer = cycles.filter(pl.col("started_at").dt.month() == 7)["ambient_temperature_c"]
    winter = cycles.filter(pl.col("started_at").dt.month() == 1)["ambient_temperature_c"]
    assert summer.to_numpy() == pytest.approx(27.0, abs=0.6)
    assert winter.to_numpy() == pytest.approx(13.0, abs=0.6)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    interval_s=st.floats(2.0, 120.0),
    mean_c=st.floats(-5.0, 35.0),
    lfp=st.booleans(),
)
def test_any_fleet_stays_within_what_its_sensors_and_cells_allow(
    seed: int, interval_s: float, mean_c: float, *, lfp: bool
) -> None:
    chemistry = CHEMISTRIES["LFP" if lfp else "NMC"]
    plan = FleetPlan(
        n_vehicles=2,
        n_cycles=2,
        seed=seed,
        sample_interval_s=interval_s,
        climate=replace(STEADY, mean_c=mean_c),
        chemistry_shares={chemistry.name: 1.0},
    )
    samples = simulate_fleet(plan).samples
    assert (
        samples["voltage_v"]
        .is_between(chemistry.discharge_cutoff_v - 0.01, chemistry.charge_cutoff_v + 0.01)
        .all()
    )
    assert samples["current_a"].is_between(-2.0 * chemistry.nominal_ah - 0.05, 0.05).all()
    assert samples["temperature_c"].is_between(mean_c - 1.0, 80.0).all()
    # exactly one sample, the last under load, reads below the cutoff and ends each discharge
    cycle = ["asset_id", "cycle_index"]
    below = samples.filter(pl.col("voltage_v") < chemistry.discharge_cutoff_v)
    assert len(below) == len(below.unique(cycle)) == 4
    assert (below["current_a"] < -0.5).all()


def test_the_default_fleet_has_mixed_ages_and_sound_readings() -> None:
    recording = simulate_fleet(FleetPlan())
    capacity = recording.cycles["capacity_ah"].to_numpy()
    assert len(capacity) == 40 * 120
    assert np.quantile(capacity, 0.05) < 1.4
    assert capacity.max() > 2.0
    assert capacity.min() > 0.5
    assert capacity.max() < 2.3
    mean = recording.samples.group_by("asset_id", "cycle_index").agg(
        pl.col("voltage_v", "current_a", "temperature_c").mean()
    )
    # the limits that config/production.yaml sets on the means of simulated NMC cells
    assert mean["voltage_v"].is_between(2.5, 4.5).all()
    assert mean["current_a"].is_between(-5.0, 0.0).all()
    assert mean["temperature_c"].is_between(-10.0, 60.0).all()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("n_vehicles", 0, "an integer from 1 to 9999"),
        ("n_vehicles", 10_000, "an integer from 1 to 9999"),
        ("n_vehicles", 2.0, "an integer from 1 to 9999"),
        ("n_cycles", True, "an integer of 1 or more"),
        ("seed", -1, "an integer of 0 or more"),
        ("chemistry_shares", {"NMC": 0.5}, "shares that sum to 1"),
        ("chemistry_shares", ["NMC"], "a mapping of names to shares"),
        ("chemistry_shares", {}, "shares that sum to 1"),
        ("chemistry_shares", {"NCA": 1.0}, "names among NMC, LFP"),
        ("c_rate", (2.0, 0.5), "a range"),
        ("c_rate", (0.0, 1.0), "a range"),
        ("c_rate", (float("nan"), 1.0), "a range"),
        ("age_days", (0.0,), "a range"),
        ("age_days", 100.0, "a range"),
        ("depth_of_discharge", (0.1, 1.5), "a range"),
        ("mean_days_between", 0.1, "a number from 1 to 365"),
        ("sample_interval_s", float("nan"), "a number from 2 to 120"),
        ("sample_interval_s", float("inf"), "a number from 2 to 120"),
        ("charge_c_rate", "fast", "a number from 0.3 to 1"),
        ("climate", Climate(mean_c=300.0), "a number from -30 to 50"),
        ("noise", SensorNoise(voltage_v=-0.1), "a number from 0 to 1"),
        ("noise", SensorNoise(voltage_step_v=0.0), "a number from 1e-06 to 1"),
        ("variation", Variation(ageing=float("nan")), "a number from 0 to 1"),
        ("start", "2024-01-01", "a date"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(field: str, value: object, expected: str) -> None:
    # mypy cannot follow a field's name that is drawn
    change: dict[str, object] = {field: value}
    with pytest.raises(DataError, match=rf"fleet plan: {field}.* is .*, expected {expected}"):
        replace(SMALL, **change)  # type: ignore[arg-type]  # as said above


def test_recording_begins_on_the_day_that_the_plan_says() -> None:
    started = simulate_fleet(replace(SMALL, start=date(2030, 6, 1))).cycles["started_at"]
    first = started.dt.date().sort()[0]
    assert date(2030, 6, 1) <= first <= date(2030, 6, 12)
