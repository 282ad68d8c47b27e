"""Monitoring runs: what is written is read back, the newest first to be found."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from batteryops.errors import RecordsError
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns

MONDAY = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)


@pytest.fixture
def runs(url: str) -> Iterator[MonitoringRuns]:
    with MonitoringRuns(url) as opened:
        yield opened


def test_the_newest_run_of_a_kind_is_the_one_with_the_latest_time(runs: MonitoringRuns) -> None:
    assert runs.newest(MONITOR) is None
    late = runs.add(MONITOR, MONDAY + timedelta(days=1), {"rows": 2})
    runs.add(MONITOR, MONDAY, {"rows": 1})  # written later, ran sooner
    runs.add("self_test", MONDAY + timedelta(days=2), {"rows": 3})
    assert runs.newest(MONITOR) == late
    again = runs.add(MONITOR, MONDAY + timedelta(days=1), {"rows": 4})
    assert runs.newest(MONITOR) == again


def test_a_run_is_read_back_as_it_was_written_with_its_time_in_utc(runs: MonitoringRuns) -> None:
    document: dict[str, Any] = {"drift": {"features": {"ä": {"psi": 0.1 + 0.2}}}, "none": None}
    at = datetime(2026, 3, 2, 12, 30, tzinfo=timezone(timedelta(hours=8)))
    runs.add(MONITOR, at, document)
    found = runs.newest(MONITOR)
    assert found is not None
    assert (found.document, found.at, found.at.utcoffset()) == (document, at, timedelta(0))
    assert found.to_json() == {
        "run_id": found.run_id,
        "kind": "monitor",
        "at": "2026-03-02T04:30:00+00:00",
        "document": document,
    }


def test_runs_since_a_time_come_oldest_first(runs: MonitoringRuns) -> None:
    for day in (3, 1, 2):
        runs.add(MONITOR, MONDAY + timedelta(days=day), {"day": day})
    found = runs.since(MONITOR, MONDAY + timedelta(days=2))
    assert [run.document["day"] for run in found] == [2, 3]


@pytest.mark.parametrize(
    ("kind", "at", "document", "said"),
    [
        ("Monitor", MONDAY, {}, "lower-case words"),
        (MONITOR, MONDAY.replace(tzinfo=None), {}, "has no time zone"),
        (MONITOR, MONDAY, {"a": [1.0, float("nan")]}, r"document\.a\[1\] of the run is nan"),
        (MONITOR, MONDAY, {"a": {"b": float("inf")}}, r"document\.a\.b of the run is inf"),
        (MONITOR, MONDAY, {"a": object()}, "cannot be kept as JSON"),
    ],
)
def test_what_could_not_be_read_back_is_refused(
    runs: MonitoringRuns, kind: str, at: datetime, document: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecordsError, match=said):
        runs.add(kind, at, document)
    assert runs.newest(MONITOR) is None


def test_a_time_without_zone_is_not_compared(runs: MonitoringRuns) -> None:
    with pytest.raises(RecordsError, match="has no time zone"):
        runs.since(MONITOR, MONDAY.replace(tzinfo=None))
