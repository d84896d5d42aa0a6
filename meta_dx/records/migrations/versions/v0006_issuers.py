"""A subject of OpenID Connect counts with its issuer; whose an earlier one is nobody has kept, so it has none."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the issuer, and let two issuers have the same subject."""
    with op.batch_alter_table("accounts") as table:
        table.add_column(sa.Column("issuer", sa.String(), nullable=True))
        table.drop_constraint("uq_accounts_subject", type_="unique")
        table.create_unique_constraint("uq_accounts_issuer", ["issuer", "subject"])
