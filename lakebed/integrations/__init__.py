"""Middleware for other frameworks, a file each."""
