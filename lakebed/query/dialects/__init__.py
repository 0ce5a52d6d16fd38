"""SQL dialects of other products, translated to DuckDB's."""
