"""The prediction log's first form: one row per answer given."""

import sqlalchemy as sa
from alembic import op

revision = "p0001"
down_revision = None


def upgrade() -> None:
    """Create the table of predictions."""
    op.create_table(
        "predictions",
        sa.Column("prediction_id", sa.String(36), primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("vehicle_id", sa.String(128), nullable=False),
        sa.Column("model_name", sa.String(128), nullable=False),
        sa.Column("model_version", sa.String(64), nullable=False),
        sa.Column("package_fingerprint", sa.String(64), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.Column("capacity_ah", sa.Double(), nullable=False),
        sa.Column("soh", sa.Double(), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("predictions_by_vehicle", "predictions", ["vehicle_id", "prediction_id"])
