"""The page in a real Chromium: its contents, its behaviour after errors, and its accessibility."""

from __future__ import annotations

import csv
import gzip
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock
from tests.api.browsing import CONTRAST, CONTROLS, WIDE, Site, visiting
from tests.installed import chromium

pytestmark = pytest.mark.integration

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=15_000)  # a shared machine may be slow without being wrong

CSV = Path(__file__).parents[3] / "examples" / "data" / "online_retail_2010-12.csv.gz"
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "\u202egnp.exe \u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627",
    "W" * 200,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f6d2 \U0001f1e9\U0001f1ea",
    "{{7*7}} ${7*7} javascript:alert(1)",
]


def retail(count):
    """Lines of the real sample as events that end today: orders, and half an hour for each of them."""
    with gzip.open(CSV, "rt", encoding="utf-8", newline="") as lines:
        rows = [row for row, _ in zip(csv.DictReader(lines), range(count), strict=False)]
    first = datetime.now(UTC) - timedelta(minutes=20 * count)
    return [
        {
            "event": "Order Cancelled" if row["InvoiceNo"].startswith("C") else "Order Completed",
            "userId": row["CustomerID"] or f"invoice:{row['InvoiceNo']}",
            "timestamp": (first + timedelta(minutes=20 * number)).isoformat(),
            "properties": {"revenue": float(row["UnitPrice"]) * int(row["Quantity"]), "country": row["Country"]},
        }
        for number, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium_browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield chromium_browser
        chromium_browser.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A server with a month of real orders. Tests only add to it."""
    site = Site(tmp_path_factory.mktemp("shop"))
    site.batch(*retail(1500))
    yield site
    site.stop()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.stop()


def is_live(page):
    expect(page.locator("#status")).to_have_text("Live")


def charted(page):
    expect(page.locator("#events-chart canvas")).to_be_visible()
    expect(page.locator("#people-chart canvas")).to_be_visible()


# What it shows


def _choose_range_grain_and_event(page):
    """Presets, other days, the step and the name of an event change the charts; invalid ones show the reason."""
    page.select_option("#preset", "7")
    expect(page.locator("#events-chart tbody tr")).to_have_count(7)
    page.select_option("#grain", "hour")
    expect(page.locator("#events-chart tbody tr")).to_have_count(168)
    page.select_option("#preset", "1")
    expect(page.locator("#events-chart tbody tr")).to_have_count(24)
    page.select_option("#preset", "30")
    page.fill("#event", "Order Cancelled")
    page.locator("#event").press("Enter")
    page.locator("#event").blur()
    expect(page.locator("#events-title")).to_have_text("“Order Cancelled” by day")
    page.fill("#event", "Nothing Like It")
    page.locator("#event").blur()
    expect(page.locator("#events-chart")).to_contain_text("No event of this name")
    page.fill("#event", "")
    page.locator("#event").blur()
    page.fill("#from", "2020-01-02")
    page.fill("#to", "2020-01-01")
    page.locator("#to").blur()
    expect(page.locator("#preset")).to_have_value("custom")
    expect(page.locator("#events-chart")).to_contain_text("lies after the last")
    page.fill("#from", "2001-01-01")
    page.select_option("#grain", "minute")
    expect(page.locator("#events-chart")).to_contain_text("more than 5000 points")
    page.select_option("#preset", "30")
    charted(page)
    page.fill("#as-of-input", "2999-01-01T00:00")
    page.locator("#as-of-input").blur()
    expect(page.locator("#events-chart")).to_contain_text("in the future")


def test_real_events(browser, shop):
    """Numbers, top events, both charts with words and tables, and the tiers, of real orders; then other ranges."""
    with visiting(browser, shop) as visit:
        page = visit.page
        is_live(page)
        charted(page)
        expect(page.locator("#object")).to_have_text("default")
        stored = int(page.locator("#stored").inner_text().replace(",", ""))
        assert stored >= 1500
        expect(page.locator("#top tr").first).to_contain_text("Order Completed")
        expect(page.locator("#newest tr")).to_have_count(12)
        label = page.locator("#events-chart [role=img]").get_attribute("aria-label")
        assert label.startswith("Events by day, ")
        assert "most" in label
        page.locator("#events-chart summary").click()
        rows = page.locator("#events-chart tbody tr")
        expect(rows).to_have_count(30)
        counts = [
            int(text.replace(",", "")) for text in page.locator("#events-chart tbody td.number").all_inner_texts()
        ]
        assert sum(counts) >= 1490
        page.locator("#events-chart .u-over").hover(position={"x": 200, "y": 60})
        expect(page.locator("#events-chart .readout")).to_contain_text("events")
        expect(page.locator("#people-chart .legend li")).to_have_text(["daily", "weekly", "monthly"])
        expect(page.locator("#flow > li")).to_have_count(5)
        expect(page.locator("#consumers tr")).to_have_count(4)
        visit.check()
        _choose_range_grain_and_event(page)
        visit.check(refusals=[400])


def test_a_new_event_shows_by_itself(browser, site):
    """Before the first event it shows a command that stores one; then all follows without a reload."""
    if shutil.which("curl") is None:
        pytest.skip("curl is absent: apt-get install curl")
    with visiting(browser, site) as visit:
        page = visit.page
        is_live(page)
        expect(page.locator("#empty")).to_be_visible()
        expect(page.locator("#empty pre").first).to_contain_text(f"curl {site.url}track")
        expect(page.locator("#events-chart")).to_contain_text("No events yet")
        command = shlex.split(page.locator("#empty pre").first.inner_text().replace("\\\n", " "))
        assert command[0] == "curl"
        process = subprocess.run(
            [*command, "--silent", "--fail"], capture_output=True, text=True, check=False, timeout=20
        )
        assert process.returncode == 0, process.stdout + process.stderr
        expect(page.locator("#empty")).to_be_hidden()
        expect(page.locator("#stored")).to_have_text("1")
        expect(page.locator("#active")).to_have_text("1")
        expect(page.locator("#top tr")).to_have_text(["Signed Up1"])
        expect(page.locator("#newest tr")).to_have_count(1)
        charted(page)
        expect(page.locator("#consumers tr")).to_have_count(4)
        site.batch({"event": "Paid", "userId": "bob"}, {"event": "Paid", "userId": "bob"})
        expect(page.locator("#stored")).to_have_text("3")
        expect(page.locator("#active")).to_have_text("2")
        expect(page.locator("#minute")).to_have_text("3")
        assert "3 in the latest" in page.locator("#minutes").get_attribute("aria-label")
        expect(page.locator("#top tr").first).to_have_text("Paid2")
        expect(page.locator("#newest tr").first).to_contain_text("bob")
        visit.check()


def test_old_events_are_shown(browser, site):
    """If the last thirty days are empty, the page opens with all days that have events."""
    site.batch(*({"event": "Old", "userId": "ann", "timestamp": f"2010-12-{day:02}T12:00:00Z"} for day in range(1, 20)))
    with visiting(browser, site) as visit:
        charted(visit.page)
        expect(visit.page.locator("#preset")).to_have_value("all")
        expect(visit.page.locator("#from")).to_have_value("2010-12-01")
        expect(visit.page.locator("#to")).to_have_value("2010-12-19")
        visit.check()


def test_hostile_names_are_text(browser, site):
    """Markup, right-to-left overrides, 200 characters and emoji are shown as they are and keep the layout."""
    site.batch(*({"event": name, "userId": name[:250], "properties": {"x": name}} for name in HOSTILE))
    with visiting(browser, site) as visit:
        page = visit.page
        charted(page)
        assert sorted(page.locator("#top .name").all_inner_texts()) == sorted(HOSTILE)
        assert {*page.locator("#newest td:nth-child(2) .name").all_inner_texts()} == {*HOSTILE}
        assert page.locator("main img, main script").count() == 0
        assert page.title() == "default · Lakebed"
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") == width
        heights = page.evaluate("[...document.querySelectorAll('#top tr, #newest tr')].map((row) => row.offsetHeight)")
        assert max(heights) < 50
        visit.check()


def test_sql(browser, shop):
    """Rows as a table and as a chart, with tiers and time; a mistake says what is wrong."""
    with visiting(browser, shop) as visit:
        page = visit.page
        charted(page)
        page.locator("#statement").press("Control+Enter")
        expect(page.locator("#sql-status")).to_contain_text("2 rows from L1 in")
        expect(page.locator("#sql-table th")).to_have_text(["event", "events", "people"])
        expect(page.locator("#sql-table tbody tr").first).to_contain_text("Order Completed")
        page.click("#as-chart")
        expect(page.locator("#sql-chart [role=img]")).to_have_attribute("aria-label", re.compile("^Result, Order"))
        page.select_option("#examples", label="Events by day")
        page.click("#sql button.main")
        expect(page.locator("#sql-status")).to_contain_text("rows from")
        expect(page.locator("#sql-chart [role=img]")).to_have_attribute(
            "aria-label", re.compile(r"^Result, \d+ \w{3} \d{4}")
        )
        page.click("#as-table")
        for statement, message in (
            ("SELECT nope FROM events", "nope"),
            ("SELEC 1", "syntax error"),
            ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
        ):
            page.fill("#statement", statement)
            page.click("#sql button.main")
            expect(page.locator("#sql-error")).to_contain_text(message)
            expect(page.locator("#sql-result")).to_be_hidden()
        page.fill("#statement", "SELECT '<b>x</b>' AS \"<i>c</i>\", NULL AS n, 9007199254740993 AS big")
        page.click("#sql button.main")
        expect(page.locator("#sql-table th").first).to_have_text("<i>c</i>")
        expect(page.locator("#sql-table td").first).to_have_text("<b>x</b>")
        expect(page.locator("#sql-table td").nth(1)).to_have_text("null")
        expect(page.locator("#sql-table td").nth(2)).to_have_text("9,007,199,254,740,993")
        expect(page.locator("#sql-error")).to_be_hidden()
        page.fill("#statement", "SELECT 1 AS x WHERE false")
        page.click("#sql button.main")
        expect(page.locator("#sql-table")).to_have_text("No rows")
        visit.check(refusals=[400])


def test_dead_letters(browser, site):
    """Rejected events are listed with their reason as text, mended and replayed, or purged, and the list follows."""
    site.batch({"event": "Good", "userId": "ann"})
    with visiting(browser, site) as visit:
        page = visit.page
        expect(page.locator("#letters-status")).to_have_text("None. Every event so far was stored.")
        bad = [{"type": "track", "userId": "bob", "messageId": "m1"}, {"type": HOSTILE[0], "userId": "eve"}]
        assert site.batch(*bad)["rejected"] == 2
        letters = page.locator("#letters-list article")
        expect(letters).to_have_count(2)
        expect(letters.first).to_contain_text("onerror")
        expect(page.locator("#letters-list img")).to_have_count(0)
        second = letters.nth(1)
        second.locator("summary").click()
        text = second.locator("textarea")
        text.fill(text.input_value().replace('"userId"', '"event": "Mended", "userId"'))
        second.get_by_role("button", name="Replay as written here").click()
        expect(page.locator("#letters-status")).to_have_text("1 event stored.")
        expect(letters).to_have_count(1)
        expect(page.locator("#stored")).to_have_text("2")
        expect(page.locator("#newest tr").first).to_contain_text("Mended")
        letters.first.locator("input").check()
        page.click("#replay")
        expect(page.locator("#letters-status")).to_contain_text("1 refused again")
        letters.first.locator("input").check()
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#purge")
        expect(page.locator("#letters-status")).to_have_text("1 letter deleted.")
        expect(letters).to_have_count(0)
        visit.check()


# When things go wrong


def test_a_server_that_stops_and_comes_back(browser, site):
    """The page says that it reconnects, keeps and dims its data, and continues by itself."""
    site.batch({"event": "A", "userId": "ann"})
    with visiting(browser, site) as visit:
        page = visit.page
        is_live(page)
        expect(page.locator("#stored")).to_have_text("1")
        site.stop()
        expect(page.locator("#status")).to_have_text("Reconnecting")
        expect(page.locator("#banner")).to_contain_text("The server does not answer")
        expect(page.locator("#banner button")).to_be_visible()
        expect(page.locator("#stored")).to_have_text("1")
        assert page.evaluate(CONTRAST) == []
        page.locator("#banner button").click()  # a person can reach it; the server does not answer yet
        expect(page.locator("#banner")).to_contain_text("The server does not answer")
        site.start()
        site.batch({"event": "A", "userId": "ann"})
        page.locator("#banner button").dispatch_event("click")  # the page may have reconnected a moment before
        is_live(page)
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator("#stored")).to_have_text("2")
        assert [text for text in visit.console if "net::ERR" not in text] == []


def test_signing_in(browser, site):
    """With keys the page asks for one, says why one is invalid, keeps a valid one in the tab, and forgets it."""
    keys = Keys(site.root, SystemClock())
    _, write = keys.create("default", "write")
    _, read = keys.create("default", "read")
    site.stop()
    site.start()
    site.batch({"event": "A", "userId": "ann"}, key=write)
    with visiting(browser, site) as visit:
        page = visit.page
        expect(page.locator("#sign-in")).to_be_visible()
        expect(page.locator("#page")).to_be_hidden()
        expect(page.locator("#key")).to_be_focused()
        assert visit.console == []
        for wrong, message in (("lbr_nonsense", "unknown"), (write, "write key")):
            page.fill("#key", wrong)
            page.keyboard.press("Enter")
            expect(page.locator("#sign-in-error")).to_contain_text(message)
        page.fill("#key", read)
        page.keyboard.press("Enter")
        is_live(page)
        expect(page.locator("#stored")).to_have_text("1")
        page.reload()
        is_live(page)
        assert read not in page.url
        page.click("#sign-out")
        expect(page.locator("#sign-in")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0
        expect(page.locator("#stored")).not_to_have_text("1")
        page.goto(f"{site.url}#key={read}")
        is_live(page)
        assert page.url == site.url
        page.goto(f"{site.url}?report=paths#key={read}")
        expect(page.locator("#report .ribbon")).to_have_count(1)
        assert page.url == f"{site.url}?report=paths"
        visit.check(refusals=[401, 403])


# Who can use it


def test_contrast_and_a_phone(browser, shop):
    """All text has at least 4.5 : 1, in the system's theme and in the one of the button; at 360 points all fits."""
    with visiting(browser, shop, color_scheme="dark", has_touch=True) as visit:
        page = visit.page
        is_live(page)
        charted(page)
        page.evaluate("document.getElementById('empty').hidden = false")
        page.evaluate("document.getElementById('banner').hidden = false")
        for scheme in ("dark", "light"):  # the system's, which a running page follows
            page.emulate_media(color_scheme=scheme)
            page.wait_for_selector(f"html[data-theme={scheme}]", state="attached")  # it hears of the change by an event
            assert page.evaluate(CONTRAST) == []
        for theme in ("dark", "light", "dark"):  # the button's
            page.click("#theme")
            assert page.evaluate("document.documentElement.dataset.theme") == theme
            assert page.evaluate(CONTRAST) == []
        page.set_viewport_size({"width": 360, "height": 740})
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        is_live(page)
        charted(page)
        assert page.evaluate(WIDE) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("document.querySelector('#events-chart canvas').clientWidth") > 240
        visit.check()


def test_keyboard_and_screen_reader(browser, shop):
    """Every control has a name, is reached with Tab and shows the focus; regions and headings are there."""
    with visiting(browser, shop) as visit:
        page = visit.page
        charted(page)
        page.locator("#reports").scroll_into_view_if_needed()
        expect(page.locator("#report .funnel li")).to_have_count(2)
        session = page.context.new_cdp_session(page)
        tree = session.send("Accessibility.getFullAXTree")["nodes"]
        entries = [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")
        ]
        controls = {"button", "textbox", "combobox", "link", "checkbox", "Date", "DateTime", "InputTime"}
        assert [entry for entry in entries if entry[0] in controls and not entry[1]] == []
        roles = {role for role, _ in entries}
        assert {"banner", "main", "navigation", "contentinfo", "region", "heading", "figure"} <= roles
        for name in ("Now", "Trends", "Reports", "SQL", "Dead letters", "Tiers"):
            assert ("region", name) in entries
        assert [text for role, text in entries if role == "image" and not text] == []
        expected = page.evaluate(f"{CONTROLS}.length")
        page.evaluate("window.passed = new Set()")
        for _ in range(4 * expected):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break
            page.evaluate("passed.add(document.activeElement)")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", page.evaluate("document.activeElement.outerHTML.slice(0, 100)")
        missed = page.evaluate(f"{CONTROLS}.filter((one) => !passed.has(one)).map((one) => one.outerHTML.slice(0, 80))")
        assert missed == []
        visit.check()
