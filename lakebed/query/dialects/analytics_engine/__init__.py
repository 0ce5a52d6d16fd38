"""The SQL dialect of Workers Analytics Engine, translated to DuckDB's.

docs/compatibility/analytics-engine.md describes it.
"""
