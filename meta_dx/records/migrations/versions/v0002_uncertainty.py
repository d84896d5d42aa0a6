"""Predictions say how unsure they are and what they rest on; older ones do not, and stay as they are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what version 0.2 predicts beside probabilities; a row without it holds NULL."""
    for name in ("epistemic", "aleatoric"):
        op.add_column("predictions", sa.Column(name, sa.Double(), nullable=True))
    for name in ("interval", "evidence"):
        op.add_column("predictions", sa.Column(name, sa.JSON(), nullable=True))
