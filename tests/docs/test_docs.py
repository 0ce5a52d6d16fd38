"""The documentation is run: every Python block, every link, every generated part, the notebooks."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.generate import cli, notebooks, offline, settings
from docs.generate.__main__ import GENERATORS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md", "examples/data/README.md", "tests/data/README.md")
EVERY_PAGE = [*PAGES, *(ROOT / name for name in OTHERS)]
REPORTS = DOCS / "reports"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SAYS = " # → "


def named(page: Path) -> str:
    """The path of a page, as the id of its test."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[str]:
    """The Python blocks of a page, each moved down to its own line, so that a traceback names the line of the page."""
    text = page.read_text("utf-8")
    for match in _BLOCK.finditer(text):
        yield "\n" * text.count("\n", 0, match.start(1)) + match[1]


def run(source: str, page: Path, names: dict[str, Any], runner: asyncio.Runner) -> None:
    """Run a block. An expression with `# → value` behind it must have that value."""
    lines = source.splitlines()
    for statement in ast.parse(source).body:
        is_value = isinstance(statement, ast.Expr)
        tree = ast.Expression(statement.value) if is_value else ast.Module([statement], [])
        code = compile(tree, str(page), "eval" if is_value else "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(code, names)  # noqa: S307 - our own documentation
        if code.co_flags & inspect.CO_COROUTINE:
            value = runner.run(value)
        _, says, expected = lines[statement.end_lineno - 1].partition(_SAYS)
        if says:
            assert is_value, f"{page.name}, line {statement.end_lineno}: only an expression of its own is compared"
            assert repr(value) == expected, f"{page.name}, line {statement.end_lineno}"


async def closed(shop: Any) -> None:
    """Close the object that a page leaves open; closing one that is closed changes nothing."""
    ended = shop.close()
    if inspect.isawaitable(ended):
        await ended


def setup(page: Path) -> list[str]:
    """The blocks that come before those of a page: the pages of reports share the object of their index."""
    shared = page.parent == REPORTS and page.stem not in {"index", "cohorts"}
    return list(blocks(REPORTS / "index.md")) if shared else []


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=named)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after another, do what they say in an empty directory."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in [*setup(page), *blocks(page)]:
            run(block, page, names, runner)
        if "shop" in names:
            runner.run(closed(names["shop"]))


def test_the_first_example_has_ten_lines() -> None:
    """What a reader must type to see an answer fits in ten lines, on both first pages."""
    for page in (ROOT / "README.md", DOCS / "quickstart.md"):
        first = next(blocks(page))
        assert len([line for line in first.splitlines() if line.strip()]) <= 10, page.name


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a forge and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository finds it, and on a page the heading that it names."""
    links = [target for target in _LINK.findall(page.read_text("utf-8")) if "://" not in target]
    for target in links:
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_reading_the_source_names_files_that_exist() -> None:
    """The six entry points are there, and so is every file named beside them."""
    text = (DOCS / "reading-the-source.md").read_text("utf-8")
    assert len(re.findall(r"^\d\. ", text, re.MULTILINE)) == 8
    known = {str(path.relative_to(ROOT)) for folder in ("lakebed", "tests") for path in (ROOT / folder).rglob("*.py")}
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert named
    assert not [name for name in named if not any(path == name or path.endswith(f"/{name}") for path in known)]


def test_paths_on_pages_name_files_that_exist() -> None:
    """Paths such as `tests/model/test_model.py` in the text of a page exist: a move of files reaches the pages."""
    paths = [
        (page.name, path)
        for page in EVERY_PAGE
        for path in re.findall(r"`((?:lakebed|tests|docs|bench|examples)/[\w./-]*)`", page.read_text("utf-8"))
        if not path.startswith("bench/results/")  # written by a run
    ]
    assert len(paths) > 10
    assert [(page, path) for page, path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.__name__)
def test_generated_parts_are_current(generator: Any) -> None:
    """Settings, commands, reports, templates, oracles and decisions are on their pages as the source has them."""
    for page, text in generator.pages().items():
        assert page.read_text("utf-8") == text, f"{page.name}: run `make generate`"


def test_every_setting_and_exit_code_has_a_docstring() -> None:
    """The generators find the docstring of every setting and of every exit code."""
    assert list(settings.meanings()) == list(settings.Settings.__struct_fields__)
    assert {code.value for code in cli.meanings()} == {code.value for code in cli.Exit}


def test_every_promise_is_on_its_page() -> None:
    """guarantees.md numbers eleven promises, and says of each what is not promised."""
    text = (DOCS / "guarantees.md").read_text("utf-8")
    sections = re.split(r"^## \d+\. ", text, flags=re.MULTILINE)[1:]
    assert len(sections) == 11
    assert not [section.splitlines()[0] for section in sections if "**Not promised" not in section]


def test_the_picture_of_the_tiers_is_a_well_formed_image() -> None:
    """tiers.svg is well-formed, has a title for those who cannot see it, and colours for dark pages."""
    picture = DOCS / "tiers.svg"
    assert ET.parse(picture).getroot().find("{http://www.w3.org/2000/svg}title") is not None  # noqa: S314 - our own
    assert "prefers-color-scheme: dark" in picture.read_text("utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    """Each runs from top to bottom in an empty directory, and shows the answers that it was stored with."""
    stored = notebooks.read(path)
    assert notebooks.answers(notebooks.executed(stored, tmp_path)) == notebooks.answers(stored)


def test_pages_and_notebooks_have_no_path_of_a_machine() -> None:
    """No path of a machine in any page, example or stored output, and no time of day in a notebook."""
    shown = [*EVERY_PAGE, *NOTEBOOKS, *sorted((ROOT / "examples").glob("*.py"))]
    assert not [page.name for page in shown if re.search(r"/home/|/root/|/tmp/|/work/", page.read_text("utf-8"))]
    assert not [path.name for path in NOTEBOOKS if '"execution":' in path.read_text("utf-8")]


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml names every page of docs/ once, and no other."""
    named_pages = re.findall(r"^ +- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(named_pages) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


FOREIGN = [
    ("index.html", '<link rel="stylesheet" href="https://fonts.example/css?family=Roboto">'),
    ("index.html", '<script src="//cdn.example/x.js"></script>'),
    ("index.html", '<img srcset="a.png 1x, https://images.example/a.png 2x">'),
    ("index.html", "<style>@import 'https://fonts.example/a.css';</style>"),
    ("index.html", '<pre class="mermaid">graph</pre>'),
    ("index.html", '<p style="background: url(https://images.example/a.png)">'),
    ("a.css", "@font-face { src: url('https://fonts.example/a.woff2') }"),
    ("a.js", 'import("https://cdn.example/a.js")'),
    ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"><image href="https://images.example/a.png"/></svg>'),
]


@pytest.mark.parametrize(("name", "text"), FOREIGN, ids=lambda value: value[:40])
def test_a_load_from_another_server_is_found(tmp_path: Path, name: str, text: str) -> None:
    """Whatever makes a browser ask another server fails the build of the site."""
    (tmp_path / name).write_text(text, "utf-8")
    assert [line.partition(":")[0] for line in offline.foreign(tmp_path)] == [name]


def test_links_and_own_files_are_no_loads(tmp_path: Path) -> None:
    """A link that a reader may click, a file of the site, a comment and the name of a format are none."""
    page = '<a href="https://example.org">x</a><img src="a.png"><script src="assets/a.js"></script>'
    (tmp_path / "index.html").write_text(page, "utf-8")
    (tmp_path / "a.js").write_text('/* https://licence.example */ x("http://www.w3.org/2000/svg")', "utf-8")
    (tmp_path / "a.css").write_text("/* url(https://licence.example) */ a { background: url(a.png) }", "utf-8")
    assert list(offline.foreign(tmp_path)) == []
