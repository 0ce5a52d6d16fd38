"""Two archivers of one table. The catalog loses answers, and a job of one runs between plan and commit of the other."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from lakebed.clock import SystemClock
from lakebed.errors import ArchiveConflict, ArchiveUnavailable
from tests.tiers.archive.archive_fixtures import DAY, START, events, open_archive, seqs, stored

pytestmark = pytest.mark.integration

STEPS = st.sampled_from(
    ["", "", "", "conflict", "unknown", "socket", *(f"applied {e}" for e in ("conflict", "unknown"))]
)
USERS = st.integers(0, 6)
JOBS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 9)),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("erase"), USERS),
    st.tuples(st.just("expire"), st.none()),
    st.tuples(st.just("collect_garbage"), st.none()),
)


class Interleavings(RuleBasedStateMachine):
    """For any interleaving, both archivers read the contents of a plain list."""

    def __init__(self):
        super().__init__()
        from tests.tiers.archive.flaky_catalog import FlakyCatalog

        self.catalog = FlakyCatalog
        self.catalog.script, self.catalog.meanwhile = [], None
        self.root = Path(tempfile.mkdtemp(prefix="lakebed-machine-"))
        self.runner = asyncio.Runner()
        properties = {
            "py-catalog-impl": "tests.tiers.archive.flaky_catalog.FlakyCatalog",
            "uri": f"sqlite:///{self.root}/elsewhere.db",
            "warehouse": str(self.root / "warehouse"),
        }
        self.archives = [
            open_archive(self.root, catalog=properties, clock=SystemClock(), snapshots_keep=keep, garbage_grace_s=3600)
            for keep in (1, 3)
        ]
        self.watermark = 0
        self.rows = []
        self.tags = {}

    def batch(self, start, end):
        """Events of three days, some of them late."""
        return events(start, end, at=lambda seq: START + seq + (seq * 31 % 3) * DAY)

    # The effects of the jobs on the plain list, each as if it ran alone

    def note(self, job, argument):
        if job == "append":
            self.rows += range(self.watermark, self.watermark + argument)
            self.watermark += argument
        elif job == "erase":
            self.rows = [seq for seq in self.rows if seq % 7 != argument]

    async def call(self, archive, job, argument, start):
        if job == "append":
            return await archive.append(self.batch(start, start + argument), start, start + argument)
        if job == "erase":
            return await archive.erase("user_id", [f"u{argument}"])
        return await getattr(archive, job)()

    def between(self, job, argument):
        """Let the second archiver do a job after the first has prepared a commit; note the job if it ran."""

        def meanwhile():
            script, self.catalog.script = self.catalog.script, []
            start = self.watermark
            self.note(job, argument)
            asyncio.run(self.call(self.archives[1], job, argument, start))
            self.catalog.script = script

        self.catalog.meanwhile = meanwhile

    @rule(job=JOBS, step=STEPS, other=st.one_of(st.none(), JOBS))
    def work(self, job, step, other):
        """One archiver runs a job; the catalog answers as `step` says; the other archiver runs in between."""
        start = self.watermark
        self.catalog.script = [step]
        if other is not None:
            self.between(*other)
        try:
            done = self.runner.run(self.call(self.archives[0], *job, start))
        except ArchiveConflict:
            # The other archiver took a part of this batch: it must be read from the log again.
            assert job[0] == "append"
            assert start < self.watermark < start + job[1]
        except ArchiveUnavailable:
            assert step, "every answer came"
            if not step.startswith("applied"):
                return
            assert job[0] == "expire", "what was applied was found"
        else:
            if job[0] == "append":
                assert done is (self.watermark == start)
            if job[0] != "append" or done:
                self.note(*job)
        finally:
            self.catalog.script, self.catalog.meanwhile = [], None

    @rule()
    def grow_old(self):
        """Make all files older than the grace period while no job runs: garbage among them may be deleted."""
        for path in stored(self.root / "warehouse"):
            os.utime(path, (0, 0))

    @rule(name=st.sampled_from("ab"))
    def tag(self, name):
        if self.watermark:
            self.runner.run(self.archives[1].tag(name))
            self.tags[name] = list(self.rows)

    @rule(job=JOBS)
    def at_once(self, job):
        """Both archivers run the same job at the same time."""
        start = self.watermark

        async def race():
            calls = (self.call(archive, *job, start) for archive in self.archives)
            return await asyncio.gather(*calls, return_exceptions=True)

        outcomes = self.runner.run(race())
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert all(isinstance(error, ArchiveUnavailable) for error in failed), "the catalog may be busy with the other"
        if failed:  # these may or may not have taken effect; a repeat is safe
            outcomes.append(self.runner.run(self.call(self.archives[0], *job, start)))
        if job[0] == "append":
            assert sum(outcome is True for outcome in outcomes) == 1 or failed
            assert sum(outcome is True for outcome in outcomes) <= 1
        self.note(*job)

    @invariant()
    def same(self):
        assert [self.runner.run(archive.watermark()) for archive in self.archives] == [self.watermark] * 2
        assert self.runner.run(self.archives[0].check()) == []
        assert self.runner.run(seqs(self.archives[0])) == sorted(self.rows)
        for name, rows in self.tags.items():
            assert self.runner.run(seqs(self.archives[1], name)) == sorted(rows)

    def teardown(self):
        for archive in self.archives:
            self.runner.run(archive.close())
        self.runner.close()
        shutil.rmtree(self.root)


def test_l3_29_interleavings():
    """Appends, compaction, erasure, expiry and collection in any order, and between each other, lose nothing."""
    run_state_machine_as_test(Interleavings, settings=settings(max_examples=5, stateful_step_count=20, deadline=None))


@pytest.mark.slow
def test_l3_29_many_interleavings():
    """The same for some minutes."""
    run_state_machine_as_test(Interleavings, settings=settings(max_examples=80, stateful_step_count=30, deadline=None))
