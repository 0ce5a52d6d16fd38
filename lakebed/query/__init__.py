"""SQL over all events at any instant, and the result that it gives."""
