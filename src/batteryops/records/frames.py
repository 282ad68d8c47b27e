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

_LOGGED: Final[dict[str, Any]] = {
    "row": pl.Int64(),
    "vehicle_id": pl.String(),
    "role": pl.String(),
    "capacity_ah": pl.Float64(),
    "soh": pl.Float64(),
    "version": pl.String(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "status": pl.String(),
    "outside": pl.List(pl.String()),
    "outside_jointly": pl.Boolean(),
}
"""What a batch's own table tells, by its own names."""

_BATCHES_AT_ONCE: Final = 500
_AROUND: Final = timedelta(hours=1)  # between the making of an identifier and its answer, at most


def singles_after(
    last_id: str | None, since: datetime, until: datetime, limit: int, *, failed: bool
) -> sa.Select[Any]:
    """Predictions of a span after one of them, in the order of their identifiers."""
    columns = [*(PREDICTIONS.c[name] for name in FRAME), PREDICTIONS.c.features]
    query = _after(PREDICTIONS.c.prediction_id, last_id, since, until, columns).limit(limit)
    return query if failed else query.where(PREDICTIONS.c.status != FAILED)


def batches_after(last_id: str | None, since: datetime, until: datetime) -> sa.Select[Any]:
    """Identifiers and rows of the next batches of a span."""
    columns = [BATCHES.c.batch_id, BATCHES.c.n_rows]
    return _after(BATCHES.c.batch_id, last_id, since, until, columns).limit(_BATCHES_AT_ONCE)


def batches_named(identifiers: Sequence[str]) -> sa.Select[Any]:
    """Whole batches, in order."""
    return (
        sa.select(BATCHES).where(BATCHES.c.batch_id.in_(identifiers)).order_by(BATCHES.c.batch_id)
    )


def together(sizes: Sequence[tuple[str, int]], most: int) -> list[str]:
    """The first of some batches that have no more rows together than that; one at least.

    Examples:
        >>> together([("a", 3), ("b", 4), ("c", 2)], 8)
        ['a', 'b']
    """
    taken: list[str] = []
    rows = 0
    for identifier, n_rows in sizes:
        if taken and rows + n_rows > most:
            break
        taken.append(identifier)
        rows += n_rows
    return taken


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


def batches_frame(
    rows: Sequence[sa.Row[Any]], features: Sequence[str], *, failed: bool
) -> pl.DataFrame:
    """Rows of `batches_named` as one frame: those of their rows that a model was asked about."""
    logged = pl.concat([_logged(row, place, features) for place, row in enumerate(rows)])
    heads = pl.DataFrame(
        [
            (place, row.batch_id, row.request_id, row.answered_at, row.model_name, row.latency_ms)
            for place, row in enumerate(rows)
        ],
        schema={"place": pl.UInt32(), "batch_id": pl.String()}
        | {name: FRAME[name] for name in ("request_id", "answered_at", "model_name", "latency_ms")},
        orient="row",
    )
    versions = pl.DataFrame(
        [
            (place, one["version"], one["fingerprint"], one.get("served", True))
            for place, row in enumerate(rows)
            for one in row.model_versions
        ],
        schema={
            "place": pl.UInt32(),
            "model_version": pl.String(),
            "package_fingerprint": pl.String(),
            "heard": pl.Boolean(),
        },
        orient="row",
    )
    answered = pl.col("capacity_ah").is_not_null()
    asked = answered | (pl.col("status") == FAILED) if failed else answered
    whole = (
        logged.filter(asked)
        .rename({"version": "model_version", "low": "capacity_low_ah", "high": "capacity_high_ah"})
        .join(heads, on="place", how="left", maintain_order="left")
        .join(versions, on=["place", "model_version"], how="left", maintain_order="left")
        .with_columns(
            prediction_id=pl.format("{}:{}", "batch_id", "row"),
            outside=pl.col("outside").fill_null(pl.lit([], pl.List(pl.String))),
            outside_jointly=pl.col("outside_jointly").fill_null(value=False),
            baseline=pl.lit(None, pl.String),
            cached=pl.lit(value=False),
            served=pl.col("heard").fill_null(value=True) & answered,
        )
    )
    return whole.select(*FRAME, *features)


def _logged(row: sa.Row[Any], place: int, features: Sequence[str]) -> pl.DataFrame:
    """What is taken of a batch's table, in the same types for all batches."""
    table = read_content(row.content, row.batch_id)
    return table.select(
        pl.lit(place, pl.UInt32).alias("place"),
        *(pl.col(name).cast(kind) for name, kind in _LOGGED.items()),
        *(
            (pl.col(name) if name in table.columns else pl.lit(None)).cast(pl.Float64).alias(name)
            for name in features
        ),
    )


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
