"""SQL over all events at any moment, and its result."""
