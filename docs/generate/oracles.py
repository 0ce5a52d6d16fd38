"""Writes the table of oracles in testing.md from the tests, so that it cannot drift."""

from __future__ import annotations

from pathlib import Path

from docs.generate.marked import DOCS, replaced
from lakebed.reports.reports import REPORTS
from tests.reports import clickhouse, questions

PAGE = DOCS / "testing.md"


def table() -> str:
    """A row for each report: the number of questions about real events, and the function of ClickHouse."""
    lines = ["| report | orders | requests | random events | ClickHouse |", "|---|---|---|---|---|"]
    for name in REPORTS:
        counts = [len(known.get(name, ())) or "-" for known in (questions.ORDERS, questions.REQUESTS)]
        lines.append(f"| {name} | {counts[0]} | {counts[1]} | ✓ | {_peer(name)} |")
    return "\n".join(lines)


def _peer(name: str) -> str:
    if name in clickhouse.NONE:
        return f"- ({clickhouse.NONE[name]})"
    if name in clickhouse.ELSEWHERE:
        function, file = clickhouse.ELSEWHERE[name]
        return f"`{function}` ({file})"
    return f"`{(clickhouse.ORDERS | clickhouse.REQUESTS)[name].by}`"


def pages() -> dict[Path, str]:
    """testing.md as it must be."""
    return {PAGE: replaced(PAGE, "oracles", table())}
