"""Writes the tables of settings.md from the source, so that they cannot drift."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docs.generate.marked import DOCS, replaced
from lakebed import Settings
from lakebed.events import event

PAGE = DOCS / "settings.md"

EVENT = (
    ("name of an event, page or screen", event.MAX_NAME, "characters"),
    ("`user_id`, `anonymous_id`, `group_id`, `session_id`", event.MAX_ID, "characters each"),
    ("`message_id`", event.MAX_MESSAGE_ID, "characters"),
    ("`properties`, `context` and name together", event.MAX_EVENT_BYTES, "bytes of JSON"),
    ("nesting of `properties` or `context`", event.MAX_DEPTH, "levels"),
    (
        "`timestamp` ahead of `received_at`",
        event.MAX_AHEAD_US // 3_600_000_000,
        "hours; any past is accepted",
    ),
)


LESS_PLAIN = (("day", 1), ("minute", 1))  # 24 hours and 60 s are plainer


def settings_table() -> str:
    """A row for each setting: name, default, meaning."""
    defaults = Settings()
    rows = [
        f"| `{name}` | {in_words(name, getattr(defaults, name))} | {meaning} |" for name, meaning in meanings().items()
    ]
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows])


def event_table() -> str:
    """A row for each limit of one event."""
    rows = [f"| {part} | {maximum:,} {unit} |" for part, maximum, unit in EVENT]
    return "\n".join(["| part of an event | at most |", "|---|---|", *rows])


def meanings() -> dict[str, str]:
    """The meaning of each field, on one line, from the docstring of Settings."""
    _, _, attributes = (Settings.__doc__ or "").partition("Attributes:\n")
    fields = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w+: |\Z)", attributes, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in fields}


def in_words(name: str, value: Any) -> str:
    """A default in its usual unit: bytes as MiB, seconds as minutes, hours or days."""
    if name.endswith("_bytes"):
        return f"{value >> 30} GiB" if value % (1 << 30) == 0 else f"{value >> 20} MiB"
    if name.endswith("_s"):
        for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
            if value % seconds == 0 and (count := value // seconds) and (unit, count) not in LESS_PLAIN:
                return f"{count:g} {unit}{'' if count == 1 else 's'}"
        return f"{value:g} s"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f'"{value}"' if isinstance(value, str) else str(value)


def pages() -> dict[Path, str]:
    """settings.md as it must be."""
    return {PAGE: replaced(PAGE, "events", event_table(), replaced(PAGE, "settings", settings_table()))}
