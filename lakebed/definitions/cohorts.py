"""Cohorts: people by what they did and who they are, saved under names. `reports/cohort.py` reads a definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lakebed.clock import Clock
from lakebed.definitions.definitions import Definition, Definitions
from lakebed.errors import InvalidDefinition
from lakebed.events.promotions import Promotion
from lakebed.reports.cohort import COHORT, Cohort, CohortReader, Lookup, conditions_of, names_of
from lakebed.reports.context import ReportContext

__all__ = ["CohortLookup", "Cohorts"]


class CohortLookup:
    """Reads saved cohorts by name, for reports."""

    def __init__(self, definitions: Definitions, promotions: Sequence[Promotion], clock: Clock) -> None:
        self._definitions = definitions
        self._promotions = promotions
        self._clock = clock

    async def named(self, name: str, as_of_us: int | None) -> Cohort:
        """The cohort `name`, with its definition and the clock as of a moment (None: now). Raises QueryRefused."""
        now_us = self._clock.now_us() if as_of_us is None else as_of_us
        return await CohortReader(self.definitions_as_of(as_of_us), self._promotions, now_us).named(name)

    async def draft(self, name: str, definition: Any, *, untrusted: bool) -> Cohort:
        """The cohort that `definition` would be if it were saved under `name`. Raises QueryRefused."""
        saved = self.definitions_as_of(None)

        async def lookup(other: str) -> tuple[Any, bool] | None:
            return (definition, untrusted) if other == name else await saved(other)

        return await CohortReader(lookup, self._promotions, self._clock.now_us()).named(name)

    def definitions_as_of(self, as_of_us: int | None) -> Lookup:
        """A function that returns a name's definition and whether its SQL is untrusted, or None if there is none."""

        async def lookup(name: str) -> tuple[Mapping[str, Any], bool] | None:
            saved = await self._definitions.get(COHORT, name, as_of_us=as_of_us)
            return None if saved is None else (saved.body["definition"], saved.body["strange"])

        return lookup


class Cohorts:
    """The saved cohorts of one object."""

    def __init__(self, definitions: Definitions, lookup: CohortLookup, context: ReportContext) -> None:
        self._definitions = definitions
        self._lookup = lookup
        self._context = context

    async def save_cohort(self, name: str, definition: Mapping[str, Any], *, untrusted: bool = False) -> Definition:
        """Save a definition of people, by what they did and who they are, as a cohort: the `cohort=` of every report.

        docs/reports/cohorts.md has the form of a definition; `CohortReader` parses it. Every report computes the people
        anew, so they come and go; old versions stay, for `as_of`. Saving tests the definition without reading an event.

        Args:
            name: name of the cohort; saving under a name again makes a new version.
            definition: definition of the people, as plain values.
            untrusted: whether the definition came over the network. If so, its SQL always runs in the sandbox.

        Raises:
            QueryRefused, QueryError: the definition cannot be read, or refers to itself; the message says where.
            InvalidDefinition: the name is not valid, or the definition is too large.
        """
        cohort = await self._lookup.draft(name, definition, untrusted=untrusted)
        for condition in conditions_of(definition):
            await self._context.check_condition(condition)
        await self._context.check_cohort(cohort)
        return await self._definitions.save(COHORT, name, {"definition": definition, "strange": untrusted})

    async def cohorts(self) -> list[Definition]:
        """The newest version of each saved cohort, by name; its definition is in `body["definition"]`."""
        return await self._definitions.newest(COHORT)

    async def cohort(self, name: str) -> Definition:
        """The newest version of a cohort. `cohort_size` counts its people. Raises InvalidDefinition if none exists."""
        saved = await self._definitions.get(COHORT, name)
        if saved is None:
            names = ", ".join(cohort.name for cohort in await self.cohorts()) or "none"
            raise InvalidDefinition(f"there is no cohort {name[:80]!r}", hint=f"There are {names}")
        return saved

    async def delete_cohort(self, name: str) -> Definition:
        """Delete a cohort. Reports as of an earlier time still know it.

        Raises:
            InvalidDefinition: there is no such cohort, or other cohorts refer to it; `used_by` names those.
        """
        await self.cohort(name)
        users = [cohort.name for cohort in await self.cohorts() if name in names_of(cohort.body["definition"])]
        if users:
            used_by = ", ".join(users)
            hint = "Save these without it, or delete them first"
            raise InvalidDefinition(f"{name!r} cannot be deleted: it is part of {used_by}", hint=hint, used_by=used_by)
        return await self._definitions.remove(COHORT, name)
