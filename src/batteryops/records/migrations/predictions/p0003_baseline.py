"""The prediction log keeps which baseline of the asset corrected an answer."""

import sqlalchemy as sa
from alembic import op

revision = "p0003"
down_revision = "p0002"


def upgrade() -> None:
    """Add the column; answers that were given before are the model's own."""
    op.add_column("predictions", sa.Column("baseline", sa.String(64), nullable=True))
