"""The SQL dialect of Workers Analytics Engine, translated to DuckDB's. docs/analytics-engine.md describes it."""
