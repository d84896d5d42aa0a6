"""Readers' lengths are kept with their readings; an older reading has none."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the lengths of one reader on one case."""
    op.add_column("readings", sa.Column("lengths", sa.JSON(), nullable=True))
