"""Middleware for web frameworks, one file for each."""
