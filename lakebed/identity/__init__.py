"""The identity graph: a consumer of the log that maps the ids in events to people."""
