"""What happens to a simulated fleet: from its day on, and nothing before."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.schema import Recording
from batteryops.telemetry.fleet_plan import Climate, FleetPlan, SensorNoise
from batteryops.telemetry.scenario import (
    Event,
    NewChemistry,
    RouteChange,
    ThermalManagement,
    Winter,
)
from batteryops.telemetry.simulator import simulate_fleet

QUIET = SensorNoise(voltage_v=0.0, current_a=0.0, temperature_c=0.0, capacity_share=0.0)
PLAN = FleetPlan(
    n_vehicles=4,
    n_cycles=12,
    seed=5,
    chemistry_shares={"NMC": 0.5, "LFP": 0.5},
    climate=Climate(seasonal_c=0.0, weather_spread_c=0.0),
    noise=QUIET,
    c_rate=(0.5, 1.0),
)
DAY = 40.0
EVENTS: list[Event] = [
    NewChemistry(DAY, "LFP"),
    ThermalManagement(DAY),
    RouteChange(DAY),
    Winter(DAY, days=30.0),
]


def with_days(recording: Recording) -> pl.DataFrame:
    """Its cycles, with the day since the plan's start."""
    start = pl.lit(PLAN.start).cast(pl.Datetime("us"))
    return recording.cycles.with_columns(
        day=(pl.col("started_at") - start).dt.total_seconds() / 86_400.0
    )


def both(events: Sequence[Event]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The cycles of the fleet to which nothing happens, and of that to which this does."""
    return with_days(simulate_fleet(PLAN)), with_days(simulate_fleet(PLAN, events))


def rises(recording: Recording) -> pl.DataFrame:
    """By how much each discharge warms, and the current of its load."""
    key = ["asset_id", "cycle_index"]
    return recording.samples.group_by(key).agg(
        rise=pl.col("temperature_c").max() - pl.col("temperature_c").min(),
        load=pl.col("current_a").min(),
    )


@pytest.mark.parametrize("event", EVENTS[1:], ids=lambda event: type(event).__name__)
def test_before_its_day_nothing_differs_to_the_bit(event: Event) -> None:
    plain, changed = both([event])
    before = pl.col("day") < DAY
    assert plain.filter(before).equals(changed.filter(before))
    assert not plain.filter(~before).equals(changed.filter(~before))
    key = ["asset_id", "cycle_index"]
    early = plain.filter(before).select(key)
    samples = [
        simulate_fleet(PLAN, events).samples.join(early, on=key, how="semi")
        for events in ([], [event])
    ]
    assert samples[0].equals(samples[1])


def test_vehicles_of_a_new_chemistry_are_on_record_from_their_day_on() -> None:
    plain, changed = both([NewChemistry(DAY, "LFP")])
    lfp = pl.col("asset_id").str.starts_with("EV-LFP")
    assert changed.filter(~lfp).equals(plain.filter(~lfp))
    assert changed.filter(lfp).equals(plain.filter(lfp & (pl.col("day") >= DAY)))
    recording = simulate_fleet(PLAN, [NewChemistry(DAY, "LFP")])
    assert recording.samples["asset_id"].n_unique() == 4
    counted = recording.samples.group_by("asset_id", "cycle_index").len("n")
    joined = recording.cycles.join(counted, on=["asset_id", "cycle_index"], how="full")
    assert joined["n_samples"].equals(joined["n"].cast(pl.Int64), check_names=False)


def test_a_charge_is_on_record_where_its_discharge_is() -> None:
    plan = FleetPlan(n_vehicles=1, n_cycles=6, record_charges=True, chemistry_shares={"LFP": 1.0})
    cycles = simulate_fleet(plan, [NewChemistry(20.0)]).cycles
    assert 0 < cycles.height < 12
    assert cycles["kind"].to_list() == ["charge", "discharge"] * (cycles.height // 2)


def test_better_cooling_divides_the_rise_by_its_factor_where_it_is_steady() -> None:
    """A steady rise is heat over heat transfer; resistances change a little with temperature."""
    key = ["asset_id", "cycle_index"]
    plain, cooled = simulate_fleet(PLAN), simulate_fleet(PLAN, [ThermalManagement(0.0, 2.0)])
    pair = rises(plain).join(rises(cooled), on=key)
    ratio = (pair["rise_right"] / pair["rise"]).to_numpy()
    assert (ratio > 0.48).all()
    assert (ratio < 0.60).all()


def test_another_route_keeps_the_place_between_the_lowest_and_the_highest_current() -> None:
    key = ["asset_id", "cycle_index"]
    plain, fast = simulate_fleet(PLAN), simulate_fleet(PLAN, [RouteChange(0.0, (1.0, 2.0))])
    pair = rises(plain).join(rises(fast), on=key)
    assert np.allclose(pair["load_right"] / pair["load"], 2.0, atol=0.01)


def test_a_winter_falls_stays_and_rises_again() -> None:
    winter = Winter(10.0, days=40.0, fall_k=12.0, onset_days=10.0)
    plain, cold = both([winter])
    fallen = plain["ambient_temperature_c"] - cold["ambient_temperature_c"]
    expected = winter.fallen_k(plain["day"].to_numpy())
    assert np.allclose(fallen.to_numpy(), expected, atol=0.11)  # both are rounded to 0.1
    assert expected.max() == 12.0
    assert winter.fallen_k(np.array([9.0, 15.0, 30.0, 45.0, 51.0])).tolist() == [0, 6, 12, 6, 0]


def test_events_add_up_whatever_their_order() -> None:
    one, other = simulate_fleet(PLAN, EVENTS), simulate_fleet(PLAN, EVENTS[::-1])
    assert one.samples.equals(other.samples)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: NewChemistry(-1.0), "day of a new chemistry"),
        (lambda: NewChemistry(1.0, "lead"), "'lead' is not among"),
        (lambda: ThermalManagement(1.0, 0.0), "above 0"),
        (lambda: ThermalManagement(float("nan")), "nan"),
        (lambda: RouteChange(1.0, (2.0, 1.0)), "range"),
        (lambda: RouteChange(1.0, (0.0, 1.0)), "range"),
        (lambda: Winter(1.0, days=5.0, onset_days=7.0), "time to rise"),
        (lambda: Winter(1.0, fall_k=0.0), "above 0"),
    ],
)
def test_nonsense_is_refused(make: "type[Event]", said: str) -> None:
    with pytest.raises(DataError, match=said):
        make()
