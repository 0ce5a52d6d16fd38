"""Writes reports.md from what the reports say of themselves, so that they cannot drift: `python docs/reports.py`."""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

sys.path.insert(0, str(Path(__file__).parents[1]))

from lakebed.interface.signature import each
from lakebed.reports.arguments import Duration
from lakebed.reports.catalog import REPORTS, signature_of
from lakebed.reports.scope import EventLike, Time
from tests.reports.report_samples import SAMPLES

PAGE = Path(__file__).with_name("reports.md")
WORDS = {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no"}
SAID = {Time: "time", EventLike: "event", Duration: "length of time"}


def sections() -> str:
    """A section for each report, as they must stand between the markers of the page."""
    return "\n\n".join(section(name) for name in REPORTS)


def section(name: str) -> str:
    """What a report answers, what it takes, and how it is asked in four ways."""
    signature = signature_of(name)
    said, _, _ = (inspect.getdoc(REPORTS[name]) or "").partition("\nArgs:\n")
    lines = [f"## {name}", "", said.strip(), "", "| argument | | default | |", "|---|---|---|---|"]
    for argument, annotation in signature.types.items():
        default = f"`{signature.defaults[argument]!r}`" if argument in signature.defaults else "needed"
        about = signature.about.get(argument, "").replace("|", "\\|")
        lines.append(f"| `{argument}` | {kind(annotation)} | {default} | {about} |")
    return "\n".join([*lines, "", *examples(name)])


def kind(annotation: Any) -> str:
    """A type as the page says it."""
    plain = list(each(annotation))
    for known, word in SAID.items():
        theirs = each(known)
        if all(one in plain for one in theirs):
            plain = [one for one in plain if one not in theirs] + [word]
    return " or ".join(map(_word, plain))


def python(value: Any) -> str:
    """A value as the formatter would write it."""
    if isinstance(value, str):
        return repr(value) if '"' in value or "\\" in value else f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(python, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python(key)}: {python(one)}" for key, one in value.items()) + "}"
    return repr(value)


def _word(one: Any) -> str:
    if isinstance(one, str):
        return one
    if get_origin(one) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(one))
    if get_origin(one) is not None and get_args(one):
        inner = kind(get_args(one)[0])
        return f"list of {inner}" if "Sequence" in str(one) else "object"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no"}.get(
        one.__name__, one.__name__
    )


def examples(name: str) -> list[str]:
    """One question asked in Python, over HTTP and from the command line."""
    given = SAMPLES[name]
    arguments = ", ".join(f"{key}={python(value)}" for key, value in given.items())
    body = json.dumps(given)
    return [
        "```python",
        f"result = await shop.{name}({arguments})",
        "result.report, len(result) > 0  # → " + repr((name, True)),
        "```",
        "",
        "```sh",
        f"curl http://127.0.0.1:8080/reports/{name} -d {quoted(body)}",
        " ".join(["lakebed", *map(quoted, typed(name, given))]),
        "```",
    ]


def typed(name: str, arguments: dict[str, Any]) -> list[str]:
    """The words of the command that asks the same."""
    signature = signature_of(name)
    words = [name.replace("_", "-")]
    for argument, value in arguments.items():
        option = [] if argument in signature.required else [f"--{argument.replace('_', '-')}"]
        if value is True:
            words += option
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [*option, json.dumps(one) if isinstance(one, dict) else str(one)]
    return words


def quoted(word: str) -> str:
    """A word as a shell takes it."""
    return word if re.fullmatch(r"[\w.:/=-]+", word) else "'" + word.replace("'", "'\\''") + "'"


def written(page: str) -> str:
    """`page` with its sections as they must be."""
    head, _, rest = page.partition("<!-- reports -->\n")
    _, _, tail = rest.partition("<!-- end of reports -->")
    return f"{head}<!-- reports -->\n\n{sections()}\n\n<!-- end of reports -->{tail}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
