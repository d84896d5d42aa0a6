"""A stored report keeps which decisions it names as superseded; one from before named all earlier ones."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the decisions that a report names; a row without them holds NULL."""
    op.add_column("stored_reports", sa.Column("predecessors", sa.JSON(), nullable=True))
