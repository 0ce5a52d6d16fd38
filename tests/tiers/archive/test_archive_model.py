import asyncio
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from lakebed.events.promotions import BUILT_IN
from tests.tiers.archive.archive_fixtures import DAY, PROMOTIONS, START, events, open_archive, read, seqs, seqs_of

pytestmark = pytest.mark.integration


class ArchiveMachine(RuleBasedStateMachine):
    """An archive and a plain list side by side, through appends, maintenance, views, tags and reopening."""

    views = Bundle("views")
    tags = Bundle("tags")

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="lakebed-model-"))
        self.runner = asyncio.Runner()
        self.archive = self.opened(promoted=False)
        self.watermark = 0
        self.rows = []

    def opened(self, *, promoted):
        return open_archive(
            self.root, promotions=PROMOTIONS if promoted else BUILT_IN, snapshots_keep=2, archive_rows=30
        )

    def run(self, call):
        return self.runner.run(call)

    @rule(count=st.integers(1, 12), days=st.integers(1, 3), late=st.integers(0, 4))
    def append(self, count, days, late):
        start, end = self.watermark, self.watermark + count
        rows = events(start, end, at=lambda seq: START + seq + ((seq * 31) % days - late) * DAY)
        assert self.run(self.archive.append(rows, start, end)) is True
        self.watermark = end
        self.rows += range(start, end)

    @rule(back=st.integers(1, 20))
    def append_again(self, back):
        start = max(0, self.watermark - back)
        assert self.run(self.archive.append(events(start, self.watermark), start, self.watermark)) is False

    @rule()
    def compact(self):
        self.run(self.archive.compact())

    @rule(user=st.integers(0, 6))
    def erase(self, user):
        gone = {seq for seq in self.rows if seq % 7 == user}
        assert self.run(self.archive.erase("user_id", [f"u{user}"])).rows == len(gone)
        self.rows = [seq for seq in self.rows if seq not in gone]

    @rule()
    def expire(self):
        self.run(self.archive.expire())

    @rule()
    def collect(self):
        dry = self.run(self.archive.collect_garbage(dry_run=True))
        assert self.run(self.archive.collect_garbage()).paths == dry.paths

    @rule(target=views)
    def pin(self):
        view = self.archive.pin()
        self.run(view.__aenter__())
        return view, list(self.rows)

    @rule(held=consumes(views))
    def release(self, held):
        view, rows = held
        assert seqs_of(view.files) == rows
        self.run(view.__aexit__(None, None, None))

    @rule(target=tags, name=st.sampled_from(["a", "b", "c"]))
    def tag(self, name):
        if not self.watermark:
            return multiple()
        self.run(self.archive.tag(f"{name}{len(self.rows)}-{self.watermark}"))
        return f"{name}{len(self.rows)}-{self.watermark}", list(self.rows)

    @rule(tagged=tags)
    def read_tag(self, tagged):
        name, rows = tagged
        assert self.run(seqs(self.archive, name)) == rows

    @rule(promoted=st.booleans())
    def reopen(self, promoted):
        self.run(self.archive.close())
        self.archive = self.opened(promoted=promoted)

    @invariant()
    def holds(self):
        assert self.run(self.archive.watermark()) == self.watermark
        assert self.run(self.archive.check()) == []
        assert self.run(seqs(self.archive)) == sorted(self.rows)

    def teardown(self):
        async def columns():
            async with self.archive.pin() as view:
                return [read(file.path) for file in view.files if "revenue" in file.columns]

        for rows in self.run(columns()):
            assert rows["revenue"].to_pylist() == [seq + 0.5 for seq in rows["seq"].to_pylist()]
        self.run(self.archive.close())
        self.runner.close()
        shutil.rmtree(self.root)


TestArchiveModel = ArchiveMachine.TestCase
TestArchiveModel.settings = settings(max_examples=8, stateful_step_count=14, deadline=None)
