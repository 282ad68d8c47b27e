"""Incidents: one per cause, however often it is told; closed when the cause stays away."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batteryops.errors import RecordsError
from batteryops.records.incidents import MOST_ALERTS, Alert, Incidents, Notification
from batteryops.records.ledger import Ledger

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
QUIET = timedelta(minutes=30)
CLIMATE = {"cause": "climate"}


def minutes(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def alert(
    name: str = "a", *, firing: bool = True, since: float = 0, severity: str = "warning"
) -> Alert:
    return Alert(
        fingerprint=name,
        firing=firing,
        labels={"alertname": "DataDriftDetected", "feature": name, "severity": severity},
        annotations={"summary": f"{name} drifts"},
        started_at=minutes(since),
        ended_at=None if firing else minutes(since + 1),
    )


def told(*alerts: Alert, cause: dict[str, str] | None = None) -> Notification:
    return Notification(
        cause=CLIMATE if cause is None else cause,
        firing=any(one.firing for one in alerts),
        alerts=alerts,
        summary="features drift",
    )


@pytest.fixture
def incidents(url: str) -> Iterator[Incidents]:
    with Incidents(url) as opened:
        yield opened


@pytest.fixture
def receive(incidents: Incidents) -> Callable[..., str]:
    """Hand over a notification that came so many minutes after noon; what became of it."""

    def hand_over(at: float, *alerts: Alert, cause: dict[str, str] | None = None) -> str:
        return incidents.receive(told(*alerts, cause=cause), at=minutes(at), quiet=QUIET)[0]

    return hand_over


def test_a_cause_is_one_incident_however_often_and_with_whatever_alerts_it_is_told(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    assert receive(1, alert("a")) == "opened"
    assert receive(2, alert("a")) == "updated"
    assert receive(3, alert("a"), alert("b", severity="critical")) == "updated"
    assert receive(4, alert("c"), cause={"cause": "outage"}) == "opened"
    newest, oldest = incidents.list(at=minutes(5), quiet=QUIET)
    assert (newest.cause, oldest.cause) == ({"cause": "outage"}, CLIMATE)
    assert (oldest.state, oldest.notifications, oldest.severity) == ("open", 3, "critical")
    assert [one["fingerprint"] for one in oldest.alerts] == ["a", "b"]
    assert (oldest.started_at, oldest.opened_at, oldest.updated_at) == (
        NOON,
        minutes(1),
        minutes(3),
    )


def test_the_order_of_the_labels_of_a_cause_does_not_matter(receive: Callable[..., str]) -> None:
    assert receive(1, alert(), cause={"a": "1", "b": "2"}) == "opened"
    assert receive(2, alert(), cause={"b": "2", "a": "1"}) == "updated"


def test_an_incident_is_closed_once_its_cause_has_stayed_away(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    receive(0, alert())
    assert receive(10, alert(firing=False)) == "resolved"
    (found,) = incidents.list(at=minutes(39), quiet=QUIET)
    assert (found.state, found.resolved_at) == ("resolved", minutes(10))
    (found,) = incidents.list(at=minutes(40), quiet=QUIET)
    assert (found.state, found.closed_at, found.closed_by) == ("closed", minutes(40), None)
    assert incidents.list(at=minutes(41), quiet=QUIET, only_open=True) == []


def test_a_cause_that_comes_back_soon_reopens_its_incident_and_later_opens_another(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    receive(0, alert())
    receive(10, alert(firing=False))
    assert receive(39, alert(since=38)) == "reopened"
    receive(50, alert(since=38, firing=False))
    assert receive(51, alert(since=38, firing=False)) == "updated"  # told twice
    assert receive(80, alert(since=79)) == "opened"
    newest, oldest = incidents.list(at=minutes(81), quiet=QUIET)
    assert (oldest.state, oldest.reopened, oldest.closed_at) == ("closed", 1, minutes(80))
    assert (newest.state, newest.reopened, newest.opened_at) == ("open", 0, minutes(80))


def test_what_is_over_and_was_never_known_opens_nothing(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    assert receive(1, alert(firing=False)) == "ignored"
    assert incidents.list(at=minutes(2), quiet=QUIET) == []


def test_what_is_closed_by_hand_stays_closed_while_the_same_alerts_hold(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    receive(1, alert(since=0))
    (found,) = incidents.list(at=minutes(2), quiet=QUIET)
    closed = incidents.close_one(found.incident_id, at=minutes(5), by="ada", note="known winter")
    assert (closed.state, closed.closed_by, closed.note) == ("closed", "ada", "known winter")
    assert receive(240, alert(since=0)) == "updated"
    assert incidents.get(found.incident_id).state == "closed"
    assert receive(241, alert(since=0), alert("b", since=200)) == "opened"
    with pytest.raises(RecordsError, match="was closed on 2026-03-02 12:05 UTC already"):
        incidents.close_one(found.incident_id, at=minutes(6), by="ada", note="again")


def test_what_is_closed_by_hand_and_begins_anew_soon_is_reopened(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    receive(1, alert(since=0))
    (found,) = incidents.list(at=minutes(2), quiet=QUIET)
    incidents.close_one(found.incident_id, at=minutes(5), by="ada", note="mended")
    assert receive(10, alert(since=9)) == "reopened"
    again = incidents.get(found.incident_id)
    assert (again.state, again.closed_by, again.note) == ("open", None, None)


def test_of_many_alerts_the_newest_are_kept(incidents: Incidents) -> None:
    for start in range(0, MOST_ALERTS + 50, 50):
        some = [alert(f"{number:04}") for number in range(start, start + 50)]
        incidents.receive(told(*some), at=minutes(start), quiet=QUIET)
    (found,) = incidents.list(at=minutes(0), quiet=QUIET)
    kept = [one["fingerprint"] for one in found.alerts]
    assert kept == [f"{number:04}" for number in range(50, MOST_ALERTS + 50)]


def test_a_severity_that_is_not_known_counts_as_a_warning(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    receive(1, alert(severity="page"))
    assert incidents.list(at=minutes(2), quiet=QUIET)[0].severity == "warning"


def test_only_an_incident_that_there_is_can_be_had(incidents: Incidents) -> None:
    with pytest.raises(RecordsError, match=r"no incident 'x'; `batteryops incidents list`"):
        incidents.get("x")


def test_every_turn_of_an_incident_goes_on_the_ledger_once(
    incidents: Incidents, receive: Callable[..., str], tmp_path: Path
) -> None:
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        receive(0, alert())
        assert incidents.tell(ledger) == 1
        assert incidents.tell(ledger) == 0
        receive(10, alert(firing=False))
        receive(20, alert(since=19))
        (found,) = incidents.list(at=minutes(21), quiet=QUIET)
        incidents.close_one(found.incident_id, at=minutes(22), by="ada", note="mended")
        assert incidents.tell(ledger) == 2
        entries = ledger.entries()
        assert ledger.verify().intact
    assert [(one.event, one.subject, one.actor) for one in entries] == [
        ("incident_opened", found.incident_id, None),
        ("incident_reopened", found.incident_id, None),
        ("incident_closed", found.incident_id, "ada"),
    ]
    assert entries[2].details == {
        "cause": CLIMATE,
        "severity": "warning",
        "summary": "features drift",
        "turn": 3,
        "at": minutes(22).isoformat(),
        "note": "mended",
    }


def test_a_ledger_that_refuses_keeps_no_incident_from_being_opened_and_hears_of_it_later(
    incidents: Incidents,
    receive: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_given: object) -> None:
        raise RecordsError("the ledger is not usable")

    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        receive(0, alert())
        with monkeypatch.context() as broken:
            broken.setattr(Ledger, "append", refuses)
            with pytest.raises(RecordsError):
                incidents.tell(ledger)
        assert incidents.tell(ledger) == 1


def test_json_holds_what_is_known_and_the_state(
    incidents: Incidents, receive: Callable[..., str]
) -> None:
    receive(1, alert())
    document = incidents.list(at=minutes(2), quiet=QUIET)[0].to_json()
    assert list(document)[:3] == ["incident_id", "state", "cause"]
    assert (document["state"], document["opened_at"], document["closed_at"]) == (
        "open",
        minutes(1).isoformat(),
        None,
    )
    assert document["alerts"][0]["started_at"] == NOON.isoformat()
