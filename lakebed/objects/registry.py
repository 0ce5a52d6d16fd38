"""The classes of durable objects that this process knows, by name."""

from __future__ import annotations

from typing import Any

from lakebed.errors import NotReachable

__all__ = ["KINDS", "kind"]

# Filled as subclasses of DurableObject are defined. Of two classes with one name the later counts: a notebook cell that
# is run again replaces its class.
KINDS: dict[str, type[Any]] = {}


def kind(name: str) -> type[Any]:
    """The class of that name.

    Raises:
        NotReachable: it is not defined, or its module was not imported.
    """
    found = KINDS.get(name)
    if found is None:
        known = ", ".join(sorted(KINDS)) or "none"
        raise NotReachable(
            f"no class of objects is named {name!r}", hint=f"Known are: {known}. Import its module first", kind=name
        )
    return found
