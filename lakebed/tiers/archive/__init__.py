"""L3: the Iceberg table."""
