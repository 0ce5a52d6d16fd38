"""Middleware for other frameworks, one file for each."""
