"""The Model Context Protocol: questions of an assistant to an object. Needs the extra: `pip install 'lakebed[mcp]'`."""

from __future__ import annotations

from lakebed.interface.extras import require_extra

require_extra("lakebed.mcp", "mcp", "mcp", "starlette")
