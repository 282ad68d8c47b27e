"""Labels that came, beside the questions that they answer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from batteryops.lifecycle.new_labels import FreshLabels, count_labels, fresh_labels
from batteryops.records.labels import Label, Labels
from batteryops.settings import Settings, load_settings
from lifecycle.updating import VIEW, asked_and_labelled, new_rows, now, put, record

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROW = new_rows().row(0, named=True)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def measured(at: datetime, capacity_ah: float, asset: str = ROW["asset_id"]) -> Label:
    return Label(asset, at, capacity_ah, "bench")


def came(settings: Settings, since: datetime | None = None) -> FreshLabels:
    return fresh_labels(settings, VIEW, since=since, until=now())


def test_a_label_is_a_row_with_the_features_of_its_question(settings: Settings) -> None:
    put(settings, [record(AT, ROW)], [measured(AT + HOUR, 1.8)])
    found = came(settings)
    (row,) = found.table.iter_rows(named=True)
    assert {name: row[name] for name in VIEW.names} == {name: ROW[name] for name in VIEW.names}
    assert (row["asset_id"], row["op_index"], row["capacity_ah"]) == (ROW["asset_id"], 1, 1.8)
    assert row["answered_at"] == AT
    assert found.dropped == {}
    assert (found.n, found.vehicles, found.newest) == (1, 1, row["received_at"])


def test_of_several_questions_near_a_label_the_nearest_in_time_is_its_own(
    settings: Settings,
) -> None:
    answers = [
        record(AT + away, ROW | {"voltage_V_mean": volts})
        for away, volts in ((-3 * DAY, 3.1), (HOUR, 3.2), (2 * DAY, 3.3))
    ]
    put(settings, answers, [measured(AT, 1.8)])
    assert came(settings).table["voltage_V_mean"].to_list() == [3.2]


def test_a_question_is_one_row_whoever_answered_it(settings: Settings) -> None:
    answers = [
        record(AT, ROW),
        record(AT, ROW, role="challenger", served=False, model_version="2"),
        record(AT, ROW, cached=True),
        record(AT, ROW, status="out_of_domain", outside=("voltage_V_mean",)),
    ]
    put(settings, answers, [measured(AT + HOUR, 1.8)])
    assert came(settings).n == 1


def test_a_shadow_s_answer_alone_is_no_question(settings: Settings) -> None:
    put(settings, [record(AT, ROW, role="challenger", served=False)], [measured(AT, 1.8)])
    assert came(settings).dropped == {"no question near": 1}


def test_rows_of_an_asset_are_counted_from_one_in_order_of_time(settings: Settings) -> None:
    asked_and_labelled(settings, new_rows().reverse())
    table = came(settings).table
    assert table.height == 64
    assert table.select("asset_id", "op_index").is_unique().all()
    for _, own in table.group_by("asset_id"):
        assert own["op_index"].to_list() == list(range(1, 9))
        assert own["answered_at"].is_sorted()


def test_whoever_asks_again_gets_each_label_once(settings: Settings) -> None:
    put(settings, [record(AT, ROW), record(AT + 20 * DAY, ROW)], [measured(AT, 1.8)])
    first = came(settings)
    assert came(settings, first.looked_until).n == 0
    with Labels(settings.predictions_url) as labels:
        labels.add([measured(AT + 20 * DAY, 1.7)])
    second = came(settings, first.looked_until)
    assert second.table["capacity_ah"].to_list() == [1.7]
    assert came(settings).n == 2


def test_labels_from_until_on_wait_for_the_next_time(settings: Settings) -> None:
    put(settings, [record(AT, ROW)], [measured(AT, 1.8)])
    found = fresh_labels(settings, VIEW, since=None, until=AT + DAY)
    assert (found.n, found.looked_until, found.newest) == (0, None, None)


def test_a_question_of_an_earlier_label_is_not_taken_by_a_later_one(settings: Settings) -> None:
    put(settings, [record(AT, ROW)], [measured(AT + HOUR, 1.8)])
    first = came(settings)
    with Labels(settings.predictions_url) as labels:
        labels.add([measured(AT + 3 * DAY, 1.2)])  # within the tolerance of the same question
    assert came(settings, first.looked_until).dropped == {"no question near": 1}


def test_labels_that_contradict_each_other_are_left_out(settings: Settings) -> None:
    labels = [measured(AT, 1.8), measured(AT + timedelta(minutes=10), 1.2)]
    put(settings, [record(AT, ROW)], labels)
    found = came(settings)
    assert (found.n, found.dropped) == (0, {"contradicting": 2})


def test_a_label_that_contradicts_one_learned_from_before_is_left_out(settings: Settings) -> None:
    put(settings, [record(AT, ROW)], [measured(AT, 1.8)])
    first = came(settings)
    with Labels(settings.predictions_url) as labels:
        labels.add([measured(AT + timedelta(minutes=10), 1.2)])
    assert came(settings, first.looked_until).dropped == {"contradicting": 1}


def test_a_label_said_again_is_one(settings: Settings) -> None:
    labels = [measured(AT, 1.8), measured(AT + timedelta(minutes=10), 1.8)]
    put(settings, [record(AT, ROW)], labels)
    found = came(settings)
    assert (found.n, found.dropped) == (1, {"said again": 1})


@pytest.mark.parametrize(
    ("row", "label", "reason"),
    [
        (ROW, measured(AT + 30 * DAY, 1.8), "no question near"),
        (ROW, measured(AT, 1.8, "EV-9999"), "no question near"),
        (ROW, measured(AT, 1.8, "a stranger"), "no profile"),
        (ROW, measured(AT, 2.6), "impossible capacity"),
        (ROW | {"voltage_V_mean": None}, measured(AT, 1.8), "features of another view"),
        (ROW | {"voltage_V_mean": 65.535}, measured(AT, 1.8), "a sensor was wrong"),
    ],
)
def test_a_label_that_is_no_row_is_counted_with_its_reason(
    settings: Settings, row: dict[str, object], label: Label, reason: str
) -> None:
    put(settings, [record(AT, row)], [label])
    found = came(settings)
    assert (found.n, found.dropped) == (0, {reason: 1})
    assert reason in str(found)
    assert found.to_json()["dropped"] == {reason: 1}


def test_a_question_further_away_counts_where_the_nearest_is_of_no_use(settings: Settings) -> None:
    answers = [
        record(AT, ROW | {"voltage_V_mean": 65.535}),
        record(AT + 2 * HOUR, ROW | {"voltage_V_mean": 3.3}),
    ]
    put(settings, answers, [measured(AT, 1.8)])
    assert came(settings).table["voltage_V_mean"].to_list() == [3.3]


def test_of_two_questions_in_one_batch_nothing_says_which_a_label_answers(
    settings: Settings,
) -> None:
    two = [record(AT, ROW | {"voltage_V_mean": volts}) for volts in (3.2, 3.4)]
    put(settings, two, [measured(AT, 1.8)])
    assert came(settings).dropped == {"several questions at one time": 1}


def test_a_label_from_before_its_own_measurement_is_a_clock_that_jumped(
    settings: Settings,
) -> None:
    put(settings, [record(AT, ROW)], [])
    with time_machine.travel(AT + DAY), Labels(settings.predictions_url) as labels:
        labels.add([measured(AT, 1.8)])
    with time_machine.travel(AT + 40 * DAY), Labels(settings.predictions_url) as labels:
        label = measured(AT + 30 * DAY, 1.7)
        with time_machine.travel(AT + 2 * DAY):
            labels.add([label])
    assert came(settings).dropped == {"measured after it was received": 1}


def test_labels_are_counted_without_a_look_at_the_log(settings: Settings) -> None:
    labels = [measured(AT, 1.8), measured(AT + DAY, 9.9), measured(AT, 1.7, "EV-2")]
    put(settings, [], labels)
    found = count_labels(settings, since=None, until=now())
    assert (found.n, found.vehicles) == (2, 2)
    assert found.newest is not None
    nothing = count_labels(settings, since=None, until=AT)
    assert (nothing.n, nothing.vehicles, nothing.newest) == (0, 0, None)
