"""Monitoring runs: what each found, as a JSON document, newest last."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName
from batteryops.records.identifiers import new_id
from batteryops.records.json_documents import as_kept
from batteryops.records.store import Store
from batteryops.records.tables import MONITORING_RUNS

MONITOR: Final = "monitor"
"""Kind of the scheduled run, whose newest document the server's metrics tell."""

_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class MonitoringRun:
    """What one run found.

    Args:
        run_id: in order of writing.
        kind: what ran, such as `monitor`.
        at: when, UTC.
        document: what it found.
    """

    run_id: str
    kind: str
    at: datetime
    document: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return {
            "run_id": self.run_id,
            "kind": self.kind,
            "at": self.at.isoformat(),
            "document": dict(self.document),
        }


class MonitoringRuns(Store):
    """The runs, in the database of the prediction log; safe between threads and processes.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName] = "predictions"

    def add(self, kind: str, at: datetime, document: Mapping[str, Any]) -> MonitoringRun:
        """Put a run on record; it is on disk when this returns.

        Args:
            kind: lower-case letters, digits and underscores, at most 32.
            at: when it ran, with a time zone.
            document: anything that JSON can hold. NaN and infinity are refused: who reads them
                back would find null.

        Returns:
            The run as it is on record.
        """
        if not _KIND.fullmatch(kind):
            raise RecordsError(f"kind {kind!r} of a run: expected lower-case words, _ between")
        if at.utcoffset() is None:
            raise RecordsError(f"the run's time {at} has no time zone; give an aware time")
        kept = as_kept(document)
        run = MonitoringRun(new_id(), kind, at.astimezone(UTC), kept)
        row = {"run_id": run.run_id, "kind": kind, "at": run.at, "document": kept}
        with self._database.write() as connection:
            connection.execute(sa.insert(MONITORING_RUNS), row)
        return run

    def newest(self, kind: str) -> MonitoringRun | None:
        """The run with the latest time; of several at one time the last one written."""
        query = (
            sa.select(MONITORING_RUNS)
            .where(MONITORING_RUNS.c.kind == kind)
            .order_by(MONITORING_RUNS.c.at.desc(), MONITORING_RUNS.c.run_id.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _run(row)

    def since(self, kind: str, at: datetime) -> list[MonitoringRun]:
        """The runs of a time or later, oldest first."""
        if at.utcoffset() is None:
            raise RecordsError(f"since {at} has no time zone; give an aware time")
        query = (
            sa.select(MONITORING_RUNS)
            .where(MONITORING_RUNS.c.kind == kind, MONITORING_RUNS.c.at >= at)
            .order_by(MONITORING_RUNS.c.at, MONITORING_RUNS.c.run_id)
        )
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query)]


def _run(row: sa.Row[Any]) -> MonitoringRun:
    return MonitoringRun(row.run_id, row.kind, row.at, row.document)
