"""Labels: nothing is overwritten, nothing is counted twice, and the last one received counts."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batteryops.errors import RecordsError
from batteryops.records.identifiers import new_id
from batteryops.records.labels import LABEL_FRAME, Label, Labels, Outcome

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def label(capacity_ah: float = 1.75, asset_id: str = "B0005", at: datetime = AT) -> Label:
    return Label(asset_id, at, capacity_ah, "reference discharge")


@pytest.fixture
def labels(url: str) -> Iterator[Labels]:
    with Labels(url) as opened:
        yield opened


def test_a_label_sent_again_changes_nothing_and_another_capacity_corrects_it(
    labels: Labels,
) -> None:
    assert labels.add([label(1.75), label(1.6, "B0006")], key_name="bench") == ["new", "new"]
    assert labels.add([label(1.75), label(1.74), label(1.73)]) == [
        "known",
        "correction",
        "correction",
    ]
    counting = labels.frame(LONG_AGO).select("asset_id", "capacity_ah", "source", "key_name")
    source = label().source
    assert counting.rows() == [("B0006", 1.6, source, "bench"), ("B0005", 1.73, source, None)]
    everything = labels.frame(LONG_AGO, corrected=True)
    assert everything["capacity_ah"].to_list() == [1.75, 1.6, 1.74, 1.73]
    assert dict(everything.schema) == LABEL_FRAME


def test_a_corrected_capacity_that_is_sent_again_stays_corrected(labels: Labels) -> None:
    labels.add([label(1.75), label(1.74)])
    assert labels.add([label(1.75)]) == ["known"]
    assert labels.frame(LONG_AGO)["capacity_ah"].to_list() == [1.74]


def test_the_same_instant_in_another_zone_is_the_same_label(labels: Labels) -> None:
    labels.add([label()])
    there = AT.astimezone(timezone(timedelta(hours=8)))
    assert labels.add([label(at=there)]) == ["known"]
    assert labels.frame(LONG_AGO)["measured_at"].to_list() == [AT]


def test_a_frame_holds_what_arrived_since_and_may_be_empty(labels: Labels) -> None:
    labels.add([label()])
    [received_at] = labels.frame(LONG_AGO)["received_at"]
    assert labels.frame(received_at).height == 1
    empty = labels.frame(received_at + timedelta(microseconds=1))
    assert empty.height == 0
    assert dict(empty.schema) == LABEL_FRAME
    assert isinstance(empty, pl.DataFrame)
    with pytest.raises(RecordsError, match="no time zone"):
        labels.frame(datetime(2026, 1, 1))  # noqa: DTZ001  # that is the point


def test_labels_of_many_assets_are_looked_up_and_none_is_no_transaction(labels: Labels) -> None:
    many = [label(asset_id=f"car {number}") for number in range(1200)]
    assert labels.add(many) == ["new"] * 1200
    assert labels.add(many) == ["known"] * 1200
    assert labels.add([]) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.lists(
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from([1.5, 1.6]))),
        max_size=5,
    )
)
def test_outcomes_and_what_counts_follow_from_the_order_of_arrival(
    labels: Labels, sent: list[list[tuple[int, int, float]]]
) -> None:
    fresh = new_id()
    seen: dict[tuple[str, datetime], list[float]] = {}
    for batch in sent:
        expected: list[Outcome] = []
        added = []
        for asset, minute, capacity_ah in batch:
            key = (f"{fresh}-{asset}", AT + timedelta(minutes=minute))
            before = seen.setdefault(key, [])
            expected.append("known" if capacity_ah in before else "correction" if before else "new")
            if capacity_ah not in before:
                before.append(capacity_ah)
            added.append(label(capacity_ah, *key))
        assert labels.add(added) == expected
    for asset in (0, 1):
        name = f"{fresh}-{asset}"
        counted = labels.frame(LONG_AGO).filter(asset_id=name).sort("measured_at")
        last = sorted((at, all_[-1]) for (one, at), all_ in seen.items() if one == name)
        assert counted.select("measured_at", "capacity_ah").rows() == last


def test_senders_of_the_same_label_at_once_are_told_new_once(labels: Labels) -> None:
    told: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: told.extend(labels.add([label()]))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["known"] * 5 + ["new"]


@pytest.mark.parametrize("bad", [0.0, -1.5, float("nan"), float("inf")])
def test_a_capacity_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(RecordsError, match="expected Ah greater than 0"):
        label(bad)


def test_times_without_zone_or_in_the_future_are_refused() -> None:
    now = datetime.now(UTC)
    with pytest.raises(RecordsError, match="no time zone; give one"):
        label(at=datetime(2026, 3, 1))  # noqa: DTZ001  # that is the point
    with pytest.raises(RecordsError, match="is in the future; check the clock"):
        label(at=now + timedelta(minutes=6))
    assert label(at=now + timedelta(minutes=4)).measured_at > now


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 129])
def test_names_and_sources_that_cannot_be_shown_are_refused(text: str) -> None:
    with pytest.raises(RecordsError, match="asset_id of a label"):
        label(asset_id=text)
    with pytest.raises(RecordsError, match="source of a label"):
        Label("B0005", AT, 1.5, text)
