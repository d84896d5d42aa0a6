"""Predictions say how far a case lies from every confirmed one; older ones do not, and stay as they are."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the share of confirmed cases that lie nearer to another one; a row without it holds NULL."""
    op.add_column("predictions", sa.Column("remoteness", sa.Double(), nullable=True))
