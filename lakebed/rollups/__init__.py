"""What is computed on the way down: mergeable measures by time bucket and dimensions. No scheduling."""
