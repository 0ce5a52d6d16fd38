"""The results of a run: a JSON file, and a section of docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import page, table
from bench.machine import Machine
from bench.measure import Failed, Found
from bench.row import Row


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
        """Every figure of every turn, and the verdict on every goal."""
        document = {
            "started": self.started,
            "seconds": self.seconds,
            "runs": self.runs,
            "size": self.size,
            "machine": self.machine,
            "rows": [_row(row) for row in self.rows],
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"

    def into(self, text: str, section: str) -> str:
        """The text of the page with this run's table in its section and in the summary; everything else stays.

        Raises:
            ValueError: The page has no place for the table or for the summary.
        """
        return page.replaced(text, section, f"{self.heading()}\n\n{table.markdown(self.rows)}")

    def save(self, path: Path, section: str | None, target: Path = page.PAGE) -> None:
        """Write the JSON and, if the run belongs to a section, the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.json())
        if section is not None:
            target.write_text(self.into(target.read_text("utf-8"), section), "utf-8")


def _row(row: Row) -> dict[str, Any]:
    return {
        "subject": row.subject,
        "work": row.work,
        "unit": row.unit,
        "lakebed": _found(row.lakebed),
        "peers": {name: _found(result) for name, result in row.peers.items()},
        "floor": None if row.floor is None else _found(row.floor) | {"is": row.floor_is},
        "goals": [
            {"text": goal.text, "design": goal.design, "of": goal.of, "verdict": row.verdict(goal)}
            for goal in row.goals
        ],
    }


def _found(result: Found) -> dict[str, Any]:
    if isinstance(result, Failed):
        return {"absent" if result.absent else "failed": result.reason}
    return {"median": result.median, "min": result.low, "max": result.high, "values": result.values}
