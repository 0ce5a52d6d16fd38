"""The Model Context Protocol: questions of an assistant to an object. Needs the extra: `pip install 'lakebed[mcp]'`."""
