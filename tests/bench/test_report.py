"""How the figures are shown and kept."""

import json

import pytest

from bench import table
from bench.goal import FLOOR, Goal
from bench.machine import Machine
from bench.measure import Failed, Samples
from bench.page import PAGE, SECTIONS, SUMMARY, content, markers, summarised
from bench.report import Report
from bench.row import Row


@pytest.fixture
def rows():
    peers = {"SQLite": Samples((50, 100, 200)), "Redis": Failed("no redis-server", absent=True)}
    fast = Goal("≥ 0.5 x the floor", "batch", of=FLOOR, least=0.5)
    quick = Goal("≥ 2,000/s", "batch", least=2_000)
    return [
        Row(
            "ingest",
            "batch",
            "events/s",
            Samples((900, 1_000, 1_500)),
            peers,
            Samples((1_800, 2_000, 3_000)),
            "decode",
            [fast, quick],
        ),
        Row("disk", "archive", "bytes", Failed("it broke")),
    ]


@pytest.fixture
def report(rows, tmp_path):
    return Report(Machine.read(tmp_path), rows, 3, 1.0, 7, "2026-01-01 00:00 UTC")


def test_the_table_shows_median_spread_peers_ratios_and_goals(rows):
    """One row: every figure with its unit, ratios to all that were measured, and the verdict on each goal."""
    work, figure, spread, peers, floor, ratios, goals, met = table.cells(rows[0])
    assert (work, figure, spread) == (["batch"], ["1,000 events/s"], ["900 to 1,500"])
    assert peers == ["SQLite: 100 events/s", "Redis: absent"]
    assert floor == ["2,000 events/s", "(decode)"]
    assert ratios == ["0.500 x floor", "10.0 x SQLite"]
    assert list(zip(goals, met, strict=True)) == [("≥ 0.5 x the floor", "yes"), ("≥ 2,000/s", "NO")]


def test_a_failure_is_shown_with_its_reason(rows):
    """A row that could not be measured stays in the table."""
    assert "failed: it broke" in table.plain(rows)


def test_the_plain_table_has_a_line_for_each_contender(rows):
    """On a terminal: Lakebed, below it the floor and each peer, all columns aligned, no line too long to be read."""
    lines = table.plain(rows).splitlines()
    assert [line.split("  ")[0] for line in lines[2:4]] == ["batch", ""]
    assert lines[3].startswith("  floor: decode")
    assert lines[4].startswith("  SQLite")
    assert lines[5].startswith("  Redis")
    assert lines[2].index("1,000 events/s") == lines[0].index("figure") == lines[4].index("100 events/s")
    assert lines[3].index("0.500") == lines[0].index("ratio") == lines[4].index("10.0")
    assert max(map(len, lines)) < 120


def test_markdown_has_one_line_a_row(rows):
    """Lines of a cell are broken inside it, and a bar in a text does not end the cell."""
    bar = Row("s", "a | b", "ms", Samples((1,)))
    lines = table.markdown([*rows, bar]).splitlines()
    assert len(lines) == 2 + 3
    assert "SQLite: 100 events/s<br>Redis: absent" in lines[2]
    assert "a \\| b" in lines[4]


@pytest.mark.parametrize(
    ("value", "text"), [(123_456.7, "123,457"), (99.94, "99.9"), (1.234, "1.23"), (0.5, "0.500"), (0.0123, "0.0123")]
)
def test_numbers_have_three_digits(value, text):
    """Not more than a measurement can mean."""
    assert table.number(value) == text


def test_json_keeps_every_turn(report):
    """The file has each figure of each turn, verdicts, reasons and the machine."""
    document = json.loads(report.json())
    first, second = document["rows"]
    assert first["lakebed"]["values"] == [900, 1_000, 1_500]
    assert first["peers"]["Redis"] == {"absent": "no redis-server"}
    assert [goal["verdict"] for goal in first["goals"]] == ["met", "missed"]
    assert second["lakebed"] == {"failed": "it broke"}
    assert document["machine"]["cores"] >= 1


def blank():
    """A page with text by hand around every section."""
    parts = [
        f"by hand {name}\n\n{begin}\nold\n{end}\n" for name in (SUMMARY, *SECTIONS) for begin, end in [markers(name)]
    ]
    return "# Title\n\n" + "\n".join(parts) + "\nafter\n"


def test_a_run_rewrites_only_its_own_section(report):
    """Text by hand and the sections of other commands stay, however often a run is repeated."""
    once = report.into(blank(), "server")
    assert "| batch |" in content(once, "server")
    assert content(once, "engine") == content(once, "reports") == "old"
    assert once.startswith("# Title\n\nby hand summary\n")
    assert once.endswith("\nafter\n")
    assert report.into(once, "server") == once


def test_the_summary_has_the_goals_of_every_section(report):
    """A row with a goal is in the summary, once, with a link to its section; a row without one is not."""
    page = report.into(report.into(blank(), "engine"), "reports")
    rows = content(page, SUMMARY).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| [engine](#engine)", "| [reports](#reports)"]
    assert "| batch | 1,000 events/s | ≥ 0.5 x the floor<br>≥ 2,000/s | yes<br>NO |" in rows[0]


def test_the_summary_of_the_performance_page_equals_its_tables():
    """docs/performance.md: nothing in the summary is written by hand."""
    text = PAGE.read_text("utf-8")
    assert text == summarised(text), "run `python -m bench.page`"


def test_a_page_without_a_place_for_the_table_is_refused(report):
    """Nothing written by hand is lost to a guess."""
    with pytest.raises(ValueError, match="put these two lines"):
        report.into("# Title\n", "engine")
