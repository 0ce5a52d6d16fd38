"""The HTTP server: an ASGI app over one object or a namespace. Needs the extra: `pip install 'lakebed[server]'`.

The key of a request selects the object and what the request may do. Until the first key is made, any client that
reaches the app may write and read the one object that it serves then: `serve` binds to loopback addresses only, and
refuses requests that a browser sends for another site. Such an app mounted elsewhere is as open as that other app.
"""

from __future__ import annotations

from lakebed.interface.extras import require_extra

require_extra("lakebed.api", "server", "starlette", "uvicorn", "brotli", "zstandard", "prometheus_client")

from lakebed.api.app import create_app  # noqa: E402 - its imports would say less about a missing extra
from lakebed.api.server import serve  # noqa: E402

__all__ = ["create_app", "serve"]
