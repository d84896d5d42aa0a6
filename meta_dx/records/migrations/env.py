"""What Alembic runs: every missing revision on the connection that ``database.py`` hands over.

The connection is inside a transaction already, and Alembic leaves that to the caller: all revisions are
applied or none is, also in SQLite.
"""

from alembic import context

from meta_dx.records.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=context.config.attributes["version_table"],
)
with context.begin_transaction():
    context.run_migrations()
