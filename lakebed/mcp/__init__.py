"""The Model Context Protocol: read-only tools for an assistant. Needs the extra: `pip install 'lakebed[mcp]'`."""
