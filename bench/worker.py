"""The process of one contender: python -m bench.worker MODULE:FUNCTION DIRECTORY FD ARGUMENTS. `measure` starts it."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.measure import Absent


def pin(cores: int) -> None:
    """Run on so many cores from now on, threads and children included; 0 changes nothing."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])


def reply(turns: Iterator[dict[str, float]]) -> dict[str, Any]:
    """The figures of one turn, or why there are none."""
    gc.collect()
    try:
        return {"figures": next(turns)}
    except Absent as error:
        return {"failed": {"reason": str(error), "absent": True}}
    except Exception as error:  # noqa: BLE001 - whatever went wrong is what the table has to say
        import traceback  # only then

        traceback.print_exc()
        text = " ".join(str(error).split())
        return {"failed": {"reason": f"{type(error).__name__}: {text[:200]}"}}


def main() -> None:
    """Take a turn for each line on standard input."""
    target, directory, descriptor, arguments = sys.argv[1:]
    module, _, name = target.partition(":")
    parameters = json.loads(arguments)
    pin(parameters["cores"])
    function = getattr(importlib.import_module(module), name)
    turns = function(Path(directory), **parameters["options"])
    with os.fdopen(int(descriptor), "w") as replies:
        for _ in sys.stdin:
            print(json.dumps(reply(turns)), file=replies, flush=True)
        turns.close()


if __name__ == "__main__":
    main()
