"""The Model Context Protocol: read-only tools for an assistant. Needs the extra: `pip install 'lakebed[mcp]'`."""

from __future__ import annotations

from lakebed.interface.extras import require_extra

require_extra("lakebed.mcp", "mcp", "mcp", "starlette")
