"""The tiers that store data: counters, log, SQLite and archive. No tier imports another tier."""
