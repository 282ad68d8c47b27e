"""Predictions of the log as data frames, singles and rows of batches alike."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import polars as pl
import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.batches import read_content
from batteryops.records.identifiers import uuid7
from batteryops.records.record import FAILED
from batteryops.records.tables import BATCHES, PREDICTIONS

FRAME: Final[dict[str, Any]] = {
    "prediction_id": pl.String(),
    "request_id": pl.String(),
    "answered_at": pl.Datetime("us", "UTC"),
    "vehicle_id": pl.String(),
    "model_name": pl.String(),
    "model_version": pl.String(),
    "package_fingerprint": pl.String(),
    "role": pl.String(),
    "capacity_ah": pl.Float64(),
    "soh": pl.Float64(),
    "latency_ms": pl.Float64(),
    "capacity_low_ah": pl.Float64(),
    "capacity_high_ah": pl.Float64(),
    "status": pl.String(),
    "outside": pl.List(pl.String()),
    "outside_jointly": pl.Boolean(),
    "baseline": pl.String(),
    "cached": pl.Boolean(),
    "served": pl.Boolean(),
}
"""Columns of the frames; the features that were asked for follow, as Float64."""

_AROUND: Final = timedelta(hours=1)  # between the making of an identifier and its answer, at most


def singles_after(
    last_id: str | None, since: datetime, until: datetime, limit: int, *, failed: bool
) -> sa.Select[Any]:
    """Predictions of a span after one of them, in the order of their identifiers."""
    columns = [*(PREDICTIONS.c[name] for name in FRAME), PREDICTIONS.c.features]
    query = _after(PREDICTIONS.c.prediction_id, last_id, since, until, columns).limit(limit)
    return query if failed else query.where(PREDICTIONS.c.status != FAILED)


def batch_after(last_id: str | None, since: datetime, until: datetime) -> sa.Select[Any]:
    """The next batch of a span."""
    return _after(BATCHES.c.batch_id, last_id, since, until, list(BATCHES.c)).limit(1)


def check_span(since: datetime, until: datetime, batch_rows: int, features: Sequence[str]) -> None:
    """Refuse what no frames can be given for.

    Raises:
        RecordsError: saying what.
    """
    for name, at in (("since", since), ("until", until)):
        if at.utcoffset() is None:
            raise RecordsError(f"{name} {at} has no time zone; give an aware time")
    if batch_rows < 1:
        raise RecordsError(f"batch_rows is {batch_rows}, expected at least 1")
    if taken := sorted(set(features) & set(FRAME)):
        raise RecordsError(f"{', '.join(taken)}: a column of every frame, not a feature")


def singles_frame(rows: Sequence[sa.Row[Any]], features: Sequence[str]) -> pl.DataFrame:
    """Rows of `singles_after` as a frame."""
    table = pl.DataFrame([row[:-1] for row in rows], schema=FRAME, orient="row").with_columns(
        pl.when(pl.col("status") != FAILED).then(name).alias(name)
        for name in ("capacity_ah", "soh")
    )
    sent = [row[-1] for row in rows]
    return table.with_columns(
        pl.Series(name, [one.get(name) for one in sent], dtype=pl.Float64) for name in features
    )


def batch_frame(row: sa.Row[Any], features: Sequence[str], *, failed: bool) -> pl.DataFrame:
    """A row of `batch_after` as a frame: those of its rows that a model was asked about."""
    answered = pl.col("capacity_ah").is_not_null()
    asked = answered | (pl.col("status") == FAILED) if failed else answered
    table = read_content(row.content, row.batch_id).filter(asked)
    fingerprints = {one["version"]: one["fingerprint"] for one in row.model_versions}
    served = {one["version"]: one.get("served", True) for one in row.model_versions}
    whole = table.with_columns(
        *(pl.lit(None, pl.Float64).alias(name) for name in features if name not in table.columns),
        prediction_id=pl.format("{}:{}", pl.lit(row.batch_id), "row"),
        request_id=pl.lit(row.request_id),
        answered_at=pl.lit(row.answered_at, pl.Datetime("us", "UTC")),
        model_name=pl.lit(row.model_name),
        model_version=pl.col("version"),
        package_fingerprint=pl.col("version").replace_strict(fingerprints, default=None),
        latency_ms=pl.lit(row.latency_ms),
        capacity_low_ah=pl.col("low"),
        capacity_high_ah=pl.col("high"),
        outside=pl.col("outside").fill_null(pl.lit([], pl.List(pl.String))),
        outside_jointly=pl.col("outside_jointly").fill_null(value=False),
        baseline=pl.lit(None, pl.String),
        cached=pl.lit(value=False),
        served=pl.col("version").replace_strict(served, default=True, return_dtype=pl.Boolean)
        & answered,
    )
    kinds = FRAME | dict.fromkeys(features, pl.Float64())
    return whole.select(pl.col(name).cast(kind) for name, kind in kinds.items())


def _after(
    identifier: sa.Column[str],
    last_id: str | None,
    since: datetime,
    until: datetime,
    columns: Sequence[sa.Column[Any]],
) -> sa.Select[Any]:
    """Those answered in a span. Identifiers hold a time too, and are the key that is searched."""
    at = identifier.table.c.answered_at
    query = sa.select(*columns).where(at >= since, at < until).order_by(identifier)
    query = query.where(identifier < _id_at(until + _AROUND))
    if last_id is not None:
        return query.where(identifier > last_id)
    return query.where(identifier >= first_id(since))


def first_id(at: datetime) -> str:
    """No identifier of an answer that was given at that time or later is less than this one."""
    return _id_at(at - _AROUND)


def _id_at(at: datetime) -> str:
    unix_ms = max(
        0, (at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    )
    return uuid7(unix_ms, 0, 0)
