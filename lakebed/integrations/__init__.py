"""Middleware for other frameworks, in a file each."""
