"""L0: live counters in memory."""
