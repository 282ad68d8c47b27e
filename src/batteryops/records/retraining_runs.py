"""Retraining runs: each from its decision to its end, one at a time; and requests for one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName
from batteryops.records.identifiers import new_id
from batteryops.records.json_documents import as_kept
from batteryops.records.leases import Lease, require
from batteryops.records.store import Store
from batteryops.records.tables import RETRAINING_REQUESTS, RETRAINING_RUNS

State = Literal[
    "decided",
    "candidate",
    "trial",
    "probation",
    "promoted",
    "kept",
    "rejected",
    "harmful",
    "rolled_back",
    "failed",
    "abandoned",
]

NEXT: Final[Mapping[State, tuple[State, ...]]] = MappingProxyType(
    {
        "decided": ("candidate", "kept", "rejected", "failed", "abandoned"),
        "candidate": ("trial", "kept", "rejected", "failed", "abandoned"),
        "trial": ("probation", "kept", "rejected", "harmful", "failed", "abandoned"),
        "probation": ("promoted", "rolled_back", "failed", "abandoned"),
    }
)
"""Where a run may go from each state in which it has not ended.

`decided`: the reason is on record, nothing else. `candidate`: the update is registered. `trial`: it
stands against the champion. `probation`: it is the champion, and watched. It ends as `promoted`,
once it stays; `kept`, where the current model stays as nothing better came; `rejected`, where a
gate or the trial said no; `harmful`, where the trial was stopped; `rolled_back`; `failed`, with an
error; or `abandoned`, where a person or a later event overtook it.
"""

TRIAL: Final = "trial"
PROBATION: Final = "probation"

_TRIGGER_LENGTH: Final = 32
_BY_LENGTH: Final = 128
_REASON_LENGTH: Final = 10_000


@dataclass(frozen=True, slots=True)
class RetrainingRun:
    """One run as it is on record.

    Args:
        run_id: names it.
        trigger: what asked for it, one of `batteryops.lifecycle.triggers.TRIGGERS`.
        reason: one sentence.
        state: where it stands.
        started_at: when it was decided, UTC.
        updated_at: when it was moved last, UTC: of one that has ended, when it did.
        document: what is known of it so far.
    """

    run_id: str
    trigger: str
    reason: str
    state: State
    started_at: datetime
    updated_at: datetime
    document: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        """Whether it goes nowhere any more."""
        return self.state not in NEXT

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return {
            "run_id": self.run_id,
            "trigger": self.trigger,
            "reason": self.reason,
            "state": self.state,
            "ended": self.ended,
            "started_at": self.started_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
            "document": dict(self.document),
        }


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody's wish for a retraining.

    Args:
        request_id: in order of asking.
        reason: in the words of who asked.
        by: who did.
        at: when, UTC.
    """

    request_id: str
    reason: str
    by: str
    at: datetime

    def to_json(self) -> dict[str, str]:
        """The fields as JSON holds them."""
        return {
            "request_id": self.request_id,
            "reason": self.reason,
            "by": self.by,
            "at": self.at.isoformat(),
        }


class RetrainingRuns(Store):
    """The runs, in the database of the prediction log; safe between threads and processes.

    At most one is open at any time. One on probation is not: the fleet goes on changing while a new
    champion is watched, and what it does not know yet is learned meanwhile. Whoever starts or moves
    one has a lease, which is looked at in the same transaction: a controller that slept through its
    lease changes nothing.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName] = "predictions"

    def start(  # noqa: PLR0913 - each is one fact of the run
        self,
        *,
        trigger: str,
        reason: str,
        at: datetime,
        document: Mapping[str, Any],
        lease: Lease,
        requests: Sequence[Request] = (),
    ) -> RetrainingRun:
        """Put a decision to retrain on record; it is on disk when this returns.

        Args:
            trigger: what asked for it, 1 to 32 characters.
            reason: one sentence.
            at: when it was decided, with a time zone.
            document: anything that JSON can hold; NaN and infinity are refused.
            lease: that the caller acts by.
            requests: that it answers, in the same transaction: no crash leaves them open, for a
                second run to answer.

        Raises:
            LeaseLostError: the lease is another's by now.
            RecordsError: also while another run is open.
        """
        _check_text("trigger", trigger, _TRIGGER_LENGTH)
        _check_text("reason", reason, _REASON_LENGTH)
        _check_time(at)
        row = {
            "run_id": new_id(),
            "trigger": trigger,
            "reason": reason,
            "state": "decided",
            "started_at": at,
            "updated_at": at,
            "document": as_kept(document),
        }
        with self._database.write(exclusive=True) as connection:
            require(connection, lease)
            if (other := connection.execute(_OPEN).first()) is not None:
                raise RecordsError(
                    f"retraining run {other.run_id} of {other.started_at:%Y-%m-%d %H:%M} UTC is "
                    f"still open ({other.state}); one runs at a time, wait for its end"
                )
            last = connection.execute(sa.select(sa.func.max(RETRAINING_RUNS.c.place))).scalar()
            row["place"] = 1 if last is None else last + 1
            connection.execute(sa.insert(RETRAINING_RUNS), row)
            _answer(connection, requests, str(row["run_id"]))
            return _found(connection, str(row["run_id"]))

    def open(self) -> RetrainingRun | None:
        """The run that is under way: decided, with a candidate, or on trial."""
        with self._database.read() as connection:
            row = connection.execute(_OPEN).first()
        return None if row is None else _run(row)

    def on_probation(self) -> list[RetrainingRun]:
        """Those whose version was promoted and is watched, in the order in which they began."""
        query = (
            sa.select(RETRAINING_RUNS)
            .where(RETRAINING_RUNS.c.state == PROBATION)
            .order_by(RETRAINING_RUNS.c.place)
        )
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query)]

    def move(
        self,
        run: RetrainingRun,
        state: State,
        *,
        at: datetime,
        document: Mapping[str, Any] | None = None,
        lease: Lease,
    ) -> RetrainingRun:
        """Bring a run to its next state, or write down more about it in the one where it is.

        Args:
            run: as it was read or moved last; one that was moved since is not moved.
            state: one that `NEXT` allows, or its own.
            at: now, with a time zone.
            document: what is new. A mapping is merged into one of the same name, at any depth;
                everything else takes the place of what was there.
            lease: that the caller acts by.

        Returns:
            The run as it is on record now.

        Raises:
            LeaseLostError: the lease is another's by now.
            RecordsError: also for a move that its state does not allow.
        """
        _check_time(at)
        added = as_kept({} if document is None else document)
        with self._database.write(exclusive=True) as connection:
            require(connection, lease)
            known = _found(connection, run.run_id)
            if known.state != run.state:
                raise RecordsError(
                    f"retraining run {run.run_id} is {known.state} by now, not {run.state}; read "
                    "it again"
                )
            _check_move(known, state)
            connection.execute(
                sa.update(RETRAINING_RUNS)
                .where(RETRAINING_RUNS.c.run_id == run.run_id)
                .values(state=state, updated_at=at, document=_merged(known.document, added))
            )
            return _found(connection, run.run_id)

    def get(self, run_id: str) -> RetrainingRun:
        """One run.

        Raises:
            RecordsError: also where there is none of that identifier.
        """
        with self._database.read() as connection:
            return _found(connection, run_id)

    def since(self, at: datetime) -> list[RetrainingRun]:
        """The runs that were started at a time or later, in the order in which they were."""
        _check_time(at)
        query = (
            sa.select(RETRAINING_RUNS)
            .where(RETRAINING_RUNS.c.started_at >= at)
            .order_by(RETRAINING_RUNS.c.place)
        )
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query)]

    def newest(self) -> RetrainingRun | None:
        """The run that was started last, whatever the clocks said."""
        query = sa.select(RETRAINING_RUNS).order_by(RETRAINING_RUNS.c.place.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _run(row)

    def counts(self) -> list[dict[str, Any]]:
        """How many runs each trigger led to each end: `reason`, `outcome` and `runs`.

        Runs that are open are left out: these numbers never fall, as a Prometheus counter must not.
        """
        query = (
            sa.select(
                RETRAINING_RUNS.c.trigger, RETRAINING_RUNS.c.state, sa.func.count().label("runs")
            )
            .where(RETRAINING_RUNS.c.state.not_in(NEXT))
            .group_by(RETRAINING_RUNS.c.trigger, RETRAINING_RUNS.c.state)
            .order_by(RETRAINING_RUNS.c.trigger, RETRAINING_RUNS.c.state)
        )
        with self._database.read() as connection:
            return [
                {"reason": row.trigger, "outcome": row.state, "runs": row.runs}
                for row in connection.execute(query)
            ]

    def request(self, reason: str, *, by: str, at: datetime) -> Request:
        """Ask for a retraining; it is on disk when this returns. No lease is needed.

        Args:
            reason: why, in words.
            by: who asks, 1 to 128 characters.
            at: now, with a time zone.
        """
        _check_text("reason", reason, _REASON_LENGTH)
        _check_text("by", by, _BY_LENGTH)
        _check_time(at)
        asked = Request(new_id(), reason, by, at.astimezone(UTC))
        row = {
            "request_id": asked.request_id,
            "reason": reason,
            "requested_by": by,
            "requested_at": asked.at,
        }
        with self._database.write() as connection:
            connection.execute(sa.insert(RETRAINING_REQUESTS), row)
        return asked

    def requests(self) -> tuple[Request, ...]:
        """Those that no run has answered, in the order in which they were asked."""
        query = (
            sa.select(RETRAINING_REQUESTS)
            .where(RETRAINING_REQUESTS.c.run_id.is_(None))
            .order_by(RETRAINING_REQUESTS.c.request_id)
        )
        with self._database.read() as connection:
            return tuple(
                Request(row.request_id, row.reason, row.requested_by, row.requested_at)
                for row in connection.execute(query)
            )

    def answer(self, requests: Sequence[Request], run_id: str) -> None:
        """Say which run answers requests; saying so again changes nothing.

        Raises:
            RecordsError: also where there is no such run or request, or another run has answered
                it. None is answered then.
        """
        with self._database.write(exclusive=True) as connection:
            _found(connection, run_id)
            _answer(connection, requests, run_id)


_OPEN: Final = (
    sa.select(RETRAINING_RUNS)
    .where(RETRAINING_RUNS.c.state.in_([state for state in NEXT if state != PROBATION]))
    .order_by(RETRAINING_RUNS.c.place)
)


def _answer(connection: sa.Connection, requests: Sequence[Request], run_id: str) -> None:
    for request in requests:
        of_request = RETRAINING_REQUESTS.c.request_id == request.request_id
        row = connection.execute(sa.select(RETRAINING_REQUESTS).where(of_request)).one_or_none()
        if row is None:
            raise RecordsError(
                f"there is no request {request.request_id!r}; only one that was asked is answered"
            )
        if row.run_id not in (None, run_id):
            raise RecordsError(
                f"request {request.request_id} was answered by run {row.run_id}; it needs no other"
            )
        connection.execute(sa.update(RETRAINING_REQUESTS).where(of_request).values(run_id=run_id))


def _check_move(run: RetrainingRun, state: State) -> None:
    if run.ended:
        raise RecordsError(
            f"retraining run {run.run_id} has ended ({run.state}); it cannot be {state} any more"
        )
    if state not in (run.state, *NEXT[run.state]):
        raise RecordsError(
            f"retraining run {run.run_id} is {run.state}; it can be "
            f"{', '.join(NEXT[run.state])} next, not {state!r}"
        )


def _merged(known: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """A document with what is new; mappings of one name become one."""
    merged = dict(known)
    for name, value in added.items():
        had = merged.get(name)
        if isinstance(had, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(had, value)
        else:
            merged[name] = value
    return merged


def _check_text(what: str, value: str, most: int) -> None:
    if not (value.strip() and len(value) <= most and value.isprintable()):
        raise RecordsError(
            f"{what} {value[:50]!r} of a retraining: expected 1 to {most} printable characters"
        )


def _check_time(at: datetime) -> None:
    if at.utcoffset() is None:
        raise RecordsError(f"the time {at} of a retraining has no time zone; give an aware time")


def _found(connection: sa.Connection, run_id: str) -> RetrainingRun:
    query = sa.select(RETRAINING_RUNS).where(RETRAINING_RUNS.c.run_id == run_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RecordsError(
            f"there is no retraining run {run_id!r}; `batteryops retrain list` shows them"
        )
    return _run(row)


def _run(row: sa.Row[Any]) -> RetrainingRun:
    return RetrainingRun(
        row.run_id,
        row.trigger,
        row.reason,
        row.state,
        row.started_at,
        row.updated_at,
        row.document,
    )
