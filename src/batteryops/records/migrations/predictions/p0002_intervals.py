"""The prediction log keeps each answer's interval, and whether its inputs were in the domain."""

import sqlalchemy as sa
from alembic import op

revision = "p0002"
down_revision = "p0001"


def upgrade() -> None:
    """Add the columns; answers that were given before have no interval, and an unknown status."""
    op.add_column("predictions", sa.Column("capacity_low_ah", sa.Double(), nullable=True))
    op.add_column("predictions", sa.Column("capacity_high_ah", sa.Double(), nullable=True))
    op.add_column(
        "predictions",
        sa.Column("status", sa.String(16), nullable=False, server_default="unknown"),
    )
    op.add_column(
        "predictions", sa.Column("outside", sa.JSON(), nullable=False, server_default="[]")
    )
    op.add_column(
        "predictions",
        sa.Column("outside_jointly", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
