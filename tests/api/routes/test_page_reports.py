"""The page's reports in a real Chromium: each draws the rows of the same report in Python, and has an address."""

from __future__ import annotations

import random
import re
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import pytest

from lakebed import connect
from tests.api.browsing import CONTRAST, WIDE, Site, visiting
from tests.installed import chromium

pytestmark = pytest.mark.integration

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=15_000)  # a shared machine may be slow without being wrong

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)
RANGE = {"start": "2025-01-06", "end": "2025-01-30"}
ADDRESS = "preset=custom&from=2025-01-06&to=2025-01-29"
STEPS = ["Seen", "Signed Up", "Paid"]
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
THICKNESS = "(one) => Number(/v([\\d.]+)/.exec(one.getAttribute('d'))[1])"
ASKED = {
    "funnel": ("funnel", {"steps": STEPS, "within": "3d"}),
    "by plan": ("funnel", {"steps": STEPS, "within": "3d", "by": "plan"}),
    "turned": ("funnel", {"steps": ["Signed Up", "Seen", "Paid"], "within": "3d"}),
    "dropped": ("funnel_people", {"steps": STEPS, "within": "3d", "step": 2}),
    "weeks": ("retention", {"start_event": "Seen", "grain": "week", "periods": 4, "mode": "recurring"}),
    "days": ("retention", {"mode": "first_time", "grain": "day", "periods": 2}),
    "paths": ("paths", {"after": "Seen", "steps": 3, "top": 4}),
    "before": ("paths", {"before": "Paid", "steps": 2, "top": 4}),
    "whole": ("performance", {"grain": None, "threshold_ms": 50}),
    "by day": ("performance", {"grain": "day", "threshold_ms": 50}),
    "routes": ("performance", {"grain": None, "by": ["method", "path"], "threshold_ms": 50}),
    "errors": ("errors", {"by": ["status_code", "method", "path", "error"], "limit": 50}),
}


def happened():
    """Some people who came, signed up, paid or not, and came again; and the requests of an app."""
    rng = random.Random(5)
    events = []
    for number in range(60):
        at = MONDAY + timedelta(days=rng.uniform(0, 20))
        for name, share in (("Seen", 1), ("Signed Up", 0.7), (HOSTILE, 0.2), ("Paid", 0.6)):
            if rng.random() < share:
                events.append((name, number, at, {"plan": "pro" if number % 3 else "free"}))
                at += timedelta(minutes=rng.expovariate(1 / 9))
        events += [("Seen", number, at + timedelta(days=day), {}) for day in range(1, 15) if rng.random() < 0.1]
    for number in range(90):
        status = rng.choice([200, 200, 200, 201, 404, 500])
        failure = {"error": rng.choice(["ValueError", HOSTILE])} if status == 500 else {}
        request = {"method": "GET", "path": rng.choice(["/orders/{id}", "/login", None]), "status_code": status}
        timing = {"duration_ms": rng.randrange(1, 400)}
        at = MONDAY + timedelta(hours=rng.choice([1, 2, 3, 50, 51, 200]))
        events.append(("api.request", number % 7, at, request | timing | failure))
    return [
        {"event": event, "userId": f"person {number}", "timestamp": at.isoformat(), "properties": properties}
        for event, number, at, properties in events
        if at.date() < date(2025, 1, 30)
    ]


def answers(root):
    """The rows of Python's reports, read before the server starts."""
    with connect(root, "default") as analytics:
        analytics.batch(happened())
        results = {
            name: getattr(analytics, report)(**RANGE, **arguments) for name, (report, arguments) in ASKED.items()
        }
        return {
            name: [dict(zip(result.columns, row, strict=True)) for row in result] for name, result in results.items()
        }


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium_browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield chromium_browser
        chromium_browser.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A server of events of January 2025; `told` has the rows of Python's reports. No test changes it."""
    root = tmp_path_factory.mktemp("shop")
    reports = answers(root)
    site = Site(root)
    site.told = reports
    yield site
    site.stop()


def percent(share):
    text = str(Decimal(share * 100).quantize(Decimal("0.1"), ROUND_HALF_UP)).removesuffix(".0")
    return f"{text}%"


def span(seconds):
    size, unit = next(pair for pair in ((86_400, "d"), (3_600, "h"), (60, "min")) if seconds >= pair[0])
    return f"{Decimal(seconds / size).quantize(Decimal('0.1'), ROUND_HALF_UP).normalize():f} {unit}"


def one_line(text):
    return re.sub(r"\s+", " ", text).strip()


def texts(locator):
    return [one_line(text) for text in locator.all_inner_texts()]


def field(page, name):
    return page.locator(f"#reports [name={name}]:visible")


def control(page, label):
    return page.locator("#reports").get_by_label(label, exact=True)


def cells(rows):
    """The texts of the cells of each row, in one call."""
    return rows.evaluate_all("(rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText))")


def answered(page):
    page.wait_for_selector("#report[aria-busy=false] *")  # looks at each frame, and not ten times a second


def for_everybody(page):
    """Text is legible in both themes, nothing reaches beyond a phone's edge, every control and picture has a name."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        # The charts are drawn anew in the next frame.
        page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        assert page.evaluate(WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
    for _ in range(2):
        page.click("#theme")
        assert page.evaluate(CONTRAST) == []
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    entries = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")
    ]
    named_roles = {
        "button",
        "textbox",
        "combobox",
        "spinbutton",
        "checkbox",
        "Date",
        "DateTime",
        "image",
        "region",
        "table",
    }
    assert [entry for entry in entries if entry[0] in named_roles and not entry[1]] == []
    assert {"spinbutton", "combobox", "table"} <= {role for role, _ in entries}


def steps_of(rows):
    """The texts of a funnel's steps."""
    lines = []
    for index, row in enumerate(rows):
        line = f"{row['event']} {row['people']} people · {percent(row['conversion'])}"
        if index:
            dropped = rows[index - 1]["people"] - row["people"]
            line += f" {percent(row['from_previous'])} of the step before"
            if row["median_seconds"] is not None:
                line += f" median {span(row['median_seconds'])}"
            line += f" {dropped} dropped out ({percent(dropped / rows[index - 1]['people'])})"
        lines.append(line)
    return lines


def test_funnel(browser, shop):
    """Steps with people, shares and times; people who dropped out; reordered by hand; split by a property."""
    steps = "".join(f"&step={name.replace(' ', '+')}" for name in STEPS)
    with visiting(browser, shop, f"?report=funnel&{ADDRESS}{steps}&within=3d") as visit:
        page = visit.page
        answered(page)
        rows = shop.told["funnel"]
        shown = page.locator("#report .funnel > li")
        assert texts(shown) == steps_of(rows)
        widths = page.evaluate("[...document.querySelectorAll('.left')].map((one) => one.offsetWidth)")
        assert [width / widths[0] for width in widths] == pytest.approx([row["conversion"] for row in rows], abs=0.003)
        shown.nth(1).locator("summary").click()
        people = shown.nth(1).locator("tbody tr")
        expect(people).to_have_count(rows[0]["people"] - rows[1]["people"])
        assert texts(people.locator("td:first-child")) == [row["person_id"] for row in shop.told["dropped"]]
        control(page, "Step 2 up").click()
        expect(control(page, "Step 1")).to_have_value("Signed Up")
        expect(control(page, "Step 1")).to_be_focused()
        answered(page)
        assert texts(shown) == steps_of(shop.told["turned"])
        control(page, "Step 1 down").press("Enter")
        answered(page)
        field(page, "by").fill("plan")
        field(page, "by").press("Tab")
        answered(page)
        assert texts(page.locator("#report h3 .name")) == ["pro", "free"]
        assert texts(shown) == steps_of(shop.told["by plan"][:3]) + steps_of(shop.told["by plan"][3:])
        assert "&step=Seen&step=Signed+Up&step=Paid&within=3d&order=ordered&by=plan" in page.url
        for_everybody(page)
        visit.check()


def test_retention(browser, shop):
    """Each cell is the report's; an unfinished week is marked, one in the future is empty and not 0."""
    question = "&start_event=Seen&grain=week&periods=4&mode=recurring"
    with visiting(browser, shop, f"?report=retention&{ADDRESS}{question}") as visit:
        page = visit.page
        answered(page)
        expected = {(row["cohort"], row["period"]): row for row in shop.told["weeks"]}
        cohorts = sorted({cohort for cohort, _ in expected})
        assert len(cohorts) == 4
        last = max(cohorts)
        [mean, *shown] = [[one_line(text) for text in row] for row in cells(page.locator("#report tbody tr"))]
        assert shown == [
            [f"{cohort.day} Jan 2025", str(expected[cohort, 0]["people"])]
            + [
                f"{percent(row['rate'])} {row['people']}" if (row := expected.get((cohort, period))) else ""
                for period in range(4)
            ]
            for cohort in cohorts
        ]
        assert texts(page.locator("#report .open")) == [
            row[2 + (last - start).days // 7] for row, start in zip(shown, cohorts, strict=True)
        ]
        complete = [cohort for cohort in cohorts if cohort + timedelta(days=14) <= last]
        returned, total = (sum(expected[start, period]["people"] for start in complete) for period in (1, 0))
        assert mean[3] == f"{percent(returned / total)} {returned}"
        field(page, "start_event").fill("")
        field(page, "mode").select_option("first_time")
        answered(page)
        field(page, "grain").select_option("day")
        answered(page)
        field(page, "periods").fill("2")
        field(page, "periods").press("Enter")
        answered(page)
        shown = texts(page.locator("#report tbody tr:not(:first-child) td:not(.number):not(:empty)"))
        assert shown == [f"{percent(row['rate'])} {row['people']}" for row in shop.told["days"]]
        for_everybody(page)
        field(page, "periods").fill("99")
        field(page, "periods").press("Tab")
        expect(page.locator("#report")).to_contain_text("Periods: ")
        visit.check()


def test_paths(browser, shop):
    """The width of each link is its count, the arrow keys read it, and it is a row of the table; names are text."""
    with visiting(browser, shop, f"?report=paths&{ADDRESS}&way=after&event=Seen&steps=3&top=4") as visit:
        page = visit.page
        page.wait_for_selector(".ribbon")
        note = page.locator("#report-note").inner_text()
        assert re.fullmatch(r"6 Jan 2025 to 29 Jan 2025, as of \d\d:\d\d:\d\d UTC · L1 · \d+ ms", note)
        expected = shop.told["paths"]
        assert page.locator(".ribbon").count() == len(expected)
        page.locator("#report summary").click()
        rows = cells(page.locator("#report tbody tr"))
        assert [
            (int(step), source, target, int(visits), int(people)) for step, source, target, visits, _, people in rows
        ] == [(row["step"], row["source"], row["target"], row["count"], row["people"]) for row in expected]
        assert sum(float(row[4].rstrip("%")) for row in rows if row[0] == "1" and row[1] == "Seen") == pytest.approx(
            100
        )
        heights = page.evaluate(f"[...document.querySelectorAll('.ribbon')].map({THICKNESS})")
        assert [height / heights[0] for height in heights] == pytest.approx(
            [row["count"] / expected[0]["count"] for row in expected], rel=0.01
        )
        page.locator(".sankey").press("ArrowRight")
        first = expected[0]
        expect(page.locator("#report .readout")).to_contain_text(
            f"{first['source']} → {first['target']}: {first['count']} visits"
        )
        expect(page.locator(".ribbon.on")).to_have_count(1)
        page.locator(".ribbon").nth(1).hover()
        expect(page.locator("#report .readout")).to_contain_text(
            f"→ {expected[1]['target']}: {expected[1]['count']} visit"
        )
        assert HOSTILE in page.locator(".node .name").all_inner_texts()
        assert page.locator("#report img").count() == 0
        field(page, "way").select_option("before")
        answered(page)
        field(page, "event").fill("Paid")
        field(page, "steps").fill("2")
        answered(page)  # the event, which was left
        field(page, "steps").press("Enter")
        answered(page)
        page.wait_for_selector(".ribbon")
        assert page.locator(".ribbon").count() == len(shop.told["before"])
        assert "(start)" in page.locator(".node .name").all_inner_texts()
        for_everybody(page)
        visit.check()


def test_performance(browser, shop):
    """Numbers, charts by day with the days without requests, routes and failures; and how to record requests."""
    with visiting(browser, shop, f"?report=performance&{ADDRESS}&grain=day&threshold_ms=50") as visit:
        page = visit.page
        answered(page)
        [total] = shop.told["whole"]
        tiles = texts(page.locator("#report .tile"))
        assert tiles[0] == f"Requests {total['count']} {total['errors']} failed"
        assert tiles[1].startswith(f"Error rate {percent(total['error_rate'])} ")
        assert float(tiles[2].split()[1]) == pytest.approx(total["apdex"], abs=0.0051)
        assert float(tiles[3].split()[1]) == pytest.approx(total["p50_ms"], abs=0.0051)
        days = {row["time"].day: row for row in shop.told["by day"]}
        for index, columns in enumerate(
            (["count", "errors"], ["p50_ms", "p95_ms", "p99_ms"], ["error_rate"], ["apdex"])
        ):
            figure = page.locator("#report figure").nth(index)
            figure.locator("summary").click()
            figure.locator("tbody tr").first.wait_for()
            lines = cells(figure.locator("tbody tr"))
            assert [line[0] for line in lines] == [f"{day} Jan 2025" for day in range(29, 5, -1)]
            for line, day in zip(lines, range(29, 5, -1), strict=True):
                for text, column in zip(line[1:], columns, strict=True):
                    if day in days:
                        value = days[day][column] * (100 if column == "error_rate" else 1)
                        assert float(text) == pytest.approx(value, abs=0.0051)
                    else:
                        assert text == ("0" if index == 0 else "\N{EN DASH}")
        routes, failures = (
            page.locator("#report .scroll > table:not([aria-label*=' by '])").nth(index) for index in (0, 1)
        )
        assert [text.split()[0:3] for text in texts(routes.locator("tbody tr"))] == [
            f"{row['method']} {row['path'] or '(no route)'} {row['count']}".split()[0:3] for row in shop.told["routes"]
        ]
        assert [line[:4] for line in cells(failures.locator("tbody tr"))] == [
            [
                str(row["status_code"]),
                f"{row['method']} {row['path'] or '(no route)'}",
                row["error"] or "",
                str(row["errors"]),
            ]
            for row in shop.told["errors"]
        ]
        for_everybody(page)
        field(page, "from").fill("2024-01-01")
        field(page, "to").fill("2024-01-31")
        field(page, "to").press("Enter")
        answered(page)
        expect(page.locator("#report")).to_contain_text("app = TrackRequests(app, analytics)")
        visit.check()


def test_first_view_errors_and_empty_results(browser, shop):
    """No query before the section is visible, then with known names; errors are the server's; a reload repeats it."""
    with visiting(browser, shop) as visit:
        page = visit.page
        expect(page.locator("#events-chart canvas")).to_be_visible()
        expect(page.locator("#flow li")).to_have_count(5)
        urls = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
        assert f"{shop.url}tiers" in urls
        assert [url for url in urls if re.search(r"reports/|(funnel|retention|paths|performance)\.js", url)] == []
        assert page.url == shop.url
        page.get_by_role("link", name="Reports").click()
        answered(page)
        expect(page.locator("#report .funnel > li")).to_have_count(2)
        expect(control(page, "Step 1")).to_have_value("Seen")
        expect(page.locator("#report h3")).to_contain_text("of 60 people")
        field(page, "within").fill("soon")
        field(page, "within").press("Tab")
        answered(page)
        expect(page.locator("#report [role=alert]")).to_contain_text("`within` is 'soon'. Write \"30s\"")
        field(page, "within").fill("1d")
        control(page, "Step 1").fill("Nothing Like It")
        control(page, "Step 1").press("Tab")
        answered(page)
        expect(page.locator("#report")).to_contain_text("Nobody did “Nothing Like It”")
        field(page, "where").fill("plan = ")
        field(page, "where").press("Enter")
        answered(page)
        expect(page.locator("#report [role=alert]")).to_be_visible()
        field(page, "where").fill("")
        field(page, "where").press("Tab")
        answered(page)
        page.click("#as-retention")
        answered(page)
        field(page, "periods").fill("2")
        field(page, "periods").press("Tab")
        answered(page)
        expect(page.locator("#report thead th")).to_have_text(["Cohort", "People", "day 0", "day 1", "day 2"])
        question = page.url
        assert question == f"{shop.url}?report=retention&mode=recurring&grain=day&periods=2&preset=all#reports"
        page.reload()
        answered(page)
        expect(page.locator("#report thead th")).to_have_count(5)
        assert page.url == question
        visit.check(refusals=[400])
