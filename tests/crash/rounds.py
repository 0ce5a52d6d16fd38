"""The rounds of torture. Each has its own seed and directory, so that it can be run again alone.

The seed of the run and the number of the round decide all random choices in it, but not when threads and processes
get the processor: see docs/testing.md.
"""

import asyncio
import json
import random
import subprocess
import sys

from tests.crash.promises import PromiseLog
from tests.crash.resource_limits import Peak, check_disk, check_growth, held
from tests.crash.subject import START

CYCLES = 25  # deaths of one object
LIVES = 12  # parts of a long life, with a quiet moment after each
_PATIENCE_S = 240.0  # an audit that takes longer counts as hung
_MODEL = "tests.model.soak"
_MATCHES = ("", "", "log/", "archive/", "sql", "sql catalog", "sql storage COMMIT", "sync", "replace", "remove")
_ORDER = ("kill", "kill", "model", "kill", "kill", "kill", "life", "kill", "kill", "kill", "kill")


def kind_of(number):
    return _ORDER[number % len(_ORDER)]


class Round:
    """One round. It reports its progress by calling `tell`.

    Args:
        sabotage: a function that breaks a promise on purpose, which the round must notice: see `broken_promises.py`.
        more: a function that returns whether there is time for another cycle.
    """

    def __init__(self, seed, number, root, tell, *, sabotage=None, more=lambda: True):
        self.seed = f"{seed}/{number}"
        self.root = root
        self.tell = tell
        self.more = more
        self.sabotage = sabotage
        self.peak = Peak()
        self.journal = []  # every request and every promise

    def run(self, kind, runner):
        runner.peak = self.peak
        if kind == "model":
            self._model()
        else:
            asyncio.run(self._kill(runner) if kind == "kill" else self._live(runner))

    def save(self, path):
        path.write_text("".join(json.dumps(line) + "\n" for line in self.journal))

    def _session(self, runner, promised, request, **until):
        self.journal.append({"kind": "request", **until, "request": request})
        messages, signal = runner.session(request, heard=self.journal.append, **until)
        assert signal in (None, 9), f"the session ended by signal {signal}"
        promised.take(messages)
        assert signal or messages[-1]["kind"] in ("done", "refused"), messages[-1]
        self.peak.check()
        return messages, signal

    async def _audit(self, promised, **options):
        async with asyncio.timeout(_PATIENCE_S):
            await promised.audit(**options)
        self.peak.see(**check_disk("disk", self.root, len(promised.seen)))
        self.tell("audit", events=len(promised.seen), quiet=held())

    # Deaths

    async def _kill(self, runner):
        """Kill an object again and again, at random moments and at operations, with and without disk faults."""
        promised = PromiseLog(self.root, START)
        for cycle in range(CYCLES):
            if cycle and self.sabotage is None and not self.more():  # sabotage goes on until it is noticed
                break
            seed = f"{self.seed}/{cycle}"
            rng = random.Random(seed)
            request = promised.request(seed, **drawn(rng))
            lines = 0 if rng.random() < 0.1 else rng.randint(1, 170)  # 0: it dies while it opens
            _, signal = self._session(runner, promised, request, lines=lines, seconds=rng.uniform(0, 0.15))
            self.tell("session", killed=signal == 9, faults="faults" in request, peak=self.peak.most)
            if self.sabotage is not None and promised.acked:
                self.sabotage(promised)
            if rng.random() < 0.5:  # else the next process opens an object that died several times
                await self._audit(promised, retried=20)
        await self._audit(promised, retried=20)
        await self._rest(promised)

    async def _rest(self, promised):
        await promised.settle()
        await self._audit(promised)
        self.peak.see(**check_disk("settled", self.root, len(promised.seen)))
        self.tell("settled", peak=self.peak.most)

    # A long life

    async def _live(self, runner):
        """One process with thousands of concurrent operations: the resources that it holds do not grow."""
        promised = PromiseLog(self.root, START)
        rng = random.Random(self.seed)
        request = promised.request(self.seed, turns=60, lives=LIVES, cancel=0.02, steps=0.01)
        if rng.random() < 0.3:
            request["faults"] = {"rate": 0.003, "only": "", "at_open": False}
            promised.faulty = True
        messages, signal = self._session(runner, promised, request)
        assert signal is None
        samples = [line for line in messages if line["kind"] == "quiet"]
        self.tell(
            "life", operations=len(messages), samples=[{name: sample[name] for name in held()} for sample in samples]
        )
        check_growth(samples)
        await self._audit(promised, retried=20)
        await self._rest(promised)

    # The model

    def _model(self):
        """Run the state machine with this round's seed in its own process."""
        program = [sys.executable, "-m", _MODEL, "--seed", self.seed, "--keep", str(self.root)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        self.tell("model", **json.loads(done.stdout.splitlines()[-1]))


def drawn(rng):
    """Random options of a session. The moment of its death is drawn elsewhere."""
    if rng.random() < 0.15:
        return {"jobs": 12}  # one job at a time, so that each runs beside tracking alone
    options = {"turns": rng.choice([20, 40]), "cancel": rng.choice([0.0, 0.0, 0.05]), "steps": rng.choice([0.0, 0.03])}
    options["behind"] = rng.choice([0, 0, 2, 300])
    if rng.random() < 0.15:
        return options | {"naps": True, "turns": 4}
    if rng.random() < 0.35:
        only = rng.choice(["", "", "log", "archive", "sync", "write", "remove", "replace"])
        rate = rng.choice([0.003, 0.01, 0.04]) * (10 if only in ("remove", "replace") else 1)  # these are rare
        options["faults"] = {"rate": rate, "only": only, "at_open": rng.random() < 0.3}
    if rng.random() < 0.3:
        at = round(10 ** rng.uniform(0, 2.2))
        options["kill"] = {"match": rng.choice(_MATCHES), "at": at, "when": rng.choice(["before", "half", "after"])}
    return options
