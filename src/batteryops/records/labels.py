"""Labels: measured capacities that arrive after the answers, to be joined with them later."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Literal

import polars as pl
import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName
from batteryops.records.identifiers import new_id
from batteryops.records.store import Store
from batteryops.records.tables import LABELS

Outcome = Literal["new", "known", "correction"]

CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How far in the future a measurement may seem to lie."""

LABEL_FRAME: Final[dict[str, Any]] = {
    "label_id": pl.String(),
    "asset_id": pl.String(),
    "measured_at": pl.Datetime("us", "UTC"),
    "capacity_ah": pl.Float64(),
    "source": pl.String(),
    "received_at": pl.Datetime("us", "UTC"),
    "key_name": pl.String(),
}
"""Columns of `Labels.frame`."""

_MAX_TEXT: Final = 128
_MAX_AHEAD: Final = 500  # assets that one query looks up


@dataclass(frozen=True, slots=True)
class Label:
    """A measured capacity.

    Args:
        asset_id: what was measured.
        measured_at: when, with a time zone.
        capacity_ah: greater than 0, Ah.
        source: how or by whom it was measured, in the sender's words.

    Raises:
        RecordsError: for a capacity that is none, a time without a zone or in the future, or text
            that is empty, unprintable or longer than 128 characters.
    """

    asset_id: str
    measured_at: datetime
    capacity_ah: float
    source: str

    def __post_init__(self) -> None:
        """Refuse what cannot be a measurement."""
        for name, text in (("asset_id", self.asset_id), ("source", self.source)):
            if not (0 < len(text) <= _MAX_TEXT and text.isprintable()):
                raise RecordsError(
                    f"{name} of a label is {text[:_MAX_TEXT]!r}, expected 1 to {_MAX_TEXT} "
                    "printable characters"
                )
        if not (math.isfinite(self.capacity_ah) and self.capacity_ah > 0):
            raise RecordsError(
                f"label of {self.asset_id}: capacity_ah is {self.capacity_ah}, expected Ah "
                "greater than 0"
            )
        if self.measured_at.utcoffset() is None:
            raise RecordsError(
                f"label of {self.asset_id}: measured_at {self.measured_at} has no time zone; give "
                "one, such as 2026-03-01T12:30:00Z"
            )
        if self.measured_at > datetime.now(UTC) + CLOCKS_DIFFER:
            raise RecordsError(
                f"label of {self.asset_id}: measured_at {self.measured_at} is in the future; check "
                "the clock and the time zone of what measured"
            )


class Labels(Store):
    """The labels, in the database of the prediction log; safe between threads and processes.

    Nothing is ever overwritten: of several capacities for one asset and time, all stay, and the
    last one received counts.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName] = "predictions"

    def add(self, labels: Sequence[Label], key_name: str | None = None) -> list[Outcome]:
        """Write labels, all or none; they are on disk when this returns.

        Args:
            labels: in the order in which they count: a later one corrects an earlier one.
            key_name: whose API key sent them.

        Returns:
            For each what it was: `new`; `known`, when this very capacity is on record for the asset
            and time, which changes nothing, also where it was corrected since; a `correction` of
            another capacity.
        """
        if not labels:
            return []
        with self._database.write(exclusive=True) as connection:
            # not earlier: who asks for what arrived since then must find what commits later
            received_at = datetime.now(UTC)
            known = _known(connection, labels)
            outcomes: list[Outcome] = []
            rows = []
            for label in labels:
                at = label.measured_at.astimezone(UTC)
                capacities = known.setdefault((label.asset_id, at), set())
                if label.capacity_ah in capacities:
                    outcomes.append("known")
                    continue
                outcomes.append("correction" if capacities else "new")
                capacities.add(label.capacity_ah)
                rows.append(
                    {
                        "label_id": new_id(),
                        "asset_id": label.asset_id,
                        "measured_at": at,
                        "capacity_ah": float(label.capacity_ah),
                        "source": label.source,
                        "received_at": received_at,
                        "key_name": key_name,
                    }
                )
            if rows:
                connection.execute(sa.insert(LABELS), rows)
        return outcomes

    def frame(self, since: datetime, *, corrected: bool = False) -> pl.DataFrame:
        """The labels received at a time or later, in order of arrival.

        Args:
            since: with a time zone. Labels may arrive long after they were measured; who joins
                them asks for what arrived.
            corrected: also those which a later one corrected.

        Returns:
            The columns of `LABEL_FRAME`.
        """
        if since.utcoffset() is None:
            raise RecordsError(f"since {since} has no time zone; give an aware time")
        columns = [LABELS.c[name] for name in LABEL_FRAME]
        query = sa.select(*columns).where(LABELS.c.received_at >= since).order_by(LABELS.c.label_id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        table = pl.DataFrame([tuple(row) for row in rows], schema=LABEL_FRAME, orient="row")
        if corrected:
            return table
        # whatever corrects a label arrived after it, so it is among these too
        return table.unique(["asset_id", "measured_at"], keep="last", maintain_order=True)


def _known(
    connection: sa.Connection, labels: Sequence[Label]
) -> dict[tuple[str, datetime], set[float]]:
    """Capacities on record by asset and time, for the assets and times of these labels."""
    times = [label.measured_at for label in labels]
    assets = sorted({label.asset_id for label in labels})
    known: dict[tuple[str, datetime], set[float]] = {}
    for start in range(0, len(assets), _MAX_AHEAD):
        query = sa.select(LABELS.c.asset_id, LABELS.c.measured_at, LABELS.c.capacity_ah).where(
            LABELS.c.asset_id.in_(assets[start : start + _MAX_AHEAD]),
            LABELS.c.measured_at.between(min(times), max(times)),
        )
        for asset_id, at, capacity_ah in connection.execute(query):
            known.setdefault((asset_id, at), set()).add(capacity_ah)
    return known
