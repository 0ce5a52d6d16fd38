"""Usage, price books, invoices and quotas: exact to the last digit, and the same again whenever they are asked."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import Analytics, InvalidBilling, ManualClock
from lakebed.billing.price_book import PriceBook, exact, rounded
from lakebed.billing.quotas import Quota, window_of
from lakebed.clock import from_us
from lakebed.events.decimals import EXACT

D = Decimal
TINY = {"organization_id": "acme", "sku": "tiny", "unit": "u", "quantity": "0.000000001"}
BOOK = {
    "currency": "EUR",
    "prices": {
        "calls": {
            "model": "tiered",
            "tiers": [
                {"up_to": 100, "amount": "0.10"},
                {"up_to": 1000, "amount": "0.05", "flat": "3"},
                {"amount": "0.01"},
            ],
            "free": "10",
        },
        "storage": {"model": "per_unit", "amount": "0.0231", "unit": "GB"},
        "mails": {"model": "package", "amount": "1.50", "per": "1000"},
        "seats": {"model": "volume", "tiers": [{"up_to": 5, "amount": "10"}, {"amount": "8", "flat": "1.5"}]},
        "support": {"model": "flat", "amount": "99"},
        "minutes": {"model": "per_unit", "amount": "0.004", "minimum": "5"},
    },
}


def plain_cost(sku, q):
    """What the price book says, by fractions and by hand."""
    if q <= 0:
        return D(0)
    if sku == "calls":
        q = max(D(0), q - 10)
        cost = min(q, D(100)) * D("0.10")
        if q > 100:
            cost += (min(q, D(1000)) - 100) * D("0.05") + 3
        if q > 1000:
            cost += (q - 1000) * D("0.01")
        return cost
    if sku == "storage":
        return q * D("0.0231")
    if sku == "mails":
        return math.ceil(q / 1000) * D("1.50")
    if sku == "seats":
        return q * 10 if q <= 5 else q * 8 + D("1.5")
    return D(99) if sku == "support" else max(D(5), q * D("0.004"))


quantities = st.decimals(min_value=D(-5000), max_value=D(5000), places=4) | st.sampled_from(
    [D(0), D(10), D(110), D("110.0001"), D(1010), D(5), D(6), D(1000), D("1000.0001"), D(2000)]
)


@settings(max_examples=300, deadline=None)
@given(sku=st.sampled_from(sorted(BOOK["prices"])), quantity=quantities)
def test_each_pricing_model_equals_its_definition(sku, quantity):
    """At and beside each boundary, with fractions, and with corrections that exceed the usage."""
    assert PriceBook.of(BOOK).prices[sku].cost(quantity) == plain_cost(sku, quantity)


def test_amounts_are_rounded_once_and_half_away_from_zero():
    """To what the currency has; nothing else ever rounds."""
    assert [rounded(D(text), "EUR") for text in ("0.005", "0.0049", "-0.005", "2.675")] == [
        D("0.01"),
        D("0.00"),
        D("-0.01"),
        D("2.68"),
    ]
    assert (rounded(D("2.5"), "JPY"), rounded(D("0.0005"), "KWD")) == (D(3), D("0.001"))
    with pytest.raises(ArithmeticError):
        EXACT.divide(D(1), D(3))


@pytest.mark.parametrize("wrong", [0.1, True, None, "x", "nan", "inf", D("NaN"), "1e30", "0.0000000001", [1]])
def test_invalid_quantities_are_refused_and_none_is_rounded(wrong):
    """A float, what is no number, and more digits than are kept: all refused, none rounded."""
    with pytest.raises(InvalidBilling, match="quantity is"):
        exact("quantity", wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"currency": "euro"}, "ISO 4217"),
        ({"prices": {}}, "not an object of skus"),
        ({"prices": {"a": {"model": "magic"}}}, r"prices\.a\.model"),
        ({"prices": {"a": {"model": "flat", "amount": 0.1}}}, r"prices\.a\.amount is 0\.1"),
        ({"prices": {"a": {"model": "flat", "amount": "-1"}}}, "0 or more"),
        ({"prices": {"a": {"model": "flat"}}}, "must have `amount` and no `tiers`"),
        ({"prices": {"a": {"model": "flat", "amount": "1", "colour": "red"}}}, "'colour' is not a field"),
        ({"prices": {"a": {"model": "volume", "tiers": 5}}}, "tiers is not a list"),
        ({"prices": {"a": {"model": "volume", "amount": "1"}}}, "tiers"),
        ({"prices": {"a": {"model": "tiered", "tiers": [{"up_to": 1, "amount": "1"}]}}}, "Leave its up_to out"),
        ({"prices": {"a": {"model": "tiered", "tiers": [{"amount": "1"}, {"amount": "2"}]}}}, "does not ascend"),
        ({"prices": {"a": {"model": "package", "amount": "1", "per": "0"}}}, "above 0"),
    ],
)
def test_errors_of_a_price_book_name_the_field(change, message):
    """The message names the field."""
    with pytest.raises(InvalidBilling, match=message):
        PriceBook.of(BOOK | change)


def now_of(clock):
    return from_us(clock.now_us())


class Shop(Analytics):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.told = []

    def on_quota(self, state):
        self.told.append((state.quota.sku, state.used, state.reached))


@pytest.fixture
async def shop(tmp_path):
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with Shop("shop", root=tmp_path, clock=clock, headroom_bytes=0) as shop:
        await shop.save_price_book("default", BOOK)
        yield shop
        assert await shop.check() == []


async def test_sums_are_exact(shop):
    """A tenth and two tenths are three; thirty-eight digits stay thirty-eight; units are not mixed."""
    for quantity in ("0.1", D("0.2"), "12345678901234567890.123456789", 7):
        await shop.track_usage("acme", "calls", quantity, "call")
    await shop.track_usage("acme", "calls", "1", "k-call")
    await shop.batch([{"event": "x", "properties": TINY}] * 20_000)
    sums = {(row.sku, row.unit): row.quantity for row in await shop.usage(grain=None)}
    assert sums == {
        ("calls", "call"): D("12345678901234567897.423456789"),
        ("calls", "k-call"): 1,
        ("tiny", "u"): D("0.00002"),
    }
    await shop.archive()
    assert {(row.sku, row.unit): row.quantity for row in await shop.usage(grain=None)} == sums
    with pytest.raises(InvalidBilling, match="float"):
        await shop.track_usage("acme", "calls", 0.1, "call")


most = 10**38 - 1  # billionths: 29 digits before the point and 9 behind it
extremes = (st.integers(-most, most) | st.sampled_from([most, -most, 1, -1, 10**19, -(10**19), 10**37, 0])).map(
    lambda n: f"{n}e-9"
)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.tuples(st.sampled_from("ab"), extremes), min_size=1, max_size=60))
async def test_sums_have_as_many_digits_as_they_need(shop, sent):
    """Quantities of 38 digits add up beyond what a decimal of DuckDB holds, and cancel each other to the last digit."""
    organization = f"o{shop.stats().next_seq}"
    properties = [
        {"organization_id": organization, "sku": sku, "quantity": format(D(quantity), "f")} for sku, quantity in sent
    ]
    await shop.batch([{"event": "x", "properties": item} for item in properties])
    wanted = defaultdict(Fraction)
    for sku, quantity in sent:
        wanted[sku] += Fraction(quantity)
    rows = await shop.usage(organization_id=organization, grain=None)
    assert {row.sku: Fraction(row.quantity) for row in rows} == wanted
    await shop.save_quota(organization, "a", "0.000000001", thresholds=[0.5])
    (state,) = await shop.quotas(organization)
    assert abs(Fraction(state.used) - wanted["a"]) <= Fraction(1, 2_000_000)


async def test_a_retry_is_billed_once(shop):
    """By the message id, as every event."""
    for _ in range(2):
        await shop.track_usage("acme", "storage", "2", "GB", message_id="m1")
    assert (await shop.usage())[0].quantity == 2


async def test_months_follow_the_time_zone(shop):
    """A month in Berlin begins an hour earlier in winter, and two in summer."""
    for moment in ("2026-02-28T22:59:59Z", "2026-02-28T23:00:00Z", "2026-03-31T21:59:59Z", "2026-03-31T22:00:00Z"):
        shop.clock.advance(max(0, (datetime.fromisoformat(moment) - now_of(shop.clock)).total_seconds()))
        await shop.track_usage("acme", "storage", 1, "GB", timestamp=moment)
    rows = await shop.usage(tz="Europe/Berlin")
    assert [(str(row.time), row.quantity) for row in rows] == [("2026-02-01", 1), ("2026-03-01", 2), ("2026-04-01", 1)]
    march = await shop.invoice("acme", "2026-03", tz="Europe/Berlin")
    assert [(line.sku, line.quantity) for line in march.lines] == [("storage", 2)]


async def test_late_usage_is_billed_on_the_next_invoice(shop):
    """Usage that came after January had been billed is on February's invoice, at January's prices."""
    await shop.track_usage("acme", "calls", 100, "call", timestamp="2026-01-01T00:00:00Z")
    shop.clock.advance(32 * 86_400)
    with pytest.raises(InvalidBilling, match="not over"):
        await shop.invoice("acme", "2026-02", issue=True)
    january = await shop.invoice("acme", "2026-01", issue=True)
    assert (january.total, january.issued, january.adjustments) == (D("9.00"), True, ())
    await shop.save_price_book(
        "default", BOOK | {"prices": BOOK["prices"] | {"calls": {"model": "flat", "amount": "1"}}}
    )
    await shop.track_usage("acme", "calls", 100, "call", timestamp="2026-01-20T00:00:00Z")
    await shop.track_usage("acme", "calls", 5, "call")
    assert (await shop.invoice("acme", "2026-01")) == january
    shop.clock.advance(30 * 86_400)
    february = await shop.invoice("acme", "2026-02", issue=True)
    adjustment = february.adjustments[0]
    assert (adjustment.period, adjustment.quantity, adjustment.amount) == (
        "2026-01",
        100,
        plain_cost("calls", D(200)) - 9,
    )
    assert (february.price_book_version, february.lines[0].amount) == (2, 1)
    assert february.total == adjustment.amount + 1
    shop.clock.advance(40 * 86_400)
    march = await shop.invoice("acme", "2026-03", issue=True)
    assert (march.adjustments, march.total) == ((), 0)
    assert [invoice.period for invoice in await shop.invoices("acme")] == ["2026-01", "2026-02", "2026-03"]
    assert "late for 2026-01" in str(february)
    assert "late for 2026-01" in february._repr_html_()


async def test_an_issued_invoice_never_changes(shop, tmp_path):
    """The same bytes as of then: after later usage, archive, compaction, a merge, and a restart."""
    await shop.track_usage("acme", "mails", 1001, "mail")
    shop.clock.advance(1)
    draft = await shop.invoice("acme", "2026-01")
    shop.clock.advance(3600)
    await shop.track_usage("acme", "mails", 1, "mail", user_id="ann")
    await shop.track("x", user_id="bob")
    await shop.archive()
    await shop.compact()
    await shop.merge("ann", "bob")
    as_of = draft.as_of
    assert msgspec.json.encode(await shop.invoice("acme", "2026-01", as_of=as_of)) == msgspec.json.encode(draft)
    shop.clock.advance(31 * 86_400)
    issued = await shop.invoice("acme", "2026-01", issue=True)
    await shop.close()
    (tmp_path / "shop" / "storage.db").unlink()
    await shop.open()
    assert msgspec.json.encode(await shop.invoice("acme", "2026-01", as_of=as_of)) == msgspec.json.encode(draft)
    assert await shop.invoice("acme", "2026-01") == issued
    shop.clock.advance(1)
    assert await shop.invoice("acme", "2026-01", as_of=now_of(shop.clock)) == issued
    again = await shop.invoice("acme", "2026-01", as_of=issued.as_of)
    assert msgspec.structs.replace(again, issued=True) == issued


async def test_an_invoice_with_usage_without_a_price_is_refused(shop):
    """An invoice for it is refused, and says what is missing; the same for another unit than the book's."""
    await shop.track_usage("acme", "secret", 1, "x")
    await shop.track_usage("acme", "storage", 1, "MB")
    shop.clock.advance(1)
    with pytest.raises(InvalidBilling, match=r"secret \(x\), storage \(MB\)"):
        await shop.invoice("acme", "2026-01")
    with pytest.raises(InvalidBilling, match="no price book 'other'"):
        await shop.invoice("acme", "2026-01", price_book="other")
    for period in ("2026", "2026-13", "2026-1", "0001-01", "x", None):
        with pytest.raises(InvalidBilling, match="2026-01"):
            await shop.invoice("acme", period)


async def test_a_month_is_billed_once(shop):
    """Another spelling of the month, another time zone and another currency are refused."""
    await shop.track_usage("acme", "storage", 1, "GB")
    await shop.save_price_book("dollars", BOOK | {"currency": "USD"})
    shop.clock.advance(70 * 86_400)
    await shop.invoice("acme", "2026-01", issue=True)
    with pytest.raises(InvalidBilling, match="2026-01"):
        await shop.invoice("acme", "2026-1", issue=True)
    with pytest.raises(InvalidBilling, match="by months in UTC, not EUR and Europe"):
        await shop.invoice("acme", "2026-02", tz="Europe/Berlin", issue=True)
    with pytest.raises(InvalidBilling, match="billed in EUR"):
        await shop.invoice("acme", "2026-02", price_book="dollars", issue=True)
    assert [invoice.period for invoice in await shop.invoices()] == ["2026-01"]


async def test_a_correction_can_take_back_usage_of_a_closed_month(shop):
    """Late usage without a price stops the next invoice until a correction of it comes."""
    shop.clock.advance(32 * 86_400)
    await shop.invoice("acme", "2026-01", issue=True)
    await shop.track_usage("acme", "typo", 3, "x", timestamp="2026-01-05")
    shop.clock.advance(1)
    with pytest.raises(InvalidBilling, match=r"typo \(x\)"):
        await shop.invoice("acme", "2026-02")
    await shop.track_usage("acme", "typo", -3, "x", timestamp="2026-01-05")
    shop.clock.advance(1)
    draft = await shop.invoice("acme", "2026-02")
    assert (draft.lines, draft.adjustments, draft.total) == ((), (), 0)


GPU = {
    2: {"model": "tiered", "tiers": [{"up_to": 100, "amount": "1"}, {"amount": "0.5"}]},
    3: {"model": "per_unit", "amount": "2"},
}


def plain_gpu(version, q):
    """The same by hand: a hundred at 1, what is beyond at a half; later each at 2."""
    return max(D(0), min(q, D(100)) + max(D(0), q - 100) / 2 if version == 2 else q * 2)


async def test_late_usage_without_a_price_is_billed_by_a_later_price_book(shop):
    """By the book of the first invoice that has it, which the line names; and for ever, however prices change."""

    async def month(number, *late_quantities):
        """The invoice of a month, issued when it is over; `late_quantities` is usage of January that comes before."""
        for quantity in late_quantities:
            await shop.track_usage("acme", "gpu", quantity, "h", timestamp="2026-01-05")
        shop.clock.advance(max(0, (datetime(2026, 1 + number, 2, tzinfo=UTC) - now_of(shop.clock)).total_seconds()))
        return await shop.invoice("acme", f"2026-0{number}", issue=True)

    assert (await month(1)).total == 0
    with pytest.raises(InvalidBilling, match=r"no price for gpu \(h\), used in 2026-01\. Save a version"):
        await month(2, 120)
    with pytest.raises(InvalidBilling, match="no price for gpu"):
        await shop.invoice("acme", "2026-02", version=1, issue=True)
    await shop.save_price_book("default", BOOK | {"prices": BOOK["prices"] | {"gpu": GPU[2]}})
    shop.clock.advance(1)
    draft = await shop.invoice("acme", "2026-02")
    february = await month(2)
    (adjustment,) = february.adjustments
    assert (adjustment.period, adjustment.quantity, adjustment.amount) == ("2026-01", 120, D("110.00"))
    assert (adjustment.price_book, adjustment.price_book_version) == ("default", 2)
    assert "gpu, 120 h, late for 2026-01, by default, version 2 " in str(february)
    await shop.save_price_book("default", BOOK | {"prices": BOOK["prices"] | {"gpu": GPU[3]}})
    march = await month(3, 30, 50)
    assert [
        (adjustment.quantity, adjustment.amount, adjustment.price_book_version) for adjustment in march.adjustments
    ] == [(80, D(40), 2)]
    april = await month(4, -200)
    assert [
        (adjustment.quantity, adjustment.amount, adjustment.price_book_version) for adjustment in april.adjustments
    ] == [(-200, D(-150), 2)]
    may = await month(5, 1)
    assert [
        (adjustment.quantity, adjustment.amount, adjustment.price_book_version) for adjustment in may.adjustments
    ] == [(1, D(1), 2)]
    june = await month(6)
    assert june.adjustments == ()
    again = await shop.invoice("acme", "2026-02", version=draft.price_book_version, as_of=draft.as_of)
    assert msgspec.json.encode(again) == msgspec.json.encode(draft)


async def test_quantities_with_many_digits_are_billed_once(shop):
    """Quantities may have more than the 28 digits of Python's default decimal context."""
    quantity = "12345678901234567890.123456789"
    await shop.track_usage("acme", "storage", quantity, "GB")
    await shop.track_usage("acme", "mails", "1" + "0" * 28, "mail")
    for _ in range(3):
        await shop.track_usage("acme", "minutes", "99999999999999999999999999999.999999999", "min")
    shop.clock.advance(32 * 86_400)
    january = await shop.invoice("acme", "2026-01", issue=True)
    assert {line.sku: line.amount for line in january.lines} == {
        "mails": D("15000000000000000000000000.00"),
        "minutes": D("1200000000000000000000000000.00"),
        "storage": D("285185182618518518.26"),
    }
    await shop.track_usage("acme", "storage", "0.000000001", "GB", timestamp="2026-01-05")
    shop.clock.advance(1)
    february = await shop.invoice("acme", "2026-02")
    assert [(adjustment.quantity, adjustment.amount) for adjustment in february.adjustments] == [(D("0.000000001"), 0)]


sent = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from(["calls", "storage", "mails", "gpu"]),
        st.decimals(min_value=-200, max_value=3000, places=2),
    ),
    max_size=12,
)


@pytest.mark.integration
@settings(max_examples=8, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=sent)
async def test_all_invoices_add_up_to_all_usage(tmp_path_factory, sent):
    """Usage may come at any time, for any month: nothing is billed twice, and nothing is lost.

    `gpu` has no price in January's book, and another in the books of February and of April: what comes of it for
    January is billed by the one of the first invoice that has some.
    """
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    root = tmp_path_factory.mktemp("bills")
    versions = {0: 1, 1: 2, 2: 2, 3: 3, 4: 3}  # month -> version of the book of its invoice
    async with Analytics("shop", root=root, clock=clock, headroom_bytes=0) as shop:
        billed, used, gpu_version = D(0), defaultdict(D), None
        for now, version in versions.items():
            extra = {"gpu": GPU[version]} if version in GPU else {}
            await shop.save_price_book("default", BOOK | {"prices": BOOK["prices"] | extra})
            for arrived, month, sku, quantity in sent:
                if arrived == now and month <= now and (sku != "gpu" or now > 0):
                    when = datetime(2026, 1 + month, 1, 12, tzinfo=UTC) if month < now else now_of(clock)
                    unit = "GB" if sku == "storage" else "u"
                    await shop.track_usage("acme", sku, quantity, unit, timestamp=when)
                    used[month, sku] += quantity
            clock.advance((datetime(2026, 2 + now, 2, tzinfo=UTC) - now_of(clock)).total_seconds())
            invoice = await shop.invoice("acme", f"2026-0{1 + now}", issue=True)
            assert invoice.total == sum((line.amount for line in (*invoice.lines, *invoice.adjustments)), D(0))
            billed += invoice.total
            gpu_version = gpu_version or (version if used[0, "gpu"] else None)
            gpu_versions = {
                adjustment.price_book_version
                for adjustment in invoice.adjustments
                if (adjustment.period, adjustment.sku) == ("2026-01", "gpu")
            }
            assert gpu_versions <= {gpu_version}
        wanted = [
            plain_gpu(gpu_version if month == 0 else versions[month], q) if sku == "gpu" else plain_cost(sku, q)
            for (month, sku), q in used.items()
        ]
        assert billed == sum((rounded(cost, "EUR") for cost in wanted), D(0))
        assert await shop.check() == []


async def test_on_quota_is_called_once_per_threshold(shop):
    """Once each, from the live counters; other usage does not count; a new month begins at nothing."""
    await shop.save_quota("acme", "calls", 100)
    assert shop.quota("acme", "calls") is None
    for quantity in (70, "9.5", "0.5", 19, 2):
        await shop.track_usage("acme", "calls", quantity, "call")
    await shop.track_usage("other", "calls", 1000, "call")
    assert shop.told == [("calls", D(80), (0.8,)), ("calls", D(101), (0.8, 1.0))]
    state = shop.quota("acme", "calls")
    assert (state.used, state.share, state.reached) == (101, 1.01, (0.8, 1.0))
    await shop.track_usage("acme", "calls", 50, "call", timestamp="2025-12-31T23:59:59Z")
    await shop.track_usage("acme", "calls", 1, "call", message_id="m")
    await shop.track_usage("acme", "calls", 1, "call", message_id="m")
    assert shop.quota("acme", "calls").used == 102
    await shop.batch([{"event": "x", "properties": {"organization_id": "acme", "sku": "calls", "quantity": 3}}])
    assert shop.quota("acme", "calls").used == 102
    assert [quota.used for quota in await shop.quotas()] == [105]
    assert shop.quota("acme", "calls").used == 105
    await shop.close()
    await shop.open()
    await shop.track_usage("acme", "calls", 1, "call")
    assert shop.quota("acme", "calls").used == 106
    shop.clock.advance(timedelta(days=31).total_seconds())
    await shop.track_usage("acme", "calls", 1, "call")
    assert shop.quota("acme", "calls").used == 1


async def test_a_quota_may_exceed_64_bits(shop):
    """More than the 2**63 that a counter counts at once, also in millionths; corrections take away as exactly."""
    await shop.save_quota("acme", "traffic", 10**28, thresholds=[0.5])
    sent = [10**13, -(10**18) - 1, 9 * 10**27, "0.000001", -(10**27), 10**13]
    for position, quantity in enumerate(sent, 1):
        await shop.track_usage("acme", "traffic", quantity, "byte")
        assert Fraction(shop.quota("acme", "traffic").used) == sum(map(Fraction, sent[:position]))
    assert [(sku, reached) for sku, _, reached in shop.told] == [("traffic", (0.5,))]
    assert (await shop.quotas())[0] == shop.quota("acme", "traffic")


async def test_every_threshold_is_reported(shop):
    """Also if usage comes at once or as plain events, or if the process ended before it reported the threshold."""
    await shop.save_quota("acme", "calls", 10, thresholds=[1.0])
    await asyncio.gather(*(shop.track_usage("acme", "calls", quantity, "call") for quantity in (1, 10)))
    assert shop.told == [("calls", D(11), (1.0,))]
    await shop.track_usage("acme", "calls", -5, "call")
    await shop.batch([{"event": "x", "properties": {"organization_id": "acme", "sku": "calls", "quantity": 30}}])
    await shop.quotas()
    await shop.track_usage("acme", "calls", 1, "call")
    assert shop.told[1:] == [("calls", D(37), (1.0,))]
    await shop.close()
    await shop.open()
    await shop.track_usage("acme", "calls", 1, "call")
    await shop.track_usage("acme", "calls", 1, "call")
    assert shop.told[2:] == [("calls", D(38), (1.0,))]


async def test_quotas_of_names_with_spaces_are_separate(shop):
    """The organisation "a b" and the sku "c" are not the organisation "a" and the sku "b c"."""
    await shop.save_quota("a b", "c", 1)
    await shop.save_quota("a", "b c", 2)
    assert {state.quota.organization_id: state.quota.limit for state in await shop.quotas()} == {"a": 2, "a b": 1}


def test_a_day_begins_at_its_first_midnight():
    """Also where the clock is put back to it, as in Havana in November."""
    quota = Quota.of({"organization_id": "a", "sku": "b", "limit": 1, "period": "day", "tz": "America/Havana"})
    start, end = window_of(quota, datetime(2026, 11, 1, 5, 30, tzinfo=UTC))
    assert (start.astimezone(UTC).hour, end.astimezone(UTC) - start.astimezone(UTC)) == (4, timedelta(hours=25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, "a limit above 0"),
        ({"limit": 0.5}, "float"),
        ({"period": "year"}, "month"),
        ({"tz": "Mars"}, "IANA"),
        ({"thresholds": 1}, "thresholds"),
    ],
)
async def test_errors_of_a_quota_name_the_field(shop, change, message):
    """The message names the field."""
    with pytest.raises(InvalidBilling, match=message):
        await shop.save_quota(**({"organization_id": "acme", "sku": "calls", "limit": 1} | change))


async def test_an_error_in_on_quota_reaches_on_error_and_the_usage_stays(tmp_path, caplog):
    """`on_quota` is the app's: what it raises goes to on_error and the log, not to whoever tracked."""

    class Broken(Analytics):
        def on_quota(self, state):
            raise RuntimeError(state.quota.sku)

    heard = []
    async with Broken("shop", root=tmp_path, headroom_bytes=0, on_error=heard.append) as shop:
        await shop.save_quota("acme", "calls", 1)
        receipt = await shop.track_usage("acme", "calls", 2, "call")
        assert (receipt.status, [str(error) for error in heard]) == ("stored", ["calls"])
        assert "on_quota of shop failed" in caplog.text
        assert await shop.check() == []
