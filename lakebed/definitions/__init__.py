"""Named, versioned documents in the log, such as cohorts and datasets."""
