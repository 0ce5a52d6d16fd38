"""The classes of objects by name. The manifest of a directory names the class of its object."""

from __future__ import annotations

from typing import Any

from lakebed.errors import NotReachable

__all__ = ["class_named", "classes"]

# Filled as subclasses of DurableObject are defined. Of two classes with one name the later counts: a notebook cell that
# is run again replaces its class.
classes: dict[str, type[Any]] = {}


def class_named(name: str) -> type[Any]:
    """The class with this name. Raises NotReachable if it is not defined or its module was not imported."""
    if name not in classes:
        known = ", ".join(sorted(classes)) or "none"
        message = f"no class of objects is named {name!r}"
        raise NotReachable(message, hint=f"Known classes: {known}. Import its module first", kind=name)
    return classes[name]
