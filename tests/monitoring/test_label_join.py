"""Each answer gets the nearest label that counts, whatever order and chunks the log comes in."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.monitoring.label_join import LabelTable, join_labels, label_table
from batteryops.records.labels import Label, Labels
from monitoring.logged import DAY, START, answer, label, labels_frame, log

HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)


def settled(*labels: dict[str, Any], tolerance: timedelta = WEEK) -> LabelTable:
    return label_table(labels_frame(labels), tolerance=tolerance)


def pairs(labels: LabelTable, *answers: dict[str, Any]) -> list[tuple[datetime, float]]:
    """When each joined answer went out, and the capacity that it is judged by."""
    rows = join_labels(labels, log(answers)).rows.sort("answered_at")
    return list(zip(rows["answered_at"], rows["label_ah"], strict=True))


def test_a_label_belongs_to_answers_of_its_asset_within_the_tolerance() -> None:
    found = pairs(
        settled(label("EV-1", START, 1.7)),
        answer(at=START - WEEK),
        answer(at=START + WEEK),
        answer(at=START - WEEK - timedelta(microseconds=1)),
        answer(at=START + WEEK + timedelta(microseconds=1)),
        answer("EV-2", START),
    )
    assert found == [(START - WEEK, 1.7), (START + WEEK, 1.7)]


def test_the_nearest_label_wins_and_of_two_equally_near_the_earlier() -> None:
    labels = settled(label(at=START, capacity_ah=1.8), label(at=START + 2 * DAY, capacity_ah=1.7))
    middle = START + DAY
    later = middle + timedelta(microseconds=1)
    assert pairs(labels, answer(at=middle), answer(at=later)) == [(middle, 1.8), (later, 1.7)]


def test_a_correction_replaces_and_a_label_that_arrives_twice_counts_once() -> None:
    labels = settled(label(capacity_ah=1.9), label(capacity_ah=1.7), label(capacity_ah=1.7))
    assert (labels.n, labels.corrected, labels.repeated) == (1, 1, 1)
    assert pairs(labels, answer()) == [(START, 1.7)]


def test_a_corrected_capacity_that_is_sent_again_stays_corrected_as_on_record(
    tmp_path: Path,
) -> None:
    sent = [Label("EV-1", START, capacity, "bench") for capacity in (1.9, 1.7, 1.9)]
    with Labels(f"sqlite:///{tmp_path}/predictions.db") as opened:
        for one in sent:
            opened.add([one])
        everything = opened.frame(START - DAY, corrected=True)
        counting = opened.frame(START - DAY)
        kept = counting["capacity_ah"].to_list()
    by_hand = settled(*(label(capacity_ah=capacity) for capacity in (1.9, 1.7, 1.9)))
    for table in (
        by_hand,
        label_table(everything, tolerance=WEEK),
        label_table(counting, tolerance=WEEK),
    ):
        assert table.table["capacity_ah"].to_list() == kept == [1.7]


def test_labels_of_one_measurement_that_contradict_each_other_are_all_left_out_and_told() -> None:
    labels = settled(
        label(at=START, capacity_ah=1.8),
        label(at=START + timedelta(minutes=10), capacity_ah=1.5),
        label("EV-2", START, 1.9),
    )
    assert labels.contradicting["capacity_ah"].to_list() == [1.8, 1.5]
    assert labels.table["asset_id"].to_list() == ["EV-2"]
    assert pairs(labels, answer()) == []


def test_labels_of_one_measurement_that_agree_count_once_as_the_last_received() -> None:
    labels = settled(
        label(at=START + timedelta(minutes=10), capacity_ah=1.80),
        label(at=START, capacity_ah=1.79),
    )
    assert (labels.n, labels.repeated, labels.contradicting.height) == (1, 1, 0)
    assert labels.table["capacity_ah"].to_list() == [1.79]


def test_capacities_of_two_measurements_may_differ() -> None:
    labels = settled(label(at=START, capacity_ah=1.8), label(at=START + HOUR, capacity_ah=1.5))
    assert (labels.n, labels.contradicting.height) == (2, 0)


def test_shadow_answers_count_for_the_challenger_and_nobody_elses_do() -> None:
    rows = join_labels(
        settled(label()),
        log(
            [
                answer(),
                answer(role="challenger", model_version="4", served=False),
                answer(role="challenger", model_version="4"),
                answer(served=False, model_version="5"),
            ]
        ),
    ).rows
    assert sorted(zip(rows["model_version"], rows["served"], strict=True)) == [
        ("3", True),
        ("4", False),
        ("4", True),
    ]


def test_labels_without_an_answer_are_told_apart_by_whether_their_asset_is_known() -> None:
    labels = settled(label("EV-1"), label("EV-1", START + 90 * DAY), label("EV-9"))
    joined = join_labels(labels, log([answer("EV-1")]))
    assert joined.matched.tolist() == [True, False, False]
    assert joined.seen.tolist() == [True, True, False]


def test_clocks_that_jump_break_nothing() -> None:
    labels = settled(
        label(at=datetime(1970, 1, 1, tzinfo=UTC), received_at=START),
        label(at=START + 400 * DAY, received_at=START),
        label(at=START),
    )
    assert (labels.n, labels.clock_jumps) == (2, 1)
    back = [START + DAY, START, START - 2 * DAY, datetime(1970, 1, 1, tzinfo=UTC)]
    found = pairs(labels, *(answer(at=at) for at in back))
    assert [at for at, _ in found] == sorted(back)


def test_rows_that_hold_no_measurement_are_counted() -> None:
    given = [
        label(capacity_ah=None),
        label(capacity_ah=float("nan")),
        label(capacity_ah=float("inf")),
        label(capacity_ah=-1.0),
        label(capacity_ah=0.0),
        label(),
    ]
    labels = settled(*given)
    assert (labels.n, labels.unusable) == (1, 5)


def test_without_labels_or_answers_nothing_is_joined() -> None:
    assert join_labels(settled(), log([answer()])).rows.height == 0
    empty = join_labels(settled(label()), log([]))
    assert (empty.rows.height, empty.matched.tolist()) == (0, [False])


def test_strings_for_capacities_and_missing_columns_are_refused() -> None:
    frame = labels_frame([label()])
    with pytest.raises(DataError, match="capacity_ah is String"):
        label_table(frame.with_columns(pl.col("capacity_ah").cast(pl.String)), tolerance=WEEK)
    with pytest.raises(DataError, match="no column received_at"):
        label_table(frame.drop("received_at"), tolerance=WEEK)
    with pytest.raises(DataError, match="no column vehicle_id"):
        join_labels(settled(label()), log([answer()]).drop("vehicle_id"))
    with pytest.raises(DataError, match="expected 0 or more"):
        label_table(frame, tolerance=-DAY)


hours = st.integers(-30 * 24, 30 * 24)
assets = st.sampled_from(["EV-1", "EV-2"])


@given(
    measured=st.lists(st.tuples(assets, hours), max_size=12, unique=True),
    asked=st.lists(st.tuples(assets, hours), max_size=30),
)
def test_the_join_is_the_one_that_tries_every_label(
    measured: list[tuple[str, int]], asked: list[tuple[str, int]]
) -> None:
    labels = settled(
        *(label(asset, START + at * HOUR, 1.0 + n) for n, (asset, at) in enumerate(measured))
    )
    answers = [
        answer(asset, START + at * HOUR, capacity_ah=float(n))
        for n, (asset, at) in enumerate(asked)
    ]
    expected = {}
    for n, (asset, at) in enumerate(asked):
        near = [
            (abs(at - when), when, 1.0 + k)
            for k, (whose, when) in enumerate(measured)
            if whose == asset and abs(at - when) <= 7 * 24
        ]
        if near:
            expected[float(n)] = min(near)[2]  # of equally near ones, the earlier
    rows = join_labels(labels, log(answers)).rows
    assert dict(zip(rows["capacity_ah"], rows["label_ah"], strict=True)) == expected
