"""Casing of names: snake_case (Python), camelCase (JSON, JavaScript), kebab-case (commands), PascalCase (types)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["camel", "camel_keys", "kebab", "pascal", "snake"]


def snake(name: str) -> str:
    """`elapsedMs` as `elapsed_ms`; a name in snake_case stays as it is."""
    return "".join(f"_{letter.lower()}" if letter.isascii() and letter.isupper() else letter for letter in name)


def camel(name: str) -> str:
    """`elapsed_ms` as `elapsedMs`; a name in camelCase stays as it is."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def kebab(name: str) -> str:
    """`session_list` as `session-list`."""
    return name.replace("_", "-")


def pascal(name: str) -> str:
    """`session_list` as `SessionList`."""
    return "".join(part.capitalize() for part in name.split("_"))


def camel_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same record with its keys in camelCase. Keys of mappings inside of it stay as they are."""
    return {camel(name): value for name, value in record.items()}
