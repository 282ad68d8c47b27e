"""The prediction log's database keeps leases, retraining runs, and requests for one."""

import sqlalchemy as sa
from alembic import op

revision = "p0006"
down_revision = "p0005"


def upgrade() -> None:
    """Add the three tables; nothing that was there changes."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(128), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("doubted_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_table(
        "retraining_runs",
        sa.Column("run_id", sa.String(36), primary_key=True),
        sa.Column("place", sa.BigInteger(), nullable=False, unique=True),
        sa.Column("trigger", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
    )
    op.create_index("retraining_runs_by_time", "retraining_runs", ["started_at"])
    op.create_table(
        "retraining_requests",
        sa.Column("request_id", sa.String(36), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.String(128), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=True),
    )
    op.create_index("retraining_requests_by_run", "retraining_requests", ["run_id"])
