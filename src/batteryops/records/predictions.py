"""The prediction log: every answer that was given, written before it was acknowledged."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, ClassVar, Final

import polars as pl
import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records import frames
from batteryops.records.batches import PredictionBatch, read_content, versions_from_json
from batteryops.records.database import StoreName
from batteryops.records.record import EXPLAINED_AH, FAILED, PredictionRecord, Status
from batteryops.records.store import Store
from batteryops.records.tables import BATCHES, PREDICTIONS

__all__ = ["PredictionBatch", "PredictionLog", "PredictionRecord", "Status"]

_NAMES: Final = tuple(field.name for field in fields(PredictionRecord))


class PredictionLog(Store):
    """The prediction log at a URL; safe between threads.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName] = "predictions"

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Write records, all or none; they are on disk when this returns.

        Raises:
            RecordsError: also when a prediction_id is already there.
        """
        if not records:
            return
        rows = [{name: getattr(record, name) for name in _NAMES} for record in records]
        with self._database.write() as connection:
            connection.execute(sa.insert(PREDICTIONS), rows)

    def append_batch(self, batch: PredictionBatch) -> None:
        """Write a batch, all of it or nothing; it is on disk when this returns.

        Raises:
            RecordsError: also when the batch_id is already there.
        """
        row = {
            "batch_id": batch.batch_id,
            "request_id": batch.request_id,
            "answered_at": batch.answered_at,
            "model_name": batch.model_name,
            "latency_ms": batch.latency_ms,
            "n_rows": batch.table.height,
            "n_answered": batch.n_answered,
            "model_versions": [asdict(one) for one in batch.model_versions],
            "content": batch.content(),
        }
        with self._database.write() as connection:
            connection.execute(sa.insert(BATCHES), row)
        self._database.tidy_up_soon()

    def add_explanations(
        self, explanations: Mapping[str, tuple[Mapping[str, float], float]]
    ) -> None:
        """Keep contributions and base, in Ah, with single predictions, by their identifiers.

        Those that do not add up to what the prediction says are left out.
        """
        if not explanations:
            return
        table = PREDICTIONS.c
        keep = (
            sa.update(PREDICTIONS)
            .where(table.prediction_id == sa.bindparam("of"))
            .where(sa.func.abs(table.capacity_ah - sa.bindparam("total")) <= EXPLAINED_AH)
            .values(contributions=sa.bindparam("added"), base_ah=sa.bindparam("base"))
        )
        rows = [
            {
                "of": prediction_id,
                "total": math.fsum((base_ah, *contributions.values())),
                "added": dict(contributions),
                "base": base_ah,
            }
            for prediction_id, (contributions, base_ah) in explanations.items()
        ]
        with self._database.write() as connection:
            connection.execute(keep, rows)

    def get(self, prediction_id: str) -> PredictionRecord | None:
        """The record of that identifier, or None; of a row of a batch as `<batch_id>:<row>`."""
        batch_id, colon, row = prediction_id.partition(":")
        if colon:
            # nothing but the one way of writing a number is the identifier of a row
            return self._of_batch(batch_id, int(row)) if _is_row(row) else None
        query = sa.select(PREDICTIONS).where(
            PREDICTIONS.c.prediction_id == prediction_id, PREDICTIONS.c.status != FAILED
        )
        with self._database.read() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else _record(found)

    def _of_batch(self, batch_id: str, row: int) -> PredictionRecord | None:
        query = sa.select(BATCHES).where(BATCHES.c.batch_id == batch_id)
        with self._database.read() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else _batch(found).record(row)

    def count(self) -> int:
        """How many predictions are in the log: single ones, and rows of batches with an answer."""
        singles = (
            sa.select(sa.func.count())
            .select_from(PREDICTIONS)
            .where(PREDICTIONS.c.status != FAILED)
        )
        in_batches = sa.select(sa.func.coalesce(sa.func.sum(BATCHES.c.n_answered), 0))
        with self._database.read() as connection:
            return int(
                connection.execute(singles).scalar_one()
                + connection.execute(in_batches).scalar_one()
            )

    def answered_since(self, at: datetime) -> int:
        """How many questions were answered at a time or later; what a shadow said is no answer.

        Args:
            at: with a time zone.
        """
        if at.utcoffset() is None:
            raise RecordsError(f"since {at} has no time zone; give an aware time")
        single = PREDICTIONS.c
        singles = (
            sa.select(sa.func.count())
            .select_from(PREDICTIONS)
            .where(
                single.served, single.prediction_id >= frames.first_id(at), single.answered_at >= at
            )
        )
        batches = sa.select(BATCHES.c.n_answered, BATCHES.c.model_versions).where(
            BATCHES.c.batch_id >= frames.first_id(at), BATCHES.c.answered_at >= at
        )
        with self._database.read() as connection:
            alone: int = connection.execute(singles).scalar_one()
            together = [
                int(n_answered)
                for n_answered, versions in connection.execute(batches)
                if any(one.get("served", True) for one in versions)
            ]
        return alone + sum(together)

    def recent(self, limit: int, vehicle_id: str | None = None) -> list[PredictionRecord]:
        """The last `limit` single predictions, newest first; of one vehicle when it is named.

        Those of batches are not among them: see `frames`. On SQLite there is no index by vehicle:
        the answers to one that is seldom asked about take a look at all.
        """
        if limit < 1:
            raise RecordsError(f"limit is {limit}, expected at least 1")
        query = (
            sa.select(PREDICTIONS)
            .where(PREDICTIONS.c.status != FAILED)
            .order_by(PREDICTIONS.c.prediction_id.desc())
            .limit(limit)
        )
        if vehicle_id is not None:
            query = query.where(PREDICTIONS.c.vehicle_id == vehicle_id)
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(query)]

    def frames(
        self,
        since: datetime,
        until: datetime,
        batch_rows: int = 50_000,
        features: Sequence[str] = (),
        *,
        failed: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """All predictions of a span, of batches too, as frames of one schema.

        Each frame is read when it is asked for, and what is written meanwhile may be in it or not.

        Args:
            since: first time of an answer that is taken, with a zone.
            until: first time that is not taken any more, with a zone.
            batch_rows: at most so many rows a frame.
            features: these follow as columns; null where one was not sent.
            failed: also questions that a model gave no number for, with status `failed` and without
                capacity and SoH.

        Yields:
            The columns of `batteryops.records.frames.FRAME`, then the features: first single
            predictions, then those of batches, each in the order of their identifiers.

        Raises:
            RecordsError: for a time without a zone; a feature that is called like a column.
        """
        frames.check_span(since, until, batch_rows, features)
        last: str | None = None
        while True:
            query = frames.singles_after(last, since, until, batch_rows, failed=failed)
            with self._database.read() as connection:
                rows = connection.execute(query).all()
            if not rows:
                break
            yield frames.singles_frame(rows, features)
            last = rows[-1].prediction_id
        last = None
        while True:
            with self._database.read() as connection:
                sizes = [
                    tuple(row)
                    for row in connection.execute(frames.batches_after(last, since, until))
                ]
                if not sizes:
                    break
                taken = frames.together(sizes, batch_rows)
                batches = connection.execute(frames.batches_named(taken)).all()
            yield from frames.batches_frame(batches, features, failed=failed).iter_slices(
                batch_rows
            )
            last = taken[-1]


def _record(row: sa.Row[Any]) -> PredictionRecord:
    columns = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public accessor
    return PredictionRecord(**columns | {"outside": tuple(columns["outside"])})


def _batch(row: sa.Row[Any]) -> PredictionBatch:
    return PredictionBatch(
        batch_id=row.batch_id,
        request_id=row.request_id,
        answered_at=row.answered_at,
        model_name=row.model_name,
        model_versions=versions_from_json(row.model_versions),
        table=read_content(row.content, row.batch_id),
        latency_ms=row.latency_ms,
    )


def _is_row(text: str) -> bool:
    return (text.isascii() and text.isdecimal() and text == text.lstrip("0")) or text == "0"
