from __future__ import annotations

import math
import string
from fnmatch import fnmatchcase

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sortedcontainers import SortedList

from lakebed.clock import ManualClock
from lakebed.tiers.counters import counters as module
from lakebed.tiers.counters.counters import Counters

KEYS = st.sampled_from(["active:a", "active:b", "active", "a*", "[x]", "\U0010ffffz"])
GLOBS = st.one_of(
    KEYS,
    st.sampled_from(
        ["*", "**", "active:*", "active*", "a?", "?", "[ab]*", "[!a]*", "active:[a-b]", "[", "[[]x]", "x*"]
    ),
    st.sampled_from(["\U0010ffff*", "*:a", "a*:*", "", "active:a*b"]),
)
# Dyadic, so that float sums are exact and can be compared with ==.
AMOUNTS = st.one_of(st.integers(-5, 5), st.integers(-40, 40).map(lambda n: n / 8))
TTLS = st.sampled_from([None, 0.5, 1.0, 3.0, 10.0, 60.0])


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def counters(clock):
    return Counters(clock, 1_000_000)


class Model:
    """Plain counters: a list of increments, and the birth of each key."""

    def __init__(self, max_keys):
        self.increments, self.births, self.max_keys, self.evicted, self.clock = [], {}, max_keys, 0, 0

    def sweep(self, now):
        self.increments = [increment for increment in self.increments if increment[2] > now]
        alive = {key for key, _, _ in self.increments}
        self.births = {key: birth for key, birth in self.births.items() if key in alive}

    def last(self, key):
        return max(end for name, _, end in self.increments if name == key)

    def delete(self, key):
        self.increments = [increment for increment in self.increments if increment[0] != key]
        return self.births.pop(key, None) is not None

    def incr(self, key, amount, end, now):
        self.sweep(now)
        if end <= now:
            return self.get(key)
        if key not in self.births:
            if len(self.births) >= self.max_keys:
                self.delete(min(self.births, key=lambda k: (self.last(k), self.births[k])))
                self.evicted += 1
            self.clock += 1
            self.births[key] = self.clock
        self.increments.append((key, amount, end))
        return self.get(key)

    def get(self, key):
        return sum(amount for name, amount, _ in self.increments if name == key)

    def keys(self, glob):
        return sorted(key for key in self.births if fnmatchcase(key, glob))


class CountersAgainstModel(RuleBasedStateMachine):
    """Every read of Counters equals the same read of a list of increments, after any sequence of calls."""

    def __init__(self):
        super().__init__()
        self.clock = ManualClock()
        self.counters = Counters(self.clock, 4)
        self.model = Model(4)

    @property
    def now(self):
        return self.clock.monotonic()

    @rule(key=KEYS, amount=AMOUNTS, ttl=TTLS, age=st.sampled_from([0.0, 0.0, 0.25, 2.0, 60.0]))
    def incr(self, key, amount, ttl, age):
        end = math.inf if ttl is None else self.now - age + ttl
        value = self.counters.incr(key, amount, ttl, age=age)
        assert value == self.model.incr(key, amount, end, self.now)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.5, 30.0, 100.0]))
    def advance(self, seconds):
        self.clock.advance(seconds)
        self.model.sweep(self.now)

    @rule(seconds=st.sampled_from([-1e6, 1e6]))
    def step_wall_clock(self, seconds):
        self.clock.step(seconds)

    @rule(key=KEYS)
    def delete(self, key):
        assert self.counters.delete(key) == self.model.delete(key)

    @precondition(lambda self: len(self.model.births) > 3)
    @rule()
    def clear(self):
        self.counters.clear()
        self.model.increments, self.model.births = [], {}

    @rule(glob=GLOBS, n=st.integers(0, 6))
    def globs(self, glob, n):
        expected = self.model.keys(glob)
        assert self.counters.keys(glob) == expected
        assert self.counters.count(glob) == len(expected)
        ranked = sorted(((key, self.model.get(key)) for key in expected), key=lambda pair: (-pair[1], pair[0]))
        assert self.counters.top(glob, n) == ranked[:n]

    @rule(key=KEYS)
    def one_key(self, key):
        alive = key in self.model.births
        assert self.counters.get(key) == self.model.get(key)
        assert (key in self.counters) == alive
        left = self.model.last(key) - self.now if alive else math.inf
        assert self.counters.ttl(key) == (None if left == math.inf else left)

    @invariant()
    def sizes(self):
        if self.now % 1:  # leave some states unswept for the next rule
            return
        seen = self.counters.statistics()
        assert seen.keys == len(self.counters) == len(self.model.births) <= 4
        assert seen.evicted == self.counters.evicted == self.model.evicted


TestCountersAgainstModel = pytest.mark.integration(CountersAgainstModel.TestCase)
TestCountersAgainstModel.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


@pytest.mark.slow
class TestCountersAgainstModelAtLength(CountersAgainstModel.TestCase):
    settings = settings(max_examples=1_000, stateful_step_count=40, deadline=None)


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0, 0, 0.125, 20, 61]), st.integers(1, 60), st.sampled_from([1.0, 30.0, 60.0, None])),
        min_size=1,
        max_size=30,
    )
)
def test_many_keys_against_a_list(steps):
    """Bulk paths (batched index, mass expiry, queue rebuilding) give the list's answers too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_UNINDEXED", 16)
        clock = ManualClock()
        counters, model = Counters(clock, 200), Model(200)
        for number, (pause, count, ttl) in enumerate(steps):
            clock.advance(pause)
            for index in range(count):
                key = f"k{(number * 37 + index * 11) % 997:03d}"
                end = math.inf if ttl is None else clock.monotonic() + ttl
                counters.incr(key, index, ttl)
                model.incr(key, index, end, clock.monotonic())
                if index % 7 == 0:
                    assert counters.delete(key) == model.delete(key)
            if number % 3 == 0:
                for glob in ("*", "k1*", "k?5*", "k9[0-4]?"):
                    assert counters.keys(glob) == model.keys(glob)
                    assert counters.count(glob) == len(model.keys(glob))
        model.sweep(clock.monotonic())
        assert dict(counters.top("*", 1000)) == {key: model.get(key) for key in model.keys("*")}
        assert counters.evicted == model.evicted
        assert counters.statistics().queued <= 2 * len(counters) + 16


def test_an_increment_lives_exactly_its_ttl(counters, clock):
    """An increment made at t counts at times before t + ttl, and not at t + ttl."""
    assert counters.incr("pageviews_1m", ttl=60) == 1
    clock.advance(30)
    assert counters.incr("pageviews_1m", 2, ttl=60) == 3
    clock.advance(math.nextafter(60, 0) - 30)
    assert counters.get("pageviews_1m") == 3
    clock.advance(60 - clock.monotonic())
    assert counters.get("pageviews_1m") == 2
    assert counters.ttl("pageviews_1m") == 30
    clock.advance(30)
    assert counters.get("pageviews_1m") == 0
    assert counters.ttl("pageviews_1m") is None
    assert "pageviews_1m" not in counters


def test_a_hot_key_stays_bounded_and_within_its_error(counters, clock):
    """Beyond 1,024 distinct moments an increment counts up to ttl/1024 too long, never short; slots stay bounded."""
    made, ttl, most = [], 64.0, 0
    for number in range(20_000):
        clock.advance(0.01 if number % 5000 else 40.0)
        now = clock.monotonic()
        made.append((now, number % 3))
        value = counters.incr("hot", number % 3, ttl)
        if number % 50 == 0:
            made = [(at, amount) for at, amount in made if at + ttl + ttl / 1024 > now]
            exact = sum(amount for at, amount in made if now < at + ttl)
            assert exact <= value <= sum(amount for at, amount in made)
            most = max(most, len(counters._counters["hot"].slots or ()) // 2)
    assert 1024 < most <= 1024 + 2049
    assert counters.ttl("hot") == ttl
    clock.advance(ttl)
    assert counters.get("hot") == 0
    assert len(counters) == 0


def test_exact_while_a_key_holds_1024_moments(counters, clock):
    """With 1,024 live increments at distinct moments, each still leaves at its own moment."""
    for _ in range(1024):
        counters.incr("k", ttl=2048)
        clock.advance(1)
    clock.advance(1024)
    for left in range(1024, 0, -1):
        assert counters.get("k") == left - 1
        clock.advance(1)
        if left == 1:
            break


def test_different_ttls_on_one_key_are_exact(counters, clock):
    """Expiries that come out of order, and a part that never expires, each leave on time."""
    counters.incr("k", 1, ttl=10)
    counters.incr("k", 10, ttl=5)
    clock.advance(1)
    counters.incr("k", 100, ttl=2)
    counters.incr("k", 1000)
    assert counters.get("k") == 1111
    clock.advance(2)
    assert counters.get("k") == 1011
    clock.advance(2)
    assert counters.get("k") == 1001
    clock.advance(5)
    assert counters.get("k") == 1000
    assert counters.ttl("k") is None
    clock.advance(1e9)
    assert counters.get("k") == 1000


def test_increments_that_end_together_with_earlier_ones(counters, clock):
    """A read drops all expired increments, also those that expire at the moment of the read."""
    for ttl in (1, 2, 3):
        counters.incr("k", 1, ttl)
    clock.advance(2)
    assert counters.get("k") == 1


def test_nothing_remains_of_an_expired_float(counters, clock):
    """1e16 + 1 rounds; once the 1e16 has expired the 1 is there in full."""
    counters.incr("k", 1e16, ttl=1)
    counters.incr("k", 1, ttl=2)
    clock.advance(1)
    assert counters.get("k") == 1


def test_integers_are_exact(counters):
    """Integer sums do not pass through floats."""
    counters.incr("k", 2**63)
    assert counters.incr("k", 1) == 2**63 + 1


def test_age_rebuilds_the_past(counters, clock):
    """An increment with an age counts for the rest of its ttl; an expired one is a no-op."""
    assert counters.incr("k", 1, ttl=60, age=59) == 1
    assert counters.incr("k", 1, ttl=60, age=60) == 1
    assert counters.incr("dead", 1, ttl=60, age=61) == 0
    assert counters.keys() == ["k"]
    assert counters.ttl("k") == 1
    clock.advance(1)
    assert len(counters) == 0


def test_eviction_order(clock):
    """Expired keys are evicted first, then the key that expires first, then the oldest key that never expires."""
    counters = Counters(clock, 3)
    counters.incr("forever_old")
    counters.incr("late", ttl=100)
    counters.incr("soon", ttl=10)
    counters.incr("soon", ttl=200)  # expires after "late" now
    counters.incr("new", ttl=5)
    assert counters.keys() == ["forever_old", "new", "soon"]
    assert counters.evicted == 1
    clock.advance(5)
    counters.incr("forever_new")
    assert counters.keys() == ["forever_new", "forever_old", "soon"]
    assert counters.evicted == 1
    counters.incr("soon")
    counters.incr("x", ttl=1)
    assert counters.keys() == ["forever_new", "soon", "x"]
    assert counters.evicted == 2
    counters.clear()
    assert (len(counters), counters.evicted) == (0, 2)


def test_the_queue_is_bounded_through_deletes(counters):
    """Counting and deleting a long-lived key repeatedly uses no more memory."""
    for _ in range(10_000):
        counters.incr("k", ttl=1e9)
        counters.delete("k")
    assert counters.statistics().queued <= 1024
    assert len(counters._added) + len(counters._removed) + len(counters._index) <= 1


def test_a_mass_expiry_reaches_keys_not_yet_indexed(counters, clock):
    """When thousands expire at the same time, unindexed keys are removed too, and live keys stay."""
    for number in range(2000):
        counters.incr(f"lives{number}", ttl=1)
    for number in range(50):
        counters.incr(f"dies{number}", ttl=2)
    assert counters.count("*") == 2050
    for number in range(2000):
        counters.incr(f"lives{number}", ttl=100)
    for number in range(10):
        counters.incr(f"unseen{number}", ttl=3)
    clock.advance(5)
    assert counters.count("*") == counters.count("lives*") == len(counters.keys()) == 2000
    assert counters.statistics().queued == 2000
    clock.advance(100)
    assert counters.keys() == []


def test_writes_alone_remove_expired_keys(counters, clock):
    """Memory does not grow while only `incr` is called: each call removes at least as many keys as it makes."""
    for number in range(20_000):
        counters.incr(f"k{number}", ttl=100)
        clock.advance(0.5)
    assert len(counters._counters) <= 203
    assert counters.statistics().keys == 199


@pytest.mark.parametrize(
    ("arguments", "error", "fact"),
    [
        (("",), ValueError, "empty"),
        ((7,), TypeError, "7"),
        (("k", math.nan), ValueError, "nan"),
        (("k", -math.inf), ValueError, "-inf"),
        (("k", 2**63 + 1), ValueError, str(2**63 + 1)),
        (("k", 10**400), ValueError, "2\\*\\*63"),
        (("k", "1"), TypeError, "'1'"),
        (("k", 1, 0), ValueError, "ttl is 0"),
        (("k", 1, -1.5), ValueError, "ttl is -1.5"),
        (("k", 1, math.nan), ValueError, "ttl is nan"),
        (("k", 1, math.inf), ValueError, "ttl is inf"),
    ],
)
def test_refusals(counters, arguments, error, fact):
    """An amount that cannot be counted is an error that names it, and nothing is counted."""
    with pytest.raises(error, match=fact):
        counters.incr(*arguments)
    assert len(counters) == 0


@pytest.mark.parametrize("age", [-1, math.nan, math.inf])
def test_refused_ages(counters, age):
    """A negative or infinite age is an error."""
    with pytest.raises(ValueError, match=f"age is {age}"):
        counters.incr("k", 1, 60, age=age)


def test_other_refusals(counters, clock):
    """A bound below one key and a negative n are errors."""
    with pytest.raises(ValueError, match="max_keys is 0"):
        Counters(clock, 0)
    with pytest.raises(ValueError, match="top -1"):
        counters.top("*", -1)


def test_numbers_of_other_kinds(counters):
    """Booleans and number subclasses count as the plain number they are."""
    assert counters.incr("k", True) == 1
    assert type(counters.get("k")) is int


@settings(max_examples=200, deadline=None)
@given(
    keys=st.sets(st.text(st.sampled_from("ab[]*?!-\n" + "\U0010ffff"), min_size=1, max_size=5), max_size=30),
    glob=st.text(st.sampled_from("ab[]*?!-\n" + "\U0010ffff"), max_size=6),
)
def test_globs_are_fnmatchcase(keys, glob):
    """For every pattern, matching is the same as fnmatch.fnmatchcase of each key."""
    counters = Counters(ManualClock(), 100)
    for key in keys:
        counters.incr(key)
    expected = sorted(key for key in keys if fnmatchcase(key, glob))
    assert counters.keys(glob) == expected
    assert counters.count(glob) == len(expected)


def test_a_prefix_ends_before_its_successor(counters):
    """`a*` does not match `b`, the first text after all that starts with `a`."""
    for key in ("a", "a\U0010ffff\U0010ffff", "b", "B"):
        counters.incr(key)
    assert counters.keys("a*") == ["a", "a\U0010ffff\U0010ffff"]
    assert counters.count("a*") == 2


def test_a_prefix_glob_does_not_scan(counters, monkeypatch):
    """`count("active:*")` asks the index for two positions and iterates over no key, however many there are."""
    for letter in string.ascii_letters:
        counters.incr(f"active:{letter}", ttl=60)
    counters.incr("other")
    counters.keys()
    monkeypatch.setattr(SortedList, "irange", None)
    monkeypatch.setattr(SortedList, "__iter__", None)
    assert counters.count("active:*") == len(string.ascii_letters)


def test_incr_each_is_incr_of_each_also_when_there_is_no_room():
    """`incr_each` equals that many calls of `incr`, in order: values, expiry and evictions."""
    for max_keys in (3, 4, 100):
        clock = ManualClock()
        one_by_one, together = Counters(clock, max_keys), Counters(clock, max_keys)
        for turn in range(60):
            amounts = {f"{turn * step % 7}": turn + 1 for step in (1, 2, 3)}
            ttl = (1, 5, None, 2)[turn % 4]
            for key, amount in amounts.items():
                one_by_one.incr(f"p:{key}", amount, ttl, age=0.5)
            together.incr_each("p:", amounts, ttl, age=0.5)
            assert together.top("*", 99) == one_by_one.top("*", 99)
            assert list(map(together.ttl, ["p:0", "p:1", "p:3", "p:6"])) == list(
                map(one_by_one.ttl, ["p:0", "p:1", "p:3", "p:6"])
            )
            assert together.evicted == one_by_one.evicted
            clock.advance((0.0, 0.25, 1.5)[turn % 3])
