"""Templates: named queries, run as untrusted SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.query.sandbox.untrusted_queries import UntrustedQueries
from lakebed.query.templates.template import Template, library

__all__ = ["Templates"]


class Templates:
    """Runs the named queries over one object. docs/sql.md lists them."""

    def __init__(self, untrusted: UntrustedQueries) -> None:
        self._untrusted = untrusted

    def templates(self) -> list[Template]:
        """All named queries, with their parameters and their SQL."""
        return list(library().values())

    async def template(self, /, name: str, params: Mapping[str, Any] | None = None, **named: Any) -> Result:
        """The answer to a named query, by `query_untrusted`.

        Args:
            name: name of the template.
            params: values by parameter, like `named`; a parameter without a value has its default. Each template also
                takes `as_of`: the answer as it was at that moment.

        Raises:
            QueryRefused: there is no such template, or a parameter is missing, unknown or of another type. The message
                names it. Also all that `query_untrusted` raises.
        """
        template = library().get(name)
        if template is None:
            hint = f"There are {', '.join(library())}"
            raise QueryRefused(f"there is no template {str(name)[:40]!r}", hint=hint)
        values = {**(params or {}), **named}
        as_of = values.pop("as_of", None)
        return await self._untrusted.run(template.sql, template.bind(values), as_of=as_of)
