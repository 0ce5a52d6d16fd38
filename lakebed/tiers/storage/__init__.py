"""L2: SQLite, with all of its SQL."""
