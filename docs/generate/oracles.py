"""Writes the table of oracles.md from what the tests ask, so that it cannot drift: `python docs/oracles.py`."""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "query"))

import clickhouse
import questions

from lakebed.query.reports import REPORTS

PAGE = Path(__file__).with_name("oracles.md")
START, END = "<!-- oracles -->\n", "<!-- end of oracles -->"


def table() -> str:
    """A row for each report: of how many questions about real events, and by what in ClickHouse."""
    lines = ["| report | orders | requests | made-up | ClickHouse |", "|---|---|---|---|---|"]
    for name in REPORTS:
        asked = [len(known.get(name, ())) or "-" for known in (questions.ORDERS, questions.REQUESTS)]
        lines.append(f"| {name} | {asked[0]} | {asked[1]} | ✓ | {_peer(name)} |")
    return "\n".join(lines)


def _peer(name: str) -> str:
    if name in clickhouse.NONE:
        return f"- ({clickhouse.NONE[name]})"
    if name in clickhouse.ELSEWHERE:
        function, file = clickhouse.ELSEWHERE[name]
        return f"`{function}` (tests/query/{file})"
    return f"`{(clickhouse.ORDERS | clickhouse.REQUESTS)[name].by}`"


def written(page: str) -> str:
    """`page` with its table as it must be."""
    head, _, rest = page.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
