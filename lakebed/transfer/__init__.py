"""Files in and out: readers, mappings, positions, writers."""
