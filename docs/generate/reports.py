"""Writes the summary, arguments and example of each page in reports/ from the reports, so that they cannot drift."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from docs.generate.marked import DOCS, replaced
from lakebed.interface.signature import each
from lakebed.reports.arguments import Duration
from lakebed.reports.reports import REPORTS, signature_of
from lakebed.reports.scope import EventLike, Time
from tests.reports.report_samples import SAMPLES

FOLDER = DOCS / "reports"
INDEX = FOLDER / "index.md"
WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no"}
NAMED = {Time: "time", EventLike: "event", Duration: "length of time"}


def page_of(name: str) -> Path:
    """The page of a report."""
    return FOLDER / f"{name.replace('_', '-')}.md"


def description(name: str) -> str:
    """The docstring of a report without its arguments."""
    text, _, _ = (inspect.getdoc(REPORTS[name]) or "").partition("\nArgs:\n")
    return text.strip()


def index() -> str:
    """A row for each report, with the first sentence of its description."""
    lines = ["| report | |", "|---|---|"]
    for name in REPORTS:
        sentence = " ".join(description(name).split("\n\n")[0].split())
        lines.append(f"| [{name}]({page_of(name).name}) | {sentence} |")
    return "\n".join(lines)


def arguments(name: str) -> str:
    """The arguments of a report, and one question in Python, over HTTP and from the command line."""
    signature = signature_of(name)
    lines = ["## Arguments", "", "| argument | | default | |", "|---|---|---|---|"]
    for argument, annotation in signature.types.items():
        default = f"`{signature.defaults[argument]!r}`" if argument in signature.defaults else "required"
        about = signature.about.get(argument, "").replace("|", "\\|")
        lines.append(f"| `{argument}` | {kind(annotation)} | {default} | {about} |")
    return "\n".join([*lines, "", "## Example", "", *examples(name)])


def kind(annotation: Any) -> str:
    """A type in words."""
    types = list(each(annotation))
    for union, word in NAMED.items():
        members = each(union)
        if all(member in types for member in members):
            types = [member for member in types if member not in members] + [word]
    return " or ".join(map(_word, types))


def python(value: Any) -> str:
    """A value as the formatter would write it."""
    if isinstance(value, str):
        return repr(value) if '"' in value or "\\" in value else f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(python, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python(key)}: {python(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _word(part: Any) -> str:
    if isinstance(part, str):
        return part
    if get_origin(part) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(part))
    if get_origin(part) is not None and get_args(part):
        inner = kind(get_args(part)[0])
        return f"list of {inner}" if "Sequence" in str(part) else "object"
    return WORDS.get(part.__name__, part.__name__)


def examples(name: str) -> list[str]:
    """One question in Python, over HTTP and from the command line."""
    sample = SAMPLES[name]
    written = ", ".join(f"{key}={python(value)}" for key, value in sample.items())
    body = json.dumps(sample)
    return [
        "```python",
        f"result = await shop.{name}({written})",
        "result.report, len(result) > 0  # → " + repr((name, True)),
        "```",
        "",
        "```sh",
        f"curl http://127.0.0.1:8080/reports/{name} -d {quoted(body)}",
        " ".join(["lakebed", *map(quoted, typed(name, sample))]),
        "```",
    ]


def typed(name: str, values: dict[str, Any]) -> list[str]:
    """The words of the command that asks the same."""
    signature = signature_of(name)
    words = [name.replace("_", "-")]
    for argument, value in values.items():
        option = [] if argument in signature.required else [f"--{argument.replace('_', '-')}"]
        if value is True:
            words += option
            continue
        for item in value if isinstance(value, list) else [value]:
            words += [*option, json.dumps(item) if isinstance(item, dict) else str(item)]
    return words


def quoted(word: str) -> str:
    """A word as a shell takes it."""
    return word if re.fullmatch(r"[\w.:/=-]+", word) else "'" + word.replace("'", "'\\''") + "'"


def pages() -> dict[Path, str]:
    """The index and the page of each report as they must be.

    Raises:
        FileNotFoundError: A report has no page yet: write one, with the markers of the other pages.
    """
    texts = {INDEX: replaced(INDEX, "reports", index())}
    for name in REPORTS:
        page = page_of(name)
        text = replaced(page, "description", description(name))
        texts[page] = replaced(page, "arguments", arguments(name), text)
    return texts
