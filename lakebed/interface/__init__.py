"""What Python, HTTP, RPC, the command line and MCP offer: the catalogue of verbs, signatures, JSON Schema, casing."""
