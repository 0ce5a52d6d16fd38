"""Cohorts: people by what they did and who they are, saved under names. `reports/cohort.py` reads what is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lakebed.clock import Clock
from lakebed.definitions.definitions import Definition, Definitions
from lakebed.errors import InvalidDefinition
from lakebed.events.promotions import Promotion
from lakebed.reports.cohort import COHORT, Cohort, CohortReader, Lookup, conditions_of, names_of
from lakebed.reports.context import ReportContext

__all__ = ["Cohorts"]


class Cohorts:
    """The saved cohorts of one object."""

    def __init__(self, definitions: Definitions, promotions: Sequence[Promotion], clock: Clock) -> None:
        self._definitions = definitions
        self._promotions = promotions
        self._clock = clock

    async def at(self, name: str, as_of_us: int | None) -> Cohort:
        """Who is in a cohort, by its definition and the clock of a moment; None is now. Raises QueryRefused."""
        now_us = self._clock.now_us() if as_of_us is None else as_of_us
        return await CohortReader(self._lookup(as_of_us), self._promotions, now_us).named(name)

    async def save(self, inquiry: ReportContext, name: str, definition: Any, *, strange: bool) -> Definition:
        """Keep a definition that `inquiry` can answer: it is tried, without reading an event.

        Raises:
            QueryRefused, QueryError: it cannot be read, or leads to itself; says where.
            InvalidDefinition: the name is none, or the definition too large.
        """
        saved = self._lookup(None)

        async def lookup(other: str) -> tuple[Any, bool] | None:
            return (definition, strange) if other == name else await saved(other)

        cohort = await CohortReader(lookup, self._promotions, self._clock.now_us()).named(name)
        for condition in conditions_of(definition):
            await inquiry.check(condition)
        await inquiry.attempt(cohort)
        return await self._definitions.save(COHORT, name, {"definition": definition, "strange": strange})

    async def all(self) -> list[Definition]:
        """The newest version of each, by name."""
        return await self._definitions.newest(COHORT)

    async def one(self, name: str) -> Definition:
        """The newest version. Raises InvalidDefinition where there is none."""
        found = await self._definitions.get(COHORT, name)
        if found is None:
            named = ", ".join(one.name for one in await self.all()) or "none"
            raise InvalidDefinition(f"there is no cohort {name[:80]!r}", hint=f"There are {named}")
        return found

    async def delete(self, name: str) -> Definition:
        """Let one go that no other is made of.

        Raises:
            InvalidDefinition: there is none, or others are made of it; `used_by` names them then.
        """
        await self.one(name)
        users = [one.name for one in await self.all() if name in names_of(one.body["definition"])]
        if users:
            used_by = ", ".join(users)
            hint = "Save these without it, or delete them first"
            raise InvalidDefinition(f"{name!r} is a part of {used_by}", hint=hint, used_by=used_by)
        return await self._definitions.remove(COHORT, name)

    def _lookup(self, as_of_us: int | None) -> Lookup:
        async def lookup(name: str) -> tuple[Mapping[str, Any], bool] | None:
            found = await self._definitions.get(COHORT, name, as_of_us=as_of_us)
            return None if found is None else (found.body["definition"], found.body["strange"])

        return lookup
