"""Rows of before a software update: what the update did to a feature is found, and undone."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from batteryops.features.views import get_view
from batteryops.lifecycle.realignment import Realignment, find_realignments, realign
from batteryops.lifecycle.time_lapse.world import SOFTWARE, TimeLapsePlan, make_world

VIEW = get_view("discharge_summary")
TIME = "discharge_time_s"
DROP = "voltage_drop_time_s"
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

times = st.datetimes(
    datetime(2020, 1, 1),  # noqa: DTZ001 - the zone is the strategy's
    datetime(2030, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)
steps = st.builds(
    Realignment,
    st.sampled_from(VIEW.names),
    st.floats(0.1, 10.0),
    st.floats(-1e4, 1e4),
    times,
)


def rows(n: int, seed: int, *, assets: int = 10) -> pl.DataFrame:
    """Discharges at a constant load: the record takes as long as the drop, and 600 s more."""
    random = np.random.default_rng(seed)
    drop = random.uniform(2000.0, 4000.0, n)
    return pl.DataFrame(
        {
            "asset_id": [f"EV-{at % assets:03}" for at in range(n)],
            "voltage_V_mean": 3.0 + drop / 5000.0,
            "current_A_mean": random.normal(-2.0, 0.01, n),
            "temperature_C_mean": random.normal(25.0, 1.0, n),
            "temperature_C_max": random.normal(30.0, 1.0, n),
            TIME: drop + 600.0 + random.normal(0.0, 5.0, n),
            "delta_T_C": random.normal(5.0, 0.5, n),
            DROP: drop + random.normal(0.0, 5.0, n),
        }
    )


def asked(
    table: pl.DataFrame, place: int, *, factor: float = 1.0, shift: float = 0.0
) -> pl.DataFrame:
    """The table as questions of every hour; from one on the time of discharge is told otherwise."""
    at = pl.int_range(pl.len())
    now = factor * pl.col(TIME) + shift
    return table.with_columns(
        answered_at=pl.lit(BEGAN) + at * HOUR,
        **{TIME: pl.when(at >= place).then(now).otherwise(TIME)},
    )


def found(
    before: pl.DataFrame, questions: pl.DataFrame, changed: tuple[str, ...] = (TIME,)
) -> tuple[Realignment, ...]:
    return find_realignments(VIEW, changed, before, questions, seed=1)


def test_a_constant_is_found_with_the_hour_from_which_it_is_there() -> None:
    (step,) = found(rows(600, 1), asked(rows(300, 2), 180, shift=-900.0))
    assert (step.feature, step.factor) == (TIME, 1.0)
    assert step.shift == pytest.approx(-900.0, abs=15.0)
    assert step.since == BEGAN + 180 * HOUR


def test_a_factor_is_found_where_one_explains_it_better() -> None:
    (step,) = found(rows(600, 1), asked(rows(300, 2), 120, factor=1.5))
    assert (step.feature, step.shift) == (TIME, 0.0)
    assert step.factor == pytest.approx(1.5, rel=0.005)
    assert step.since == BEGAN + 120 * HOUR


def test_another_unit_is_a_factor() -> None:
    (step,) = found(rows(600, 1), asked(rows(300, 2), 150, factor=1 / 60))
    assert step.factor == pytest.approx(1 / 60, rel=0.005)


def test_what_is_all_of_after_is_seen_as_that() -> None:
    (step,) = found(rows(600, 1), asked(rows(300, 2), 0, shift=-900.0))
    assert step.since == BEGAN
    assert step.shift == pytest.approx(-900.0, abs=15.0)


def test_where_nothing_changed_nothing_is_found() -> None:
    for seed in range(5):
        assert found(rows(600, seed), asked(rows(300, 100 + seed), 300)) == ()


def test_a_step_within_what_the_feature_scatters_by_is_none() -> None:
    assert found(rows(600, 1), asked(rows(300, 2), 150, shift=-5.0)) == ()


@pytest.mark.parametrize(
    ("n_before", "n_asked", "place"),
    [(59, 300, 150), (600, 59, 30), (600, 300, 285), (600, 300, 271)],
    ids=["of before", "questions", "half of what is asked for of after", "one too few of after"],
)
def test_of_too_few_rows_nothing_is_said(n_before: int, n_asked: int, place: int) -> None:
    questions = asked(rows(n_asked, 2), place, shift=-900.0)
    assert found(rows(n_before, 1), questions) == ()


def test_thirty_rows_of_after_are_enough_and_their_first_is_known() -> None:
    (step,) = found(rows(600, 1), asked(rows(300, 2), 270, shift=-900.0))
    assert step.since == BEGAN + 270 * HOUR


def test_rows_of_one_battery_do_not_say_what_is_usual_of_another() -> None:
    assert found(rows(600, 1, assets=1), asked(rows(300, 2), 150, shift=-900.0)) == ()


def test_missing_values_are_passed_over() -> None:
    gaps = pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(TIME).alias(TIME)
    questions = asked(rows(300, 2), 180, shift=-900.0)
    (step,) = found(rows(600, 1).with_columns(gaps), questions.with_columns(gaps))
    assert step.shift == pytest.approx(-900.0, abs=15.0)
    none = pl.lit(None, pl.Float64).alias(TIME)
    assert found(rows(600, 1), questions.with_columns(none)) == ()


def test_of_two_features_that_changed_neither_says_what_the_other_was() -> None:
    """Each is told by the features that did not change."""
    at = pl.int_range(pl.len()) >= 150
    questions = asked(rows(300, 2), 150, shift=-900.0).with_columns(
        pl.when(at).then(pl.col(DROP) + 400.0).otherwise(DROP).alias(DROP)
    )
    steps = {step.feature: step for step in found(rows(600, 1), questions, (TIME, DROP))}
    assert steps.keys() == {TIME, DROP}
    assert steps[TIME].shift == pytest.approx(-900.0, abs=15.0)
    assert steps[DROP].shift == pytest.approx(400.0, abs=15.0)
    assert {step.since for step in steps.values()} == {BEGAN + 150 * HOUR}


def test_where_everything_changed_nothing_is_left_to_tell_by() -> None:
    assert found(rows(600, 1), asked(rows(300, 2), 150, shift=-900.0), VIEW.names) == ()


def test_equal_rows_give_equal_steps() -> None:
    before, questions = rows(600, 1), asked(rows(300, 2), 180, shift=-900.0)
    assert found(before, questions) == found(before, questions.sample(fraction=1.0, shuffle=True))


def test_a_fleets_software_update_is_undone() -> None:
    """The gateways leave out the rest of 885 to 915 s from a week on that nobody is told."""
    world, truth = make_world(TimeLapsePlan(vehicles=12, weeks=14, seed=1, history_weeks=10))
    (week,) = (one.week for one in truth.injections if one.cause == SOFTWARE)
    trips = pl.concat([world.trips(n) for n in range(max(week - 3, 0), week + 3)])
    (step,) = found(world.history, trips.rename({"at": "answered_at"}))
    assert (step.feature, step.factor) == (TIME, 1.0)
    assert step.shift == pytest.approx(-900.0, abs=20.0)
    assert step.since == trips.filter(pl.col("at") >= world.begins(week))["at"][0]


@given(st.lists(steps, max_size=3), st.lists(times, min_size=1, max_size=20))
def test_rows_of_after_a_step_stay_and_those_of_before_follow_one_line(
    given_steps: list[Realignment], at: list[datetime]
) -> None:
    table = rows(len(at), 3).with_columns(answered_at=pl.Series(at, dtype=pl.Datetime("us", "UTC")))
    moved = realign(table, given_steps)
    for name in VIEW.names:
        expected = [float(value) for value in table[name]]
        for step in given_steps:
            if step.feature == name:
                expected = [
                    step.factor * value + step.shift if when < step.since else value
                    for value, when in zip(expected, at, strict=True)
                ]
        assert moved[name].to_list() == pytest.approx(expected, rel=1e-12, abs=1e-9)
    latest = max((step.since for step in given_steps), default=min(at))
    after = pl.col("answered_at") >= latest
    assert_frame_equal(moved.filter(after), table.filter(after))


@given(steps, st.floats(-5.0, 5.0))
def test_realigning_is_affine(step: Realignment, share: float) -> None:
    """What lies between two rows lies as far between them afterwards."""
    first, second = rows(20, 4).drop("asset_id"), rows(20, 5).drop("asset_id")
    between = first * (1.0 - share) + second * share
    ends = [realign(table, [step]) for table in (first, second)]
    expected = ends[0] * (1.0 - share) + ends[1] * share
    assert_frame_equal(realign(between, [step]), expected, rel_tol=1e-9, abs_tol=1e-6)


def test_rows_without_a_time_are_all_of_before() -> None:
    table = rows(10, 6)
    moved = realign(table, [Realignment(TIME, 1.0, -900.0, BEGAN)])
    assert (moved[TIME] - table[TIME]).round(6).unique().to_list() == [-900.0]
    assert_frame_equal(moved.drop(TIME), table.drop(TIME))


def test_of_rows_that_were_kept_those_of_after_stay_as_they_are() -> None:
    """Rows of a recording have no time; those that were learned from the log have theirs."""
    step = Realignment("x", 1.0, -900.0, BEGAN)
    kept = pl.DataFrame(
        {"x": [1000.0, 1000.0, 1000.0], "answered_at": [None, BEGAN - HOUR, BEGAN]},
        schema_overrides={"answered_at": pl.Datetime("us", "UTC")},
    )
    assert realign(kept, [step])["x"].to_list() == [100.0, 100.0, 1000.0]


def test_a_missing_value_stays_missing() -> None:
    table = rows(3, 6).with_columns(pl.lit(None, pl.Float64).alias(TIME))
    assert realign(table, [Realignment(TIME, 2.0, 0.0, BEGAN)])[TIME].null_count() == 3


@given(steps)
def test_what_is_written_down_is_read_back(step: Realignment) -> None:
    assert Realignment.from_json(json.loads(json.dumps(step.to_json()))) == step


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Realignment(TIME, 1.0, -900.0, BEGAN), "discharge_time_s -900 since 2026-03-01 00:00 UTC"),
        (
            Realignment(TIME, 1 / 60, 0.0, BEGAN),
            "discharge_time_s times 0.01667 since 2026-03-01 00:00 UTC",
        ),
    ],
)
def test_it_is_told_in_one_line(step: Realignment, told: str) -> None:
    assert str(step) == told
