"""Page: the live page at `/`. Its files lie in static/; nothing is built, and nothing comes from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.errors import Refusal
from lakebed.concurrency import run_in_thread

__all__ = ["PageRoutes"]

_INDEX = "index.html"
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Nothing but what this server sends may be loaded, asked or run; trusted-types forbids scripts to make HTML from text.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_SAFE = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
_FOR_EVER = "public, max-age=31536000, immutable"  # the address changes with the contents
_ASK_FIRST = "no-cache"


class _File(msgspec.Struct, frozen=True):
    """A file of the page as it is sent: plain, and with gzip. One weak ETag stands for both."""

    body: bytes
    zipped: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> _File:
        digest = hashlib.sha256(body).hexdigest()[:16]
        return cls(body, gzip.compress(body, 9, mtime=0), _TYPES[name.rpartition(".")[2]], f'W/"{digest}"')


class _Site(msgspec.Struct, frozen=True):
    """All files of the page.

    Attributes:
        version: names what they hold together. It is in their addresses, and scripts import their neighbours by it.
        files: by name, all but the page itself.
        index: the page itself, of a server without keys (True) and with keys.
    """

    version: str
    files: dict[str, _File]
    index: dict[bool, _File]

    @classmethod
    def read(cls) -> _Site:
        """Read the files from the package. Blocks."""
        contents = dict(_read(resources.files("lakebed.api") / "static", ""))
        digest = hashlib.sha256()
        for name, body in contents.items():
            digest.update(name.encode() + b"\0" + body)
        version = digest.hexdigest()[:16]
        page = contents.pop(_INDEX).replace(b"{static}", f"static/{version}".encode())
        words = {True: b"", False: b"required"}
        return cls(
            version,
            {name: _File.of(name, body) for name, body in contents.items()},
            {keyless: _File.of(_INDEX, page.replace(b"{keys}", word)) for keyless, word in words.items()},
        )


class PageRoutes:
    """`GET /` and the files that it needs. They are read from the package when they are first asked for.

    Whoever may reach the server may load the page: what it shows it asks for with its user's key. Whether one is needed
    stands in the page, so that it asks nothing before it has one.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._known: _Site | None = None

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [
            Route("/", self.index, methods=["GET"], include_in_schema=False),
            Route("/static/{version}/{name:path}", self.asset, methods=["GET"], include_in_schema=False),
        ]

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return _sent(request, (await self._site()).index[self._auth.keyless], _ASK_FIRST)

    async def asset(self, request: Request) -> Response:
        """A script, style or image. An address of another version is 404: mixing two would break the page."""
        site = await self._site()
        file = site.files.get(request.path_params["name"])
        if file is None or request.path_params["version"] != site.version:
            raise Refusal(404, "NOT_FOUND", "There is no such file; reload the page")
        return _sent(request, file, _FOR_EVER)

    async def _site(self) -> _Site:
        if self._known is None:
            self._known = await run_in_thread("page", _Site.read)
        return self._known


def _read(place: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for one in sorted(place.iterdir(), key=lambda one: one.name):
        if one.is_dir():
            found += _read(one, f"{prefix}{one.name}/")
        elif one.name.rpartition(".")[2] in _TYPES:
            found.append((prefix + one.name, one.read_bytes()))
    return found


def _sent(request: Request, file: _File, cache: str) -> Response:
    headers = _SAFE | {"Cache-Control": cache, "ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = file.body
    if "gzip" in request.headers.get("accept-encoding", "").lower():
        headers["Content-Encoding"] = "gzip"
        body = file.zipped
    return Response(body, headers=headers, media_type=file.media_type)
