"""A thin HTTP app over one object or a namespace. Needs the extra: `pip install 'lakebed[server]'`.

A request's key says which object it is for and what it may do. While no key was ever made, whoever reaches the app may
write and read the one object that it serves then: `serve` binds to loopback addresses only, and refuses requests that a
browser sends for another site. Such an app mounted elsewhere is as open as what it is mounted in.
"""

from __future__ import annotations

from lakebed.api.app import create_app
from lakebed.api.server import serve

__all__ = ["create_app", "serve"]
