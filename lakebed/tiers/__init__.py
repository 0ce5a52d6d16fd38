"""Where data rests: counters, log, SQLite, archive. No tier imports another."""
