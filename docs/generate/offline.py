"""python -m docs.generate.offline SITE: fails if a page of the built site would load anything from another server.

A link that a reader may click is no load. Only the standard library is used: the check runs where the site is built.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADING = {"src", "srcset", "poster", "data", "background", "action", "formaction", "ping"}
"""Attributes whose address a browser loads, on any element. `href` loads on `link`, `image` and `use` only."""
ELSEWHERE = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
ADDRESS = re.compile(r"""https?://[^\s"'`)\\<>]+""")
CSS_LOAD = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:[a-z][a-z0-9+.-]*:)?//[^"')\s;]+)""", re.IGNORECASE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)

KNOWN = {
    "http://www.w3.org/": "names of XML, never loaded",
    "https://unpkg.com/mermaid": "loaded for elements of class mermaid; a page with one is refused here",
    "https://unpkg.com/resize-observer-polyfill": "loaded by browsers without ResizeObserver, that is from before 2020",
    "https://${": "GitLab's address, as the next",
    "https://api.github.com/": "asked for a repository's stars; a page with a repository is refused here",
    "https://fontawesome.com": "a licence in an icon",
    "https://bit.ly/2s3ChXG": "in a warning of the search index",
}
"""Addresses in the theme's scripts that no page of ours makes a browser load, and why."""
UNUSED = "assets/javascripts/lunr/"
"""Search in languages other than English, which no page of ours loads. Its comments name many addresses."""


class Page(HTMLParser):
    """Collects the addresses that a browser loads for a page, and the elements that make the theme load more."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read the attributes of an element."""
        self._style = tag == "style"
        for name, value in attrs:
            address = value or ""
            loading = name in LOADING or (name in {"href", "xlink:href"} and tag in {"link", "image", "use"})
            if loading and any(ELSEWHERE.match(part) for part in address.split(",")):
                self.loads.append(address)
            if name == "style":
                self.loads += CSS_LOAD.findall(address)
            if name == "class" and "mermaid" in address.split():
                self.loads.append("an element of class mermaid")
            if name == "data-md-component" and address == "source":
                self.loads.append("a link to a repository, whose stars are asked for")

    def handle_data(self, data: str) -> None:
        """Read a style sheet inside the page."""
        if self._style:
            self.loads += CSS_LOAD.findall(data)


def foreign(site: Path) -> Iterator[str]:
    """Each load from another server, as `file: address`."""
    for path in sorted(site.rglob("*")):
        if path.suffix in {".html", ".svg"}:
            page = Page()
            page.feed(path.read_text("utf-8"))
            loads = page.loads
        elif path.suffix == ".css":
            loads = CSS_LOAD.findall(COMMENT.sub("", path.read_text("utf-8")))
        elif path.suffix == ".js" and UNUSED not in path.as_posix():
            addresses = ADDRESS.findall(COMMENT.sub("", path.read_text("utf-8")))
            loads = [address for address in addresses if not address.startswith(tuple(KNOWN))]
        else:
            loads = []
        for address in loads:
            yield f"{path.relative_to(site)}: {address}"


def main(site: Path) -> None:
    """Exit with 1 and a line for each load from another server, or if there is no site."""
    if not (site / "index.html").is_file():
        sys.exit(f"{site} has no index.html: build the site first")
    if lines := list(foreign(site)):
        sys.exit("The site loads from other servers:\n" + "\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
