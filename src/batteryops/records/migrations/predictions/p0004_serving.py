"""The prediction log keeps what serving adds: batches, explanations, labels, and keys."""

import sqlalchemy as sa
from alembic import op

revision = "p0004"
down_revision = "p0003"


def upgrade() -> None:
    """Add columns and tables; answers that were given before went out, and without explanation.

    On SQLite, keeping an index by vehicle was half of what a commit cost, and nothing asks by it.
    """
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("predictions_by_vehicle", "predictions")
    op.add_column(
        "predictions",
        sa.Column("cached", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "predictions",
        sa.Column("served", sa.Boolean(), nullable=False, server_default=sa.true()),
    )
    op.add_column("predictions", sa.Column("contributions", sa.JSON(), nullable=True))
    op.add_column("predictions", sa.Column("base_ah", sa.Double(), nullable=True))
    op.create_table(
        "prediction_batches",
        sa.Column("batch_id", sa.String(36), primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_name", sa.String(128), nullable=False),
        sa.Column("latency_ms", sa.Double(), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("n_answered", sa.Integer(), nullable=False),
        sa.Column("model_versions", sa.JSON(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "labels",
        sa.Column("label_id", sa.String(36), primary_key=True),
        sa.Column("asset_id", sa.String(128), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("capacity_ah", sa.Double(), nullable=False),
        sa.Column("source", sa.String(128), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_name", sa.String(64), nullable=True),
        sa.UniqueConstraint("asset_id", "measured_at", "capacity_ah", name="labels_said_once"),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("secret_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("rate_per_s", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
    )
