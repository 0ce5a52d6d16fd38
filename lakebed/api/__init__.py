"""A thin HTTP app over one object or a namespace. Needs the extra: `pip install 'lakebed[server]'`.

There is no authentication yet: whoever reaches the app may write and read every object that it serves. `serve`
therefore binds to loopback addresses only, and refuses requests that a browser sends for another site. An app mounted
elsewhere is as open as what it is mounted in.
"""

from __future__ import annotations

from lakebed.api.app import create_app
from lakebed.api.serving import serve

__all__ = ["create_app", "serve"]
