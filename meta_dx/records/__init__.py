"""What must outlive every run: the SQL records (support sets, predictions, openings) and the identity vault.

Records are small, relational and written by several processes at once, so they live in a database: SQLite
inside the home by default, PostgreSQL by one URL. The vault is a second, owner-only SQLite file: the only
place that knows original identities. See ``docs/records.md``.
"""
