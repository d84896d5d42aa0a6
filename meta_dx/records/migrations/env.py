"""What Alembic runs: every missing revision on the connection that ``database.py`` hands over.

The caller holds the transaction, so a migration that dies leaves the old schema.
"""

from alembic import context

from meta_dx.records.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=context.config.attributes["version_table"],
    transactional_ddl=True,  # SQLite can, but Alembic does not expect it to
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
