"""Shared by Python, HTTP, RPC, the command line and MCP: the catalogue of verbs, signatures, JSON Schema, casing."""
