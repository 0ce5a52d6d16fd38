"""L1: the durable log."""
