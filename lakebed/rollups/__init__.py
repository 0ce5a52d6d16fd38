"""Rollups: mergeable measures by time bucket and dimensions, computed from the log. No scheduling."""
