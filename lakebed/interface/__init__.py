"""What Python, HTTP, RPC, the command line and MCP offer: signatures, JSON Schema and names of verbs."""
