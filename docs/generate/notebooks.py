"""Executes the notebooks and stores their outputs: `make notebooks`.

Leaves out what differs from run to run: times of execution and the kernel's description of itself.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from docs.generate.marked import DOCS

FOLDER = DOCS / "notebooks"


def read(path: Path) -> Any:
    """A notebook as it is stored."""
    return nbformat.read(path, as_version=4)


def executed(notebook: Any, directory: Path) -> Any:
    """The notebook, run from top to bottom in an empty `directory`. Raises CellExecutionError."""
    fresh = nbformat.from_dict(notebook)
    resources = {"metadata": {"path": str(directory)}}
    NotebookClient(fresh, timeout=120, resources=resources, record_timing=False).execute()
    fresh.metadata = nbformat.from_dict(
        {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    return fresh


def answers(notebook: Any) -> list[list[str]]:
    """What each cell shows as text."""
    return [
        [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def main() -> None:
    """Execute all of them."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as directory:
            nbformat.write(executed(read(path), Path(directory)), path)
        sys.stdout.write(f"{path.name} executed\n")


if __name__ == "__main__":
    main()
