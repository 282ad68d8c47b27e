"""Performance from late labels: the same numbers whatever the chunks, and none from too little."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score

from batteryops.errors import DataError
from batteryops.evaluation.metrics import Predictions, intervals
from batteryops.monitoring.error_sums import ErrorSums
from batteryops.monitoring.label_join import LabelTable, label_table
from batteryops.monitoring.performance import Judging, Performance, judge
from monitoring.logged import DAY, START, answer, cell_of, label, labels_frame, log

WEEK = timedelta(days=7)
UNTIL = START + 30 * DAY


def settled(labels: Sequence[dict[str, Any]]) -> LabelTable:
    return label_table(labels_frame(labels), tolerance=WEEK)


def judged(
    labels: LabelTable,
    *frames: pl.DataFrame,
    until: datetime = UNTIL,
    judging: Judging | None = None,
) -> Performance:
    sums = ErrorSums.scan(labels, frames, old_before=until - WEEK)
    return judge(sums, profile_of=cell_of, since=START, until=until, judging=judging)


def fleet(
    n_vehicles: int = 12, n_labels: int = 5, seed: int = 1
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A label a day, and an answer at the same time that is off by the vehicle's own offset."""
    random = np.random.default_rng(seed)
    labels, answers = [], []
    for vehicle in range(n_vehicles):
        offset = random.normal(0.01, 0.03)
        for day in range(n_labels):
            measured = random.uniform(1.3, 1.9)
            said = measured + offset + random.normal(0.0, 0.01)
            at = START + day * DAY
            labels.append(label(f"EV-{vehicle:02}", at, measured))
            answers.append(
                answer(
                    f"EV-{vehicle:02}",
                    at,
                    capacity_ah=said,
                    capacity_low_ah=said - 0.04,
                    capacity_high_ah=said + 0.04,
                )
            )
    return labels, answers


def test_the_numbers_are_those_of_another_implementation() -> None:
    labels, answers = fleet()
    actual = np.array([one["capacity_ah"] for one in labels])
    said = np.array([one["capacity_ah"] for one in answers])
    found = judged(settled(labels), log(answers)).overall
    assert (found.n, found.n_labels, found.n_vehicles) == (60, 60, 12)
    assert found.mae_ah == pytest.approx(mean_absolute_error(actual, said), rel=1e-12)
    assert found.r2 == pytest.approx(r2_score(actual, said), rel=1e-9)
    assert found.bias_ah == pytest.approx((said - actual).mean(), rel=1e-9)
    assert found.interval_coverage == (np.abs(said - actual) <= 0.04).mean()


def test_bounds_are_those_of_the_bootstrap_over_whole_assets() -> None:
    labels, answers = fleet()
    found = judged(settled(labels), log(answers), judging=Judging(seed=4)).overall
    expected = intervals(
        Predictions(
            np.array([one["asset_id"] for one in labels], dtype=object),
            np.array([one["capacity_ah"] for one in labels]),
            np.array([one["capacity_ah"] for one in answers]),
            np.full(len(labels), 2.0),
        ),
        resamples=1000,
        confidence=0.95,
        rng=np.random.default_rng(4),
    )
    assert found.mae_bounds_ah.low == pytest.approx(expected["mae_ah"].low, rel=1e-9)
    assert found.mae_bounds_ah.high == pytest.approx(expected["mae_ah"].high, rel=1e-9)
    assert found.r2_bounds.low == pytest.approx(expected["r2"].low, rel=1e-9)
    assert found.bias_bounds_ah.high == pytest.approx(expected["bias_ah"].high, rel=1e-9)
    assert found.mae_bounds_ah.low < found.mae_ah < found.mae_bounds_ah.high


def test_below_the_least_number_of_labels_nothing_is_concluded() -> None:
    labels, answers = fleet(n_vehicles=6, n_labels=4)
    many = [one | {"prediction_id": f"{n}"} for n, one in enumerate(answers * 5)]
    found = judged(settled(labels), log(many))
    assert found.overall.to_json() == {
        "n": 120,  # answers are many, but they are judged by few labels
        "n_labels": 24,
        "n_vehicles": 6,
        "refused": "24 labels, expected at least 30",
    }
    assert math.isfinite(judged(settled(labels), log(many), judging=Judging(24)).overall.mae_ah)


def test_one_vehicle_has_an_error_but_no_bounds() -> None:
    labels, answers = fleet(n_vehicles=1, n_labels=30)
    found = judged(settled(labels), log(answers)).overall.to_json()
    assert "mae_ah" in found
    assert "mae_low_ah" not in found


def test_versions_profiles_bands_and_vehicles_are_told_apart() -> None:
    judging = Judging(min_labels=1)
    labels = [label("EV-1", capacity_ah=1.5), label("EV-2", capacity_ah=1.9), label("stranger-1")]
    found = judged(
        settled(labels),
        log(
            [
                answer("EV-1", capacity_ah=1.6),
                answer("EV-2", capacity_ah=1.88),
                answer("EV-2", capacity_ah=1.7, role="challenger", model_version="4", served=False),
                answer("stranger-1", capacity_ah=1.8),
            ]
        ),
        judging=judging,
    )
    told = {
        kind: {name: round(group.mae_ah, 9) for name, group in groups.items()}
        for kind, groups in found.by.items()
    }
    assert told == {
        "version": {"3": 0.04, "4": 0.2},
        "profile": {"cell": 0.06, "unknown": 0.0},
        "soh_band": {"0.7 to 0.8": 0.1, "0.9 and above": 0.02, "unknown": 0.0},
        "status": {"ok": 0.04},
        "vehicle": {"EV-1": 0.1, "EV-2": 0.02, "stranger-1": 0.0},
    }
    assert found.overall.n == 3  # the shadow's answer is its own version's
    assert found.overall.mae_ah == pytest.approx(0.04)


def test_answers_out_of_the_domain_are_judged_beside_the_others() -> None:
    found = judged(
        settled([label("EV-1"), label("EV-2")]),
        log([answer("EV-1"), answer("EV-2", status="out_of_domain", capacity_ah=0.8)]),
        judging=Judging(min_labels=1),
    )
    assert found.overall.mae_ah == 0.0
    assert found.by["status"]["out_of_domain"].mae_ah == pytest.approx(1.0)


def test_only_the_worst_vehicles_are_listed() -> None:
    labels, answers = fleet()
    found = judged(settled(labels), log(answers), judging=Judging(max_vehicles=3))
    errors = [group.mae_ah for group in found.by["vehicle"].values()]
    assert len(errors) == 3
    assert errors == sorted(errors, reverse=True)
    assert found.vehicles_left_out == 9
    assert found.to_json()["vehicles_left_out"] == 9


def test_answers_without_an_interval_do_not_count_for_coverage() -> None:
    found = judged(
        settled([label("EV-1"), label("EV-2")]),
        log([answer("EV-1"), answer("EV-2", capacity_low_ah=None, capacity_high_ah=None)]),
        judging=Judging(min_labels=1),
    )
    assert found.overall.interval_coverage == 1.0


def test_label_coverage_is_of_answers_old_enough_to_have_a_label() -> None:
    young = UNTIL - DAY
    found = judged(
        settled([label("EV-1"), label("EV-3", young, received_at=UNTIL)]),
        log(
            [
                answer("EV-1"),
                answer("EV-2"),
                answer("EV-3", young),
                answer("EV-1", role="challenger", served=False),
            ]
        ),
    )
    assert found.labels.coverage == 0.5


def test_the_age_of_labels_is_told() -> None:
    waits = [1.0, 2.0, 3.0, 4.0, 11.0]
    labels = [
        label(f"EV-{n}", START + n * DAY, received_at=START + n * DAY + days * DAY)
        for n, days in enumerate(waits)
    ]
    found = judged(settled(labels), log([])).to_json()
    day_s = 86_400.0
    assert found["label_age_s"]["p50"] == pytest.approx(np.quantile(waits, 0.5) * day_s)
    assert found["label_age_s"]["p90"] == pytest.approx(np.quantile(waits, 0.9) * day_s)
    assert found["label_age_s"]["newest"] == 26 * day_s
    assert "label_coverage" not in found


def test_unmatched_contradicting_and_early_labels_are_counted() -> None:
    soon = timedelta(minutes=5)
    found = judged(
        settled(
            [
                label("EV-1"),
                label("EV-9"),  # nobody asked
                label("EV-1", START + 20 * DAY),  # asked at another time
                label("EV-1", START - 400 * DAY),  # before the log that is looked at
                label("EV-2", START, 1.8),
                label("EV-2", START + soon, 1.2),
            ]
        ),
        log([answer("EV-1"), answer("EV-2")]),
    ).to_json()
    assert found["labels_unmatched"] == 2
    assert found["labels_of_unknown_assets"] == 1
    assert found["labels_outside_window"] == 1
    assert found["labels_contradicting"] == 2


def test_with_neither_labels_nor_answers_nothing_is_said() -> None:
    found = judged(settled([])).to_json()
    assert found["overall"] == {
        "n": 0,
        "n_labels": 0,
        "n_vehicles": 0,
        "refused": "0 labels, expected at least 30",
    }
    assert "label_age_s" not in found
    assert all(groups == {} for groups in found["by"].values())


def test_sums_of_different_labels_do_not_add() -> None:
    one, other = (
        ErrorSums.scan(settled([label(asset)]), [], old_before=UNTIL) for asset in ("EV-1", "EV-2")
    )
    with pytest.raises(DataError, match="join both to the same labels"):
        _ = one + other


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(DataError, match="no time zone"):
        ErrorSums.of(settled([label()]), log([]), old_before=UNTIL.replace(tzinfo=None))


@settings(max_examples=25)
@given(order=st.permutations(range(36)), cuts=st.lists(st.integers(0, 36), max_size=5))
def test_any_chunks_in_any_order_give_the_same_answer(order: list[int], cuts: list[int]) -> None:
    labels, answers = fleet(n_vehicles=9, n_labels=4)
    table = settled(labels)
    whole = judged(table, log(answers), judging=Judging(min_labels=9, resamples=50))
    mixed = [answers[n] for n in order]
    ends = [0, *sorted(cuts), 36]
    chunks = [log(mixed[start:end]) for start, end in pairwise(ends)]
    found = judged(table, *chunks, judging=Judging(min_labels=9, resamples=50))
    assert close(found.to_json(), whole.to_json())
    halves = [
        ErrorSums.scan(table, part, old_before=UNTIL - WEEK) for part in (chunks[:2], chunks[2:])
    ]
    both = judge(
        halves[1] + halves[0],
        profile_of=cell_of,
        since=START,
        until=UNTIL,
        judging=Judging(min_labels=9, resamples=50),
    )
    assert close(both.to_json(), whole.to_json())


def close(one: object, other: object) -> bool:
    """Whether two documents say the same, sums of floats to their last digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name]) for name in one)
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-9, abs=1e-12)
    return one == other
