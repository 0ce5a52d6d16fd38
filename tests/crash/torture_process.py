"""One core's share of torture: its own process runs round after round and reports to the conductor."""

import shutil
import time
import traceback
from pathlib import Path

from tests.crash.broken_promises import KINDS
from tests.crash.resource_limits import check_growth
from tests.crash.rounds import Round, kind_of
from tests.crash.sessions import SessionRunner

_WARM = 90  # audits after which the limits of a long life apply to this process, which opens every object


class Lane:
    """Rounds `first`, `first + step`, … until the time is up or enough have failed."""

    def __init__(self, seed, directory, say, *, until=None, sabotage=None, only=None, replay=None):
        self.seed, self.directory = seed, Path(directory)
        self._say = say
        self.until, self.sabotage, self.only = until, sabotage, only
        self.replay = replay or (lambda number: f"--seed {seed} --round {number}")
        self.failures = 0
        self._quiet = []
        self._runner = SessionRunner()

    def close(self):
        self._runner.close()

    def more(self):
        return self.until is None or time.monotonic() < self.until

    def rounds(self, first, step, most_failures=3):
        number = first
        self.round(number)  # at least one, however short the time is
        while self.more() and self.failures < most_failures:
            number += step
            self.round(number)

    def round(self, number):
        root = self.directory / f"{self.seed}-{number}"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        sabotage = KINDS[self.sabotage] if self.sabotage else None
        kind = self.only or kind_of(number)
        current_round = Round(self.seed, number, root, self._heard, sabotage=sabotage, more=self.more)
        self.say("begins", round=number, what=kind)
        try:
            current_round.run(kind, self._runner)
            self._check_myself()
        except Exception:  # noqa: BLE001 - whatever it is, it is what torture is for
            self._failed(current_round, number, root)
        else:
            shutil.rmtree(root)
            self.say("ends", round=number, what=kind)

    def _failed(self, current_round, number, root):
        trace = traceback.format_exc()
        self.failures += 1
        self._runner.abandon()  # a session of the round may still be running
        self._runner = SessionRunner()
        current_round.save(root / "promises.jsonl")
        (root / "failure.txt").write_text(f"{self.replay(number)}\n\n{trace}")
        self.say("failed", round=number, replay=self.replay(number), kept=str(root), trace=trace[-6000:])

    def _heard(self, kind, **facts):
        if "quiet" in facts:
            self._quiet.append(facts["quiet"])
        self.say(kind, **facts)

    def _check_myself(self):
        """Check the growth of this process too: it opens and closes hundreds of objects."""
        if len(self._quiet) >= _WARM:
            check_growth(self._quiet)

    def say(self, kind, **facts):
        self._say({"kind": kind, **facts})
