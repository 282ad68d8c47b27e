"""The prediction log: every answer that was given, written before it was acknowledged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal

import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName
from batteryops.records.store import Store

Status = Literal["ok", "out_of_domain", "unknown"]


class _Utc(sa.types.TypeDecorator[datetime]):
    """Aware UTC times on both databases; SQLite has no type for them and stores text."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


METADATA: Final = sa.MetaData()
PREDICTIONS: Final = sa.Table(
    "predictions",
    METADATA,
    sa.Column("prediction_id", sa.String(36), primary_key=True),
    sa.Column("request_id", sa.String(128), nullable=False),
    sa.Column("answered_at", _Utc(), nullable=False),
    sa.Column("vehicle_id", sa.String(128), nullable=False),
    sa.Column("model_name", sa.String(128), nullable=False),
    sa.Column("model_version", sa.String(64), nullable=False),
    sa.Column("package_fingerprint", sa.String(64), nullable=False),
    sa.Column("role", sa.String(32), nullable=False),
    sa.Column("features", sa.JSON(), nullable=False),
    sa.Column("capacity_ah", sa.Double(), nullable=False),
    sa.Column("soh", sa.Double(), nullable=False),
    sa.Column("latency_ms", sa.Double(), nullable=False),
    sa.Column("capacity_low_ah", sa.Double(), nullable=True),
    sa.Column("capacity_high_ah", sa.Double(), nullable=True),
    sa.Column("status", sa.String(16), nullable=False, server_default="unknown"),
    sa.Column("outside", sa.JSON(), nullable=False, server_default="[]"),
    sa.Column("outside_jointly", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("baseline", sa.String(64), nullable=True),
    sa.Index("predictions_by_vehicle", "vehicle_id", "prediction_id"),
    sqlite_with_rowid=False,
)
"""One row per answer, as the newest migration leaves it."""


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One answer.

    Args:
        prediction_id: from `batteryops.records.identifiers.new_id`: in order of time.
        request_id: what the caller, or the server for it, named the request.
        answered_at: when, with a time zone.
        vehicle_id: the asset that was asked about.
        model_name: the registered model.
        model_version: its version in the registry.
        package_fingerprint: SHA-256 of the model package that answered.
        role: what the version stood for: champion, challenger.
        features: what was sent, by feature name; None where a value was missing.
        capacity_ah: the predicted capacity in Ah; also where the answer withheld it.
        soh: that capacity as a share of the nominal one.
        latency_ms: from the request's arrival to the prediction, the commit not included.
        capacity_low_ah: lower end of the prediction interval in Ah; None in records from before
            there were intervals.
        capacity_high_ah: upper end, likewise.
        status: `ok`, or `out_of_domain` where the features were unlike anything in training;
            `unknown` in records from before it was looked at.
        outside: features that put the input outside of the training domain, in the view's order.
        outside_jointly: whether the features together are unlike any in training.
        baseline: version of the asset's own baseline that corrected capacity, SoH and interval;
            None where the model alone answered.

    Raises:
        RecordsError: for a time without a zone, a number that is not finite, an interval that is
            upside down, or a status that the last two contradict.
    """

    prediction_id: str
    request_id: str
    answered_at: datetime
    vehicle_id: str
    model_name: str
    model_version: str
    package_fingerprint: str
    role: str
    features: Mapping[str, float | None]
    capacity_ah: float
    soh: float
    latency_ms: float
    capacity_low_ah: float | None
    capacity_high_ah: float | None
    status: Status
    outside: tuple[str, ...] = ()
    outside_jointly: bool = False
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuse here what the database would store as something else."""
        if self.answered_at.utcoffset() is None:
            raise RecordsError(
                f"prediction {self.prediction_id}: answered_at {self.answered_at} has no time "
                "zone; give an aware time, such as datetime.now(UTC)"
            )
        numbers = {
            **self.features,
            "capacity_ah": self.capacity_ah,
            "soh": self.soh,
            "latency_ms": self.latency_ms,
            "capacity_low_ah": self.capacity_low_ah,
            "capacity_high_ah": self.capacity_high_ah,
        }
        for name, value in numbers.items():
            if value is not None and not math.isfinite(value):
                raise RecordsError(
                    f"prediction {self.prediction_id}: {name} is {value}, expected a finite number"
                )
        low, high = self.capacity_low_ah, self.capacity_high_ah
        if low is not None and high is not None and low > high:
            raise RecordsError(
                f"prediction {self.prediction_id}: the interval runs from {low:g} to {high:g} Ah, "
                "expected the lower end first"
            )
        if (self.status == "out_of_domain") != bool(self.outside or self.outside_jointly):
            raise RecordsError(
                f"prediction {self.prediction_id}: status {self.status} with "
                f"{', '.join(self.outside) or 'no feature'} outside of the training domain; "
                "expected features, or all of them jointly, exactly where it is out_of_domain"
            )


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

    def get(self, prediction_id: str) -> PredictionRecord | None:
        """The record of that identifier, or None."""
        query = sa.select(PREDICTIONS).where(PREDICTIONS.c.prediction_id == prediction_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _record(row)

    def count(self) -> int:
        """How many predictions are in the log."""
        with self._database.read() as connection:
            return connection.execute(
                sa.select(sa.func.count()).select_from(PREDICTIONS)
            ).scalar_one()

    def recent(self, limit: int, vehicle_id: str | None = None) -> list[PredictionRecord]:
        """The last `limit` records, newest first; of one vehicle when it is named."""
        if limit < 1:
            raise RecordsError(f"limit is {limit}, expected at least 1")
        query = sa.select(PREDICTIONS).order_by(PREDICTIONS.c.prediction_id.desc()).limit(limit)
        if vehicle_id is not None:
            query = query.where(PREDICTIONS.c.vehicle_id == vehicle_id)
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(query)]


def _record(row: sa.Row[Any]) -> PredictionRecord:
    columns = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public accessor
    return PredictionRecord(**columns | {"outside": tuple(columns["outside"])})
