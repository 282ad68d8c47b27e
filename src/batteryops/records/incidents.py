"""Incidents: one per cause, opened by alerts, closed once the cause has stayed away for a while."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Literal

import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName
from batteryops.records.identifiers import new_id
from batteryops.records.ledger import (
    INCIDENT_CLOSED,
    INCIDENT_OPENED,
    INCIDENT_REOPENED,
    Ledger,
    canonical,
)
from batteryops.records.store import Store
from batteryops.records.tables import INCIDENTS

State = Literal["open", "resolved", "closed"]
Outcome = Literal["opened", "updated", "reopened", "resolved", "ignored"]

SEVERITIES: Final = ("info", "warning", "critical")
"""From the least to the worst; what is called otherwise counts as a warning."""

MOST_ALERTS: Final = 200
"""That an incident keeps, the newest."""

_UNTOLD: Final = INCIDENTS.c.n_told < INCIDENTS.c.n_turns
_CLOSED_BY_ITSELF: Final = "the cause stayed away"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a notification.

    Args:
        fingerprint: tells it from the others of its cause.
        firing: whether it holds.
        labels: what it is about.
        annotations: what a person should know.
        started_at: since when it holds, with a time zone.
        ended_at: until when it held; None where it still does.
    """

    fingerprint: str
    firing: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    started_at: datetime
    ended_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return {
            **asdict(self),
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "started_at": self.started_at.astimezone(UTC).isoformat(),
            "ended_at": None
            if self.ended_at is None
            else self.ended_at.astimezone(UTC).isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Notification:
    """What is told of one cause.

    Args:
        cause: the labels that all its alerts share and by which they are grouped.
        firing: whether any alert holds; False when all of them are over.
        alerts: at least one.
        summary: one line for a person.
    """

    cause: Mapping[str, str]
    firing: bool
    alerts: Sequence[Alert]
    summary: str

    @property
    def severity(self) -> str:
        """The worst of its alerts that hold; of all of them where none does."""
        counted = [alert for alert in self.alerts if alert.firing] or self.alerts
        told = (alert.labels.get("severity", "warning") for alert in counted)
        return max((one if one in SEVERITIES else "warning" for one in told), key=SEVERITIES.index)


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident as it is on record.

    Args:
        incident_id: in order of opening.
        cause: the labels that name it.
        severity: of `SEVERITIES`, the worst that it has had.
        summary: one line for a person.
        alerts: its alerts, each as it was told last, as `Alert.to_json` gives them.
        started_at: when the first alert began, UTC.
        opened_at: when the first notification came, UTC.
        updated_at: when the last one came, UTC.
        resolved_at: since when no alert holds, UTC; None while one does.
        closed_at: when it was closed, UTC; None while it is not.
        closed_by: who did; None where it closed by itself.
        note: why it was closed, in the words of who did.
        notifications: how many came.
        reopened: how often the cause came back before it was closed for good.
        turns: when it was opened, reopened and closed, and by whom.
    """

    incident_id: str
    cause: Mapping[str, str]
    severity: str
    summary: str
    alerts: Sequence[Mapping[str, Any]]
    started_at: datetime
    opened_at: datetime
    updated_at: datetime
    resolved_at: datetime | None
    closed_at: datetime | None
    closed_by: str | None
    note: str | None
    notifications: int
    reopened: int
    turns: Sequence[Mapping[str, Any]]

    @property
    def state(self) -> State:
        """`resolved`: no alert holds any more, but it is not closed yet."""
        if self.closed_at is not None:
            return "closed"
        return "open" if self.resolved_at is None else "resolved"

    def to_json(self) -> dict[str, Any]:
        """The fields and the state as JSON holds them."""
        told = asdict(self)
        for name, value in told.items():
            if isinstance(value, datetime):
                told[name] = value.isoformat()
        return {"incident_id": told.pop("incident_id"), "state": self.state, **told}


def fingerprint_of(cause: Mapping[str, str]) -> str:
    """What tells a cause from others: SHA-256 of its labels, in any order.

    Examples:
        >>> fingerprint_of({"a": "1", "b": "2"}) == fingerprint_of({"b": "2", "a": "1"})
        True
    """
    return hashlib.sha256(canonical(dict(cause)).encode()).hexdigest()


class Incidents(Store):
    """The incidents, in the database of the prediction log; safe between threads and processes.

    An incident is opened once per cause. Notifications that follow update it. When its alerts are
    over it is resolved, and closed once the cause has stayed away for `quiet`; a cause that comes
    back before that reopens it. So an alert that flaps is one incident.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName] = "predictions"

    def receive(
        self, told: Notification, *, at: datetime, quiet: timedelta
    ) -> tuple[Outcome, Incident | None]:
        """Put a notification on record.

        Args:
            told: what it says.
            at: when it came, with a time zone.
            quiet: how long a cause must stay away until its incident is closed.

        Returns:
            What became of it, and its incident; `ignored` and None where something is over that
            nobody knew of.
        """
        fingerprint = fingerprint_of(told.cause)
        with self._database.write(exclusive=True) as connection:
            _close_quiet(connection, at, quiet)
            row = connection.execute(_newest_of(fingerprint)).one_or_none()
            if row is None or not _concerns(row, told, at, quiet):
                if not told.firing:
                    return "ignored", None
                values = _opened(told, fingerprint, at)
                connection.execute(sa.insert(INCIDENTS), values)
                return "opened", _found(connection, values["incident_id"])
            outcome, values = _followed(row, told, at)
            connection.execute(
                sa.update(INCIDENTS)
                .where(INCIDENTS.c.incident_id == row.incident_id)
                .values(**values)
            )
            return outcome, _found(connection, row.incident_id)

    def list(
        self, *, at: datetime, quiet: timedelta, limit: int = 100, only_open: bool = False
    ) -> "list[Incident]":
        """Incidents, the newest first.

        Args:
            at: now; those whose cause has stayed away are closed first.
            quiet: how long that has to be.
            limit: at most so many.
            only_open: only those that are not closed.
        """
        with self._database.read() as connection:
            due = connection.execute(_quiet_ones(at, quiet)).first() is not None
        if due:
            with self._database.write(exclusive=True) as connection:
                _close_quiet(connection, at, quiet)
        query = sa.select(INCIDENTS).order_by(INCIDENTS.c.incident_id.desc()).limit(limit)
        if only_open:
            query = query.where(INCIDENTS.c.closed_at.is_(None))
        with self._database.read() as connection:
            return [_incident(row) for row in connection.execute(query)]

    def get(self, incident_id: str) -> Incident:
        """One incident.

        Raises:
            RecordsError: also where there is none of that identifier.
        """
        with self._database.read() as connection:
            return _found(connection, incident_id)

    def close_one(self, incident_id: str, *, at: datetime, by: str, note: str) -> Incident:
        """Close an incident by hand, whatever its alerts say.

        Alerts that hold already do not open it again. One that begins later does, or opens a new
        incident where the cause has stayed away for long enough.

        Args:
            incident_id: which.
            at: now.
            by: who closes it, printable.
            note: why.

        Raises:
            RecordsError: also where there is no such incident, or it is closed.
        """
        with self._database.write(exclusive=True) as connection:
            found = _found(connection, incident_id)
            if found.closed_at is not None:
                raise RecordsError(
                    f"incident {incident_id} was closed on {found.closed_at:%Y-%m-%d %H:%M} UTC "
                    "already; there is nothing left to do"
                )
            turns = [*found.turns, _turn(INCIDENT_CLOSED, at, by, note)]
            connection.execute(
                sa.update(INCIDENTS)
                .where(INCIDENTS.c.incident_id == incident_id)
                .values(closed_at=at, closed_by=by, note=note, **_turned(turns))
            )
            return _found(connection, incident_id)

    def untold(self) -> bool:
        """Whether there are turns that the ledger does not have yet."""
        query = sa.select(INCIDENTS.c.incident_id).where(_UNTOLD).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def tell(self, ledger: Ledger) -> int:
        """Write the turns that the ledger does not have yet into it.

        The incident is put on record first, whatever becomes of the ledger: who is told of a
        broken ledger must not be kept from hearing it by that ledger. What could not be written
        is written at the next call.

        Returns:
            How many turns were written.
        """
        query = sa.select(INCIDENTS).where(_UNTOLD).order_by(INCIDENTS.c.incident_id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        written = 0
        for row in rows:
            for number in range(row.n_told, row.n_turns):
                turn = row.turns[number]
                details = {
                    "cause": row.cause,
                    "severity": row.severity,
                    "summary": row.summary,
                    "turn": number + 1,
                    "at": turn["at"],
                    "note": turn["note"],
                }
                ledger.append(turn["event"], row.incident_id, details, turn["by"])
                self._told(row.incident_id, number)
                written += 1
        return written

    def _told(self, incident_id: str, number: int) -> None:
        """The ledger has one turn more."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(INCIDENTS)
                .where(INCIDENTS.c.incident_id == incident_id, INCIDENTS.c.n_told == number)
                .values(n_told=number + 1)
            )


def _opened(told: Notification, fingerprint: str, at: datetime) -> dict[str, Any]:
    turns = [_turn(INCIDENT_OPENED, at, None, None)]
    return {
        "incident_id": new_id(),
        "fingerprint": fingerprint,
        "cause": dict(told.cause),
        "severity": told.severity,
        "summary": told.summary,
        "alerts": _merged([], told.alerts),
        "started_at": min(alert.started_at for alert in told.alerts),
        "opened_at": at,
        "updated_at": at,
        "notifications": 1,
        "reopened": 0,
        "n_told": 0,
        **_turned(turns),
    }


def _concerns(row: sa.Row[Any], told: Notification, at: datetime, quiet: timedelta) -> bool:
    """Whether a notification is about this incident, the newest of its cause."""
    if row.closed_at is None:
        return True
    if not told.firing:
        return False
    began = max(alert.started_at for alert in told.alerts if alert.firing)
    closed_by_hand = row.closed_by is not None
    return closed_by_hand and (began <= row.closed_at or at - row.closed_at < quiet)


def _followed(row: sa.Row[Any], told: Notification, at: datetime) -> tuple[Outcome, dict[str, Any]]:
    """What becomes of an incident when another notification about it comes."""
    values: dict[str, Any] = {
        "alerts": _merged(row.alerts, told.alerts),
        "updated_at": at,
        "notifications": row.notifications + 1,
    }
    if not told.firing:
        if row.resolved_at is not None:
            return "updated", values
        return "resolved", values | {"resolved_at": at}
    values["summary"] = told.summary
    values["severity"] = max(row.severity, told.severity, key=SEVERITIES.index)
    began = max(alert.started_at for alert in told.alerts if alert.firing)
    if row.closed_at is not None and began <= row.closed_at:
        return "updated", values  # what was closed by hand still holds
    if row.closed_at is None and row.resolved_at is None:
        return "updated", values
    turns = [*row.turns, _turn(INCIDENT_REOPENED, at, None, None)]
    back = {"resolved_at": None, "closed_at": None, "closed_by": None, "note": None}
    return "reopened", values | back | {"reopened": row.reopened + 1} | _turned(turns)


def _merged(known: Sequence[Mapping[str, Any]], told: Sequence[Alert]) -> list[Mapping[str, Any]]:
    """The alerts of an incident, each as it was told last; what is told last stands last."""
    newest = {alert.fingerprint: alert.to_json() for alert in told}
    kept = [one for one in known if one["fingerprint"] not in newest]
    return [*kept, *newest.values()][-MOST_ALERTS:]


def _quiet_ones(at: datetime, quiet: timedelta) -> sa.Select[Any]:
    """Incidents whose cause has stayed away for so long."""
    return sa.select(INCIDENTS).where(
        INCIDENTS.c.closed_at.is_(None), INCIDENTS.c.resolved_at <= at - quiet
    )


def _close_quiet(connection: sa.Connection, at: datetime, quiet: timedelta) -> None:
    for row in connection.execute(_quiet_ones(at, quiet)).all():
        closed_at = row.resolved_at + quiet
        turns = [*row.turns, _turn(INCIDENT_CLOSED, closed_at, None, _CLOSED_BY_ITSELF)]
        connection.execute(
            sa.update(INCIDENTS)
            .where(INCIDENTS.c.incident_id == row.incident_id)
            .values(closed_at=closed_at, note=_CLOSED_BY_ITSELF, **_turned(turns))
        )


def _turn(event: str, at: datetime, by: str | None, note: str | None) -> dict[str, Any]:
    return {"event": event, "at": at.astimezone(UTC).isoformat(), "by": by, "note": note}


def _turned(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns of an incident that has turned so often."""
    return {"turns": list(turns), "n_turns": len(turns)}


def _newest_of(fingerprint: str) -> sa.Select[Any]:
    return (
        sa.select(INCIDENTS)
        .where(INCIDENTS.c.fingerprint == fingerprint)
        .order_by(INCIDENTS.c.incident_id.desc())
        .limit(1)
    )


def _found(connection: sa.Connection, incident_id: str) -> Incident:
    query = sa.select(INCIDENTS).where(INCIDENTS.c.incident_id == incident_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RecordsError(
            f"there is no incident {incident_id!r}; `batteryops incidents list` shows them"
        )
    return _incident(row)


def _incident(row: sa.Row[Any]) -> Incident:
    inner = ("fingerprint", "n_turns", "n_told")
    return Incident(
        **{
            column.name: getattr(row, column.name)
            for column in INCIDENTS.columns
            if column.name not in inner
        }
    )
