"""The world of the time lapse: what is known of it, when labels come, and what happens to it."""

from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.features.views import get_view
from batteryops.lifecycle.time_lapse.world import (
    CAUSES,
    SOFTWARE,
    START,
    VIEW,
    WEEK,
    TimeLapsePlan,
    Truth,
    World,
    make_world,
)

PLAN = TimeLapsePlan(vehicles=10, weeks=8, seed=1, history_weeks=2, label_share=0.4)
KEY = ["asset_id", "op_index"]


@cache
def made(seed: int = 1) -> tuple[pl.DataFrame, Truth]:
    """All trips and the truth, made once."""
    world, truth = make_world(replace(PLAN, seed=seed))
    return pl.concat([world.trips(week) for week in range(8)]), truth


def world() -> World:
    return make_world(PLAN)[0]


def names(fleet: World) -> list[str]:
    return fleet.trips(0)["asset_id"].unique().to_list()


def test_a_trip_tells_its_features_and_nothing_of_its_capacity() -> None:
    trips, truth = made()
    assert trips.columns == [*KEY, *get_view(VIEW).names, "at"]
    assert truth.capacities.select(KEY).sort(KEY).equals(trips.select(KEY).sort(KEY))
    assert trips["at"].is_sorted()


def test_trips_of_a_vehicle_are_sent_half_a_day_apart_or_more() -> None:
    trips, _ = made()
    gaps = trips.sort(KEY).select(pl.col("at").diff().over("asset_id"))["at"].drop_nulls()
    assert (gaps >= timedelta(hours=12)).all()
    assert trips["at"].is_between(START, START + 8 * WEEK, closed="left").all()


def test_equal_plans_are_equal_worlds() -> None:
    again = make_world(PLAN)
    trips, truth = made()
    assert pl.concat([again[0].trips(week) for week in range(8)]).equals(trips)
    assert again[1].injections == truth.injections


def test_labels_come_two_to_six_weeks_late_once_and_near_the_truth() -> None:
    fleet = world()
    early = fleet.labels(START + timedelta(weeks=5))
    labels = pl.concat([early, fleet.labels(START + timedelta(weeks=20))])
    late = labels["due_at"] - labels["measured_at"]
    assert late.is_between(timedelta(weeks=2), timedelta(weeks=6)).all()
    assert (early["due_at"] <= START + timedelta(weeks=5)).all()
    assert labels.select("asset_id", "measured_at").is_unique().all()
    trips, truth = made()
    share = labels.height / trips.height
    assert abs(share - PLAN.label_share) < 4 * np.sqrt(0.24 / trips.height)
    true = trips.join(truth.capacities, on=KEY).join(
        labels, left_on=["asset_id", "at"], right_on=["asset_id", "measured_at"], suffix="_said"
    )
    assert true.height == labels.height
    error = (true["capacity_ah_said"] / true["capacity_ah"] - 1.0).to_numpy()
    assert np.abs(error).max() <= 0.004 + 1e-9
    assert 0.0015 < error.std() < 0.0025


def test_labels_that_are_asked_for_are_more_and_come_sooner() -> None:
    asked, plain = world(), world()
    now = asked.begins(3)
    asked.labels(now)
    asked.ask_for_labels(names(asked), now=now, weeks=2)
    more = pl.concat([asked.labels(now + timedelta(days=day)) for day in range(1, 60)])
    few = plain.labels(now + timedelta(days=60)).filter(pl.col("due_at") > now)
    meant = pl.col("measured_at").is_between(now - WEEK, now + 2 * WEEK, closed="left")
    assert more.select("asset_id", "measured_at").is_unique().all()
    assert more.filter(meant).height > 1.7 * few.filter(meant).height
    late = more.filter(meant)["due_at"] - more.filter(meant)["measured_at"]
    assert (late <= timedelta(days=17)).all()
    after = pl.col("measured_at") >= now + 2 * WEEK
    assert more.filter(after).sort("due_at").equals(few.filter(after).sort("due_at"))


def test_nobody_asks_in_the_world_of_the_others() -> None:
    asked, plain = world(), world()
    asked.labels(asked.begins(2))
    asked.ask_for_labels(names(asked), now=asked.begins(2), weeks=5)
    asked.labels(asked.begins(4))
    end = START + timedelta(weeks=20)
    assert asked.unasked().labels(end).equals(plain.labels(end))


def test_a_full_year_has_all_causes_in_an_order_of_its_own_and_far_apart() -> None:
    orders = set()
    for seed in range(3):
        plan = TimeLapsePlan(vehicles=10, seed=seed, history_weeks=1, trips_per_week=1)
        injections = make_world(plan)[1].injections
        weeks = [found.week for found in injections]
        assert {found.cause for found in injections} == {*CAUSES}
        assert min(np.diff(weeks)) >= 6
        assert weeks[0] >= 4
        assert weeks[-1] <= 48
        orders.add(tuple(found.cause for found in injections))
    assert len(orders) > 1


def test_a_library_update_takes_the_rest_from_the_time_and_leaves_all_else() -> None:
    seed = next(seed for seed in range(1, 40) if made(seed)[1].injections[0].cause == SOFTWARE)
    trips, truth = made(seed)
    begins = START + truth.injections[0].week * WEEK
    # charge over mean current is the record's length, over the true one the load's
    length = trips.join(truth.capacities, on=KEY).select(
        "at",
        rest=pl.col("discharge_time_s") + 3600.0 * pl.col("capacity_ah") / pl.col("current_A_mean"),
    )
    old = length.filter(pl.col("at") < begins)["rest"].to_numpy()
    new = length.filter(pl.col("at") >= begins)["rest"].to_numpy()
    assert np.median(new) - np.median(old) == pytest.approx(-900.0, abs=60.0)


@pytest.mark.parametrize(
    "wrong",
    [{"vehicles": 9}, {"weeks": 1}, {"seed": -1}, {"label_share": 0.0}, {"asked_share": 1.5}],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        TimeLapsePlan(**wrong)  # type: ignore[arg-type]  # that is the point
