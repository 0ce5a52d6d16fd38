"""Cohort: people by what they did, as SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lakebed.query.binder import Binder
from lakebed.query.selection import Selection

__all__ = ["COHORT", "Cohort", "people_of"]

COHORT = "cohort"  # the kind of its definitions
Cohort = Callable[[Binder], str]  # gives the SELECT of its person_ids, one column


def people_of(body: Mapping[str, Any]) -> Cohort:
    """The people of a cohort's definition: `{"did": {"event": "Order Completed", "where": "revenue > 100"}}`."""
    did = Selection.of(body.get("did"), "did")

    def sql(bind: Binder) -> str:
        return f"SELECT person_id FROM events WHERE person_id IS NOT NULL AND {did.condition(bind)}"

    return sql
