"""PageRoutes: the dashboard at `/`. Its files are in static/; there is no build step and no foreign resource."""

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
# Only resources of this server may be loaded, requested or run; trusted-types forbids scripts to make HTML from text.
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
_IMMUTABLE = "public, max-age=31536000, immutable"  # the address of a file changes with its content
_REVALIDATE = "no-cache"


class _File(msgspec.Struct, frozen=True):
    """A file of the page in the two forms that are sent, plain and gzip. One weak ETag stands for both."""

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
        version: a digest of all files, which is part of their addresses, also in the imports of scripts.
        files: the files by name, without the page itself.
        index: the page itself, for a server without keys (True) and with keys (False).
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
    """`GET /` and its files. They are read from the package at the first request.

    Any client that reaches the server may load the page; its requests for data carry the key of its user. The page
    states whether a key is needed, so that it sends no request before it has one.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._cached_site: _Site | None = None

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route("/", self.index, methods=["GET"], include_in_schema=False),
            Route("/static/{version}/{name:path}", self.asset, methods=["GET"], include_in_schema=False),
        ]

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return _response(request, (await self._site()).index[self._auth.keyless], _REVALIDATE)

    async def asset(self, request: Request) -> Response:
        """A script, style or image. An address of another version is 404: a mix of versions would break the page."""
        site = await self._site()
        file = site.files.get(request.path_params["name"])
        if file is None or request.path_params["version"] != site.version:
            raise Refusal(404, "NOT_FOUND", "There is no such file; reload the page")
        return _response(request, file, _IMMUTABLE)

    async def _site(self) -> _Site:
        if self._cached_site is None:
            self._cached_site = await run_in_thread("page", _Site.read)
        return self._cached_site


def _read(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    contents: list[tuple[str, bytes]] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_dir():
            contents += _read(path, f"{prefix}{path.name}/")
        elif path.name.rpartition(".")[2] in _TYPES:
            contents.append((prefix + path.name, path.read_bytes()))
    return contents


def _response(request: Request, file: _File, cache: str) -> Response:
    headers = _SAFE | {"Cache-Control": cache, "ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = file.body
    if "gzip" in request.headers.get("accept-encoding", "").lower():
        headers["Content-Encoding"] = "gzip"
        body = file.zipped
    return Response(body, headers=headers, media_type=file.media_type)
