"""What a run leaves behind: a JSON file, and the table in docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import table
from bench.machine import Machine
from bench.measure import Failed, Found
from bench.row import Row

BEGIN, END = "<!-- table: begin, written by `python -m bench` -->", "<!-- table: end -->"


class Report(msgspec.Struct, frozen=True):
    """One run."""

    machine: Machine
    rows: Sequence[Row]
    runs: int
    size: float
    seconds: float
    started: str

    @property
    def failures(self) -> list[str]:
        """Everything that could not be measured."""
        return [failure for row in self.rows for failure in row.failures]

    @property
    def missed(self) -> list[str]:
        """Every goal that was missed."""
        return [f"{row.work}: {goal.text}" for row in self.rows for goal in row.goals if row.verdict(goal) == "missed"]

    def heading(self) -> str:
        """What the figures are."""
        return (
            f"Medians of {self.runs} turns, taken in turn, size {self.size:g}, {self.started}, "
            f"{self.seconds:,.0f} s in all.\n{self.machine}"
        )

    def json(self) -> bytes:
        """Every figure of every turn, and what became of the goals."""
        found = {
            "started": self.started,
            "seconds": self.seconds,
            "runs": self.runs,
            "size": self.size,
            "machine": self.machine,
            "rows": [_row(row) for row in self.rows],
        }
        return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"

    def into(self, page: str) -> str:
        """`page` with its table replaced by this one; the text around it stays.

        Raises:
            ValueError: when it has no place for a table.
        """
        before, begin, rest = page.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"the page has no {BEGIN} … {END}: put these two lines where the table shall be")
        return f"{before}{BEGIN}\n\n{self.heading()}\n\n{table.markdown(self.rows)}\n\n{END}{after}"

    def save(self, path: Path, page: Path | None) -> None:
        """Write the JSON and, for a run of everything, the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.json())
        if page is not None:
            page.write_text(self.into(page.read_text("utf-8")), "utf-8")


def _row(row: Row) -> dict[str, Any]:
    return {
        "subject": row.subject,
        "work": row.work,
        "unit": row.unit,
        "lakebed": _found(row.lakebed),
        "peers": {name: _found(found) for name, found in row.peers.items()},
        "floor": None if row.floor is None else _found(row.floor) | {"is": row.floor_is},
        "goals": [
            {"text": goal.text, "design": goal.design, "of": goal.of, "verdict": row.verdict(goal)}
            for goal in row.goals
        ],
    }


def _found(found: Found) -> dict[str, Any]:
    if isinstance(found, Failed):
        return {"absent" if found.absent else "failed": found.reason}
    return {"median": found.median, "min": found.low, "max": found.high, "values": found.values}
