"""Lakebed."""
