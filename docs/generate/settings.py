"""Writes the tables of limits.md from the source, so that they cannot drift: `python docs/limits.py`."""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lakebed import Settings, events

PAGE = Path(__file__).with_name("limits.md")

EVENT = (
    ("name of an event, page or screen", events.MAX_NAME, "characters"),
    ("`user_id`, `anonymous_id`, `group_id`, `session_id`", events.MAX_ID, "characters each"),
    ("`message_id`", events.MAX_MESSAGE_ID, "characters"),
    ("`properties`, `context` and name together", events.MAX_EVENT_BYTES, "bytes of JSON"),
    ("nesting of `properties` or `context`", events.MAX_DEPTH, "levels"),
    ("`timestamp` ahead of `received_at`", events.MAX_AHEAD_US // 3_600_000_000, "hours; any past is welcome"),
)


LESS_PLAIN = (("day", 1), ("minute", 1))  # 24 hours and 60 s are plainer


def tables() -> str:
    """Both tables, as they must stand between the markers of the page."""
    fixed = [f"| {what} | {most:,} {unit} |" for what, most, unit in EVENT]
    defaults = Settings()
    said = [
        f"| `{name}` | {spoken(name, getattr(defaults, name))} | {meaning} |" for name, meaning in meanings().items()
    ]
    return "\n".join(
        [
            "## Events",
            "",
            "| of one event | at most |",
            "|---|---|",
            *fixed,
            "",
            "## Settings",
            "",
            "| setting | default | |",
            "|---|---|---|",
            *said,
        ]
    )


def meanings() -> dict[str, str]:
    """What the docstring of Settings says of each field, on one line."""
    _, _, attributes = (Settings.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w+: |\Z)", attributes, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def spoken(name: str, value: Any) -> str:
    """A default as people say it."""
    if name.endswith("_bytes"):
        return f"{value >> 30} GiB" if value % (1 << 30) == 0 else f"{value >> 20} MiB"
    if name.endswith("_s"):
        for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
            if value % seconds == 0 and (count := value // seconds) and (unit, count) not in LESS_PLAIN:
                return f"{count:g} {unit}{'' if count == 1 else 's'}"
        return f"{value:g} s"
    return f"{value:,}" if isinstance(value, int) else f'"{value}"' if isinstance(value, str) else str(value)


def written(page: str) -> str:
    """`page` with its tables as they must be."""
    head, _, rest = page.partition("<!-- tables -->\n")
    _, _, tail = rest.partition("<!-- end of tables -->")
    return f"{head}<!-- tables -->\n\n{tables()}\n\n<!-- end of tables -->{tail}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
