"""The HTTP server: an ASGI app over one object or a namespace. Needs the extra: `pip install 'lakebed[server]'`.

The key of a request selects the object and what the request may do. Until the first key is made, any client that
reaches the app may write and read its one object. `serve` then binds to loopback addresses only, and refuses requests
that a browser sends for another site. An app without keys that is mounted in another app is as open as that app.
"""

from __future__ import annotations

from lakebed.interface.extras import require_extra

require_extra("lakebed.api", "server", "starlette", "uvicorn", "brotli", "zstandard", "prometheus_client")

from lakebed.api.app import create_app  # noqa: E402 - its imports would say less about a missing extra
from lakebed.api.server import serve  # noqa: E402

__all__ = ["create_app", "serve"]
