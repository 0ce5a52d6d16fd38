"""Charts of results: each report has its own; all are well-formed, escaped, and the same bytes for the same rows."""

from __future__ import annotations

import asyncio
import struct
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebed import Analytics, FontMissing
from lakebed.charts import formatting
from lakebed.charts.canvas import clean, ticks
from lakebed.charts.chart import pixels
from lakebed.charts.chart_types import CHARTS
from lakebed.query.result import Result
from lakebed.reports.reports import REPORTS
from tests.installed import font
from tests.reports.report_samples import COHORTS, EVENTS, SAMPLES

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('1')</script>&\"\x00" + "x" * 200
DAY = date(2026, 1, 1)
# The column whose numbers each report's chart must show, and how they are written.
SHOWN = {
    "funnel": ("people", formatting.figure),
    "funnel_people": ("seconds", formatting.span),
    "funnel_times": ("people", formatting.figure),
    "retention": ("rate", formatting.percent),
    "lifecycle": ("new", formatting.figure),
    "stickiness": ("people", formatting.figure),
    "sessions": ("sessions", formatting.figure),
    "session_list": ("seconds", formatting.span),
    "segmentation": ("value", formatting.figure),
    "top": ("count", formatting.figure),
    "paths": ("count", formatting.figure),
    "timeline": ("timestamp", formatting.moment),
    "anomalies": ("value", formatting.figure),
    "performance": ("p95_ms", formatting.figure),
    "errors": ("errors", formatting.figure),
    "cohort_people": ("events", formatting.figure),
    "cohort_size": ("people", formatting.figure),
    "usage": (None, formatting.figure),
}


async def _run_samples(root: Path) -> dict[str, Result]:
    async with Analytics("shop", root=root, headroom_bytes=0) as analytics:
        await analytics.batch(EVENTS)
        for name, body in COHORTS.items():
            await analytics.save_cohort(name, body)
        results = {name: await getattr(analytics, name)(**arguments) for name, arguments in SAMPLES.items()}
        assert await analytics.check() == []
        return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Every report's result over the events of the samples."""
    return asyncio.run(_run_samples(tmp_path_factory.mktemp("charts")))


def parsed(svg: str) -> ET.Element:
    """The chart by an XML parser: it has a role, a label, a title and a description, and requests nothing."""
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    assert root.get("aria-label") == root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")
    for element in root.iter():
        assert element.tag not in {f"{SVG}script", f"{SVG}image", f"{SVG}use", f"{SVG}foreignObject"}
        assert not [name for name in element.attrib if "href" in name or name.startswith("on")]
        if element is not root:
            assert not {"nan", "inf", "-inf"} & set(element.attrib.values())
    assert "url(" not in svg
    return root


def texts(svg: str) -> str:
    """All text of a chart, with its tooltips."""
    return "\n".join(parsed(svg).itertext())


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_report_has_a_chart_of_its_own(results: dict[str, Result], name: str) -> None:
    """A well-formed chart with the report's title, the same each time, and in the notebook above the table."""
    result = results[name]
    assert len(result) > 0
    chart = result.plot()
    assert parsed(chart.svg()).findtext(f"{SVG}title") == name.replace("_", " ").capitalize()
    assert chart.svg() == result.plot().svg()
    assert chart._repr_html_() in result._repr_html_()
    assert "<table>" in result._repr_html_()


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_a_chart_shows_the_numbers_of_the_rows(results: dict[str, Result], name: str) -> None:
    """Each number of the rows is written in the chart, at its mark or as its tooltip."""
    column, written = SHOWN[name]
    result = results[name]
    chart_texts = texts(result.plot().svg())
    values = [sum((row.quantity for row in result), Decimal(0))] if column is None else [row[column] for row in result]
    for value in values:
        if value is not None and value != 0:
            assert written(value) in chart_texts


@pytest.mark.parametrize("name", sorted(REPORTS))
@pytest.mark.parametrize("rows", [0, 1, 10_000])
def test_charts_of_no_row_one_row_and_ten_thousand(results: dict[str, Result], name: str, rows: int) -> None:
    """No rows: the chart says so. One is drawn. Ten thousand are thinned, with a note, and the chart stays small."""
    base = results[name].arrow().slice(0, min(rows, 1))
    table = base
    if rows > 1:
        table = pa.table([_many(base.column(n), field) for n, field in enumerate(base.schema)], schema=base.schema)
    svg = Result(table, report=name).plot().svg()
    chart_texts = texts(svg)
    assert ("no rows" in chart_texts) == (rows == 0)
    if rows > 1:
        assert len(svg) < 600_000
        assert name in {"usage", "funnel_times"} or "drawn" in chart_texts


def _many(column: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    first = column[0].as_py()
    if pa.types.is_boolean(field.type):
        return pa.array([n % 50 == 0 for n in range(10_000)], field.type)
    if isinstance(first, datetime):
        return pa.array([first + timedelta(minutes=n) for n in range(10_000)], field.type)
    if isinstance(first, date):
        return pa.array([first + timedelta(days=n) for n in range(10_000)], field.type)
    if pa.types.is_string(field.type):
        return pa.array([f"{first} {n % 40}" for n in range(10_000)], field.type)
    if pa.types.is_integer(field.type):
        return pa.array([n % 90 + 1 for n in range(10_000)], field.type)
    return pa.array([Decimal(n) if pa.types.is_decimal(field.type) else n / 10_000 for n in range(10_000)], field.type)


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_names_are_never_markup(results: dict[str, Result], name: str) -> None:
    """A name that is a script, forbidden in XML or too long: it is escaped and cut, and the tooltip has all of it."""
    table = results[name].arrow()
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(position, field, pa.array([HOSTILE] * len(table), field.type))
    chart = Result(table, report=name).plot()
    chart_texts = texts(chart.svg())
    assert "<script" not in chart.svg() + chart.html()
    if any(pa.types.is_string(field.type) for field in table.schema):
        assert HOSTILE.replace("\x00", "\ufffd") in chart_texts
        assert name == "anomalies" or "…" in chart_texts  # a reason is only ever a tooltip


def test_save_writes_svg_and_html_and_refuses_other_endings(results: dict[str, Result], tmp_path: Path) -> None:
    """A page is whole and requests nothing from the network; the error names the ending that is refused."""
    chart = results["funnel"].plot()
    for ending, wanted in (("svg", chart.svg()), ("html", chart.html())):
        path = tmp_path / f"funnel.{ending}"
        chart.save(path)
        assert path.read_text("utf-8") == wanted
    assert chart.html().startswith("<!doctype html>")
    assert "http" not in chart.html().replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme:dark" in chart.html()
    assert "prefers-color-scheme:dark" in chart.svg()
    with pytest.raises(ValueError, match=r"\.svg, \.html or \.png, not '\.pdf'"):
        chart.save(tmp_path / "funnel.pdf")


# The attributes that stand for the classes of a chart.
ATTRIBUTES = {
    "lb-title": {"font-weight": "600"},
    "lb-strong": {"font-weight": "600"},
    "lb-soft": {"fill-opacity": ".68"},
    "lb-on": {"fill": "#fff"},
    "lb-grid": {"stroke": "{ink}", "stroke-opacity": ".13"},
    "lb-axis": {"stroke": "{ink}", "stroke-opacity": ".5"},
    "lb-paper": {"fill": "{paper}"},
}
THEMES = {"light": ("#1f2328", "#fff"), "dark": ("#e6edf3", "#14171c")}


def without_style_sheet(svg: str, theme: str) -> str:
    """The same chart without a style sheet: each element has the attributes of its class, and plain colours."""
    root, (ink, paper) = parsed(svg), THEMES[theme]
    root.remove(root.find(f"{SVG}style"))
    for element in root.iter():
        is_text = element.tag == f"{SVG}text"
        attributes = {"fill": ink, "font-family": "sans-serif", "font-size": "12"} if is_text else {}
        for name, value in ATTRIBUTES.get(element.get("class"), {}).items():
            attributes[name] = value.format(ink=ink, paper=paper)
        own = {name: ink if value == "currentColor" else value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: value for name, value in (attributes | own).items() if name != "class"})
    return ET.tostring(root, "unicode")


@pytest.mark.parametrize(("name", "theme"), list(zip(sorted(REPORTS), cycle(THEMES), strict=False)))
def test_a_png_looks_like_the_svg(results: dict[str, Result], name: str, theme: str) -> None:
    """For each report, in light or dark colours: the image has the SVG's size and all of its style sheet."""
    font()
    chart = results[name].plot()
    image = chart.png(0.5, theme=theme)
    root = parsed(chart.svg())
    size = tuple(round(float(root.get(side)) * 0.5) for side in ("width", "height"))
    assert (image[:8], struct.unpack(">II", image[16:24])) == (b"\x89PNG\r\n\x1a\n", size)
    assert image == pixels(without_style_sheet(chart.svg(), theme), 0.5)


@pytest.mark.parametrize("name", ["funnel", "retention", "paths"])
def test_every_text_is_in_the_png(results: dict[str, Result], name: str) -> None:
    """Without any one of its labels the image differs: no label was left out for lack of a font."""
    font()
    root = ET.fromstring(without_style_sheet(results[name].plot().svg(), "light"))  # noqa: S314 - our own
    whole = pixels(ET.tostring(root, "unicode"), 0.5)
    labels = [(parent, child) for parent in root.iter() for child in parent if child.tag == f"{SVG}text"]
    assert len(labels) > 3
    for parent, label in labels:
        position = list(parent).index(label)
        parent.remove(label)
        assert pixels(ET.tostring(root, "unicode"), 0.5) != whole, "".join(label.itertext())
        parent.insert(position, label)


def test_save_writes_png_and_refuses_bad_scales_and_themes(results: dict[str, Result], tmp_path: Path) -> None:
    """`save` writes the image at twice its size; invalid scales and themes are refused."""
    font()
    chart = results["cohort_size"].plot()
    chart.save(tmp_path / "size.PNG")
    assert (tmp_path / "size.PNG").read_bytes() == chart.png() == chart.png(2, theme="light")
    for scale in (0, 0.01, 4.1, float("nan")):
        with pytest.raises(ValueError, match=r"from 0\.1 to 4"):
            chart.png(scale)
    with pytest.raises(ValueError, match="light or dark"):
        chart.png(theme="blue")


def test_a_missing_font_is_an_error(
    results: dict[str, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """resvg draws no text where it has no font, and says nothing: here it is an error with a next step, and no file."""
    chart = results["funnel"].plot()
    with pytest.raises(FontMissing, match=r"no font 'No Such Face'\. `fc-list"):
        chart.png(font="No Such Face")
    monkeypatch.setattr("lakebed.charts.chart._COMMON", ("No Such Face", "Nor This"))
    with pytest.raises(FontMissing, match=r"No Such Face, Nor This is installed\. Install one"):
        chart.save(tmp_path / "funnel.png")
    assert list(tmp_path.iterdir()) == []


def test_png_without_resvg_names_the_extra_to_install(
    results: dict[str, Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SVG and HTML need nothing; PNG names the extra."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    chart = results["funnel"].plot()
    chart.save(tmp_path / "funnel.svg")
    with pytest.raises(ImportError, match=r"pip install 'lakebed\[notebook\]'"):
        chart.png()


def test_plain_results_are_drawn_by_their_types() -> None:
    """A time and a number make a line, text and a number make bars; else the error says what can be drawn."""
    line = Result(pa.table({"date": [DAY, DAY + timedelta(1)], "dau": [12_345, None]})).plot()
    assert (line.title, "12,345" in texts(line.svg())) == ("dau by date", True)
    bar = Result(pa.table({"event": ["Seen", None], "n": [1_000, 2]})).plot()
    assert (bar.title, "1,000" in texts(bar.svg()), "(none)" in texts(bar.svg())) == ("n by event", True, True)
    assert "no rows" in texts(
        Result(pa.table({"event": pa.array([], pa.string()), "n": pa.array([], pa.int64())})).plot().svg()
    )
    with pytest.raises(ValueError, match="columns a, b cannot be drawn: a line needs"):
        Result(pa.table({"a": [1], "b": [2]})).plot()


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("funnel", {"steps": ["Seen", "Bought"], "by": "plan"}, ("pro", "free", "2 Bought")),
        (
            "funnel",
            {"steps": ["Seen", "Bought"], "compare": True, "start": "2026-01-04", "end": "2026-01-07"},
            ("current", "previous"),
        ),
        ("funnel", {"steps": ["Seen", "Bought"], "totals": True}, ("1 Seen", "5 people", "; 70 times")),
        ("segmentation", {"events": ["Seen", "Bought"], "grain": None}, ("Seen", "70")),
        ("segmentation", {"events": "Seen", "measure": "avg(revenue)", "grain": "hour"}, ("Seen", "1 Jan 2026 08:00")),
        ("sessions", {"grain": None, "by": "entry"}, ("Seen",)),
        ("sessions", {"grain": None}, ("sessions",)),
        ("performance", {"grain": None, "by": "path"}, ("/Bought", "/Seen")),
        ("performance", {"grain": "day"}, ("p50_ms", "p95_ms", "p99_ms")),
        ("stickiness", {"interval": "week"}, ("29 Dec 2025 · 4", "5 Jan 2026 · 3")),
        ("paths", {"before": "Bought", "steps": 3}, ("Bought", "(start)")),
        ("top", {"what": "event", "start": "2030-01-01"}, ("no rows",)),
        ("lifecycle", {"start": "2030-01-01", "end": "2030-01-03"}, ("Lifecycle",)),
        ("retention", {"grain": "day", "periods": 2, "by": "plan"}, ("pro", "free", "1 Jan 2026, period 0: 3 people")),
        ("lifecycle", {"grain": "day", "by": "plan", "end": "2026-01-08"}, ("pro", "free", "1 Jan 2026, new: 3")),
        (
            "segmentation",
            {"events": "Seen", "by": "plan", "compare": True, "start": "2026-01-03", "end": "2026-01-05"},
            ("Seen · free · current", "Seen · pro · previous"),
        ),
        ("performance", {"compare": True, "start": "2026-01-03", "end": "2026-01-05"}, ("current", "previous")),
        ("top", {"what": "event", "n": 1, "other": True}, ("Seen", "(other)")),
        ("anomalies", {"measure": "avg(revenue)", "seasonality": "none", "end": "2026-01-03"}, ("Anomalies",)),
    ],
)
def test_charts_follow_the_columns_of_a_report(
    name: str, arguments: dict[str, object], expected: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Split by a column, compared, without a grain, backwards, without rows: the chart follows the columns."""
    written = texts(asyncio.run(_run_report(tmp_path_factory.mktemp("shapes"), name, arguments)).plot().svg())
    assert [text for text in expected if text not in written] == []


async def _run_report(root: Path, name: str, arguments: dict[str, object]) -> Result:
    async with Analytics("shop", root=root, headroom_bytes=0) as analytics:
        await analytics.batch(EVENTS)
        result: Result = await getattr(analytics, name)(**arguments)
        assert await analytics.check() == []
        return result


def test_panels_of_many_values_stop_at_the_maximum_height() -> None:
    """The first of a hundred values are drawn, each with its own grid; a note says how many are drawn."""
    names = ["cohort", "period", "people", "rate", "plan"]
    rows = [(DAY + timedelta(week * 7), 0, 5, 1.0, f"plan {n}") for n in range(100) for week in range(8)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    chart = Result(pa.table(columns, names=names), report="retention").plot()
    chart_texts = texts(chart.svg())
    assert ("plan 0" in chart_texts, "plan 5" in chart_texts, "plan 6" in chart_texts) == (True, True, False)
    assert "The first 6 of 100 values are drawn." in chart_texts
    assert chart.description.startswith("plan 0: 8 cohorts over 1 periods")
    groups = parsed(chart.svg()).iter(f"{SVG}g")
    assert len({group.get("transform") for group in groups}) == 1 + 6


def test_a_plain_result_has_no_chart_in_a_notebook() -> None:
    """A result that is not a report's is a table in a notebook; `plot` draws it."""
    assert "<svg" not in Result(pa.table({"event": ["Seen"], "n": [1]}))._repr_html_()


def test_thinning_keeps_the_lowest_and_the_highest_point() -> None:
    """Of ten thousand points the lowest and the highest are drawn: their numbers are in the description."""
    values = [100] * 10_000
    values[5_003], values[7_777] = 98_765, 1
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(10_000)]
    chart = Result(pa.table({"time": times, "value": values})).plot()
    assert "lowest 1, highest 98,765" in chart.description
    assert "of 10,000 points are drawn" in texts(chart.svg())


def marks(root: ET.Element) -> list[ET.Element]:
    """The elements that stand for rows: bars, dots and lines with a tooltip. The legend has none."""
    return [
        element
        for tag in ("rect", "circle", "polyline")
        for element in root.iter(f"{SVG}{tag}")
        if element.find(f"{SVG}title") is not None
    ]


def coordinates(element: ET.Element) -> list[tuple[float, float]]:
    """All corners of a bar, the centre of a dot, the points of a line; in the chart, below its title."""
    if element.tag == f"{SVG}rect":
        x, y, width, height = (float(element.get(name)) for name in ("x", "y", "width", "height"))
        return [(x, y), (x + width, y + height)]
    if element.tag == f"{SVG}circle":
        return [(float(element.get("cx")), float(element.get("cy")))]
    return [tuple(map(float, point.split(","))) for point in element.get("points").split()]


@given(st.lists(st.one_of(st.none(), st.floats(), st.floats(-1e6, 1e6)), min_size=1, max_size=20), st.booleans())
def test_any_numbers_are_drawn_within_the_bounds(values: list[float | None], over_time: bool) -> None:
    """NULL, NaN, infinities, negative, huge and tiny numbers: a mark for each row, all of them inside the chart.

    A line has a dot for each finite number up to 1e300; bars have one for each row, of no length where there is none.
    """
    column = pa.array(values, pa.float64())
    first = [DAY + timedelta(n) for n in range(len(values))] if over_time else [str(n) for n in range(len(values))]
    root = parsed(Result(pa.table({"key": first, "value": column})).plot().svg())
    width, height = float(root.get("width")), float(root.get("height")) - 44
    drawn = marks(root)
    for x, y in [point for mark in drawn for point in coordinates(mark)]:
        assert 0 <= x <= width
        assert 0 <= y <= height
    finite = [value for value in values if value is not None and abs(value) <= 1e300]
    kind = "circle" if over_time else "rect"
    assert len([mark for mark in drawn if mark.tag == f"{SVG}{kind}"]) == len(finite if over_time else values)


@given(st.text(max_size=300))
def test_any_text_is_drawn_and_written(text: str) -> None:
    """Any name: the chart is well-formed, and the name is written in it, without the characters that XML forbids."""
    name = text.encode("utf-8", "replace").decode()
    root = parsed(Result(pa.table({"key": pa.array([name]), "value": [1]})).plot().svg())
    (bar,) = marks(root)
    written = ET.fromstring(f"<t>{clean(name) or '(empty)'}</t>").text  # noqa: S314 - our own
    assert bar.findtext(f"{SVG}title") == f"{written}: 1"


def test_every_report_is_in_the_table_of_charts() -> None:
    """`CHARTS` and `REPORTS` have the same names: a new report says how it is drawn."""
    assert CHARTS.keys() == REPORTS.keys() == SHOWN.keys() == SAMPLES.keys()


@given(st.floats(-1e12, 1e12), st.floats(0.001, 1e12))
def test_ticks_enclose_the_range(low: float, size: float) -> None:
    """Ticks begin at or below the lowest number, end at or above the highest, and are few."""
    scale = ticks(low, low + size)
    slack = (scale[-1] - scale[0] + abs(low)) * 1e-6
    assert scale[0] <= low + slack
    assert scale[-1] >= low + size - slack
    assert 2 <= len(scale) <= 8
