"""Named, versioned documents in the log: cohorts and datasets."""
