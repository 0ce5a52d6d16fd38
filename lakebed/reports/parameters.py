"""Values of a question: each becomes a parameter, none is ever written into SQL."""

from __future__ import annotations

from typing import Any

__all__ = ["Parameters"]


class Parameters:
    """Collects the parameters of one statement. `binder("Signup")` gives `$p0`, which stands for that value."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def __call__(self, value: Any) -> str:
        """SQL for `value`."""
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"${name}"
