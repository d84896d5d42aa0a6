"""Which report was stored in which archive, and how that ended."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table of stored reports."""
    op.create_table(
        "stored_reports",
        sa.Column("opinion", sa.Integer(), nullable=False),
        sa.Column("archive", sa.String(), nullable=False),
        sa.Column("account", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("begun_at", sa.String(), nullable=False),
        sa.Column("ended_at", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("opinion", "archive", name="pk_stored_reports"),
        sa.ForeignKeyConstraint(["opinion"], ["opinions.id"], name="fk_stored_reports_opinion"),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name="fk_stored_reports_account"),
    )
