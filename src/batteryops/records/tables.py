"""The tables of the prediction log's database, as the newest migration leaves them."""

from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa


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
    sa.Column("cached", sa.Boolean(), nullable=False, server_default=sa.false()),
    sa.Column("served", sa.Boolean(), nullable=False, server_default=sa.true()),
    sa.Column("contributions", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("base_ah", sa.Double(), nullable=True),
    sa.Index("predictions_by_vehicle", "vehicle_id", "prediction_id").ddl_if(dialect="postgresql"),
    sqlite_with_rowid=False,
)
"""One row per answer to a single request."""

BATCHES: Final = sa.Table(
    "prediction_batches",
    METADATA,
    sa.Column("batch_id", sa.String(36), primary_key=True),
    sa.Column("request_id", sa.String(128), nullable=False),
    sa.Column("answered_at", _Utc(), nullable=False),
    sa.Column("model_name", sa.String(128), nullable=False),
    sa.Column("latency_ms", sa.Double(), nullable=False),
    sa.Column("n_rows", sa.Integer(), nullable=False),
    sa.Column("n_answered", sa.Integer(), nullable=False),
    sa.Column("model_versions", sa.JSON(), nullable=False),
    sa.Column("content", sa.LargeBinary(), nullable=False),
)
"""One row per batch; its answers are in `content`, an Arrow IPC file."""

LABELS: Final = sa.Table(
    "labels",
    METADATA,
    sa.Column("label_id", sa.String(36), primary_key=True),
    sa.Column("asset_id", sa.String(128), nullable=False),
    sa.Column("measured_at", _Utc(), nullable=False),
    sa.Column("capacity_ah", sa.Double(), nullable=False),
    sa.Column("source", sa.String(128), nullable=False),
    sa.Column("received_at", _Utc(), nullable=False),
    sa.Column("key_name", sa.String(64), nullable=True),
    sa.UniqueConstraint("asset_id", "measured_at", "capacity_ah", name="labels_said_once"),
)
"""One row per measured capacity that was sent."""

API_KEYS: Final = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("key_id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("secret_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("scopes", sa.JSON(), nullable=False),
    sa.Column("rate_per_s", sa.Double(), nullable=True),
    sa.Column("created_at", _Utc(), nullable=False),
    sa.Column("expires_at", _Utc(), nullable=True),
    sa.Column("revoked_at", _Utc(), nullable=True),
)
"""One row per API key, of which only a hash is kept."""

MONITORING_RUNS: Final = sa.Table(
    "monitoring_runs",
    METADATA,
    sa.Column("run_id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("at", _Utc(), nullable=False),
    sa.Column("document", sa.JSON(), nullable=False),
    sa.Index("monitoring_runs_by_kind", "kind", "at"),
)
"""One row per monitoring run; what it found is `document`."""

INCIDENTS: Final = sa.Table(
    "incidents",
    METADATA,
    sa.Column("incident_id", sa.String(36), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("cause", sa.JSON(), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("summary", sa.Text(), nullable=False),
    sa.Column("alerts", sa.JSON(), nullable=False),
    sa.Column("started_at", _Utc(), nullable=False),
    sa.Column("opened_at", _Utc(), nullable=False),
    sa.Column("updated_at", _Utc(), nullable=False),
    sa.Column("resolved_at", _Utc(), nullable=True),
    sa.Column("closed_at", _Utc(), nullable=True),
    sa.Column("closed_by", sa.String(128), nullable=True),
    sa.Column("note", sa.Text(), nullable=True),
    sa.Column("notifications", sa.Integer(), nullable=False),
    sa.Column("reopened", sa.Integer(), nullable=False),
    sa.Column("turns", sa.JSON(), nullable=False),
    sa.Column("n_turns", sa.Integer(), nullable=False),
    sa.Column("n_told", sa.Integer(), nullable=False),
    sa.Index("incidents_by_cause", "fingerprint", "incident_id"),
)
"""One row per incident; the ledger has the first `n_told` of its `turns`."""

LEASES: Final = sa.Table(
    "leases",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(128), nullable=False),
    sa.Column("token", sa.BigInteger(), nullable=False),
    sa.Column("seconds", sa.Double(), nullable=False),
    sa.Column("expires_at", _Utc(), nullable=True),
    sa.Column("doubted_at", _Utc(), nullable=True),
)
"""One row per lease that anyone ever took, so that its tokens go on growing."""

RETRAINING_RUNS: Final = sa.Table(
    "retraining_runs",
    METADATA,
    sa.Column("run_id", sa.String(36), primary_key=True),
    sa.Column("place", sa.BigInteger(), nullable=False, unique=True),
    sa.Column("trigger", sa.String(32), nullable=False),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started_at", _Utc(), nullable=False),
    sa.Column("updated_at", _Utc(), nullable=False),
    sa.Column("document", sa.JSON(), nullable=False),
    sa.Index("retraining_runs_by_time", "started_at"),
)
"""One row per retraining run; `place` is the order in which they began, whatever clocks said."""

RETRAINING_REQUESTS: Final = sa.Table(
    "retraining_requests",
    METADATA,
    sa.Column("request_id", sa.String(36), primary_key=True),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("requested_by", sa.String(128), nullable=False),
    sa.Column("requested_at", _Utc(), nullable=False),
    sa.Column("run_id", sa.String(36), nullable=True),
    sa.Index("retraining_requests_by_run", "run_id"),
)
"""One row per request for a retraining; `run_id` once a run has answered it."""
