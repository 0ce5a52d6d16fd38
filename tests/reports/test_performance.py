"""performance and errors against plain Python over the raw events, written from the definition."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed import Analytics, ManualClock, QueryRefused

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 1, tzinfo=UTC)
REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "minute": st.integers(0, 3 * 1440),
            "path": st.sampled_from(["/a", "/b", None]),
            "duration_ms": st.sampled_from([None, 0, 0.5, 100, 100.1, 400, 400.1, 7_000]),
            "status_code": st.sampled_from([None, 200, 302, 399, 400, 404, 500]),
            "user": st.sampled_from([None, "ann", "bob"]),
            "error": st.sampled_from([None, None, "KeyError"]),
        }
    ),
    max_size=40,
)


def properties(request):
    return {
        name: request[name] for name in ("path", "duration_ms", "status_code", "error") if request[name] is not None
    }


def quantile(values, q):
    """Linear interpolation between the two values around position q(n - 1)."""
    if not values:
        return None
    ordered = sorted(map(Fraction, values))
    position = Fraction(q) * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (position - below))


def is_request(request):
    return request["duration_ms"] is not None or request["status_code"] is not None


def is_error(request, errors_from):
    return request["status_code"] is not None and request["status_code"] >= errors_from


def model_performance(requests, key, threshold, errors_from):
    groups = defaultdict(list)
    for request in filter(is_request, requests):
        groups[key(request)].append(request)
    result = {}
    for name, group in groups.items():
        durations = [request["duration_ms"] for request in group if request["duration_ms"] is not None]
        failed = [request for request in group if is_error(request, errors_from)]
        fine = [
            request["duration_ms"] for request in group if request not in failed and request["duration_ms"] is not None
        ]
        judged = len(fine) + len(failed)
        points = sum(1 if ms <= threshold else 0.5 if ms <= 4 * threshold else 0 for ms in fine)
        result[name] = (
            len(group),
            sum(durations) / len(durations) if durations else None,
            *(quantile(durations, q) for q in ("0.5", "0.95", "0.99")),
            max(durations, default=None),
            len(failed),
            len(failed) / len(group),
            points / judged if judged else None,
        )
    return result


def approx(result):
    return {key: tuple(None if value is None else pytest.approx(value) for value in row) for key, row in result.items()}


async def filled(root, requests):
    clock = ManualClock(START + timedelta(days=4))
    analytics = Analytics("shop", root=root, clock=clock)
    await analytics.open()
    for at, request in enumerate(requests):
        await analytics.track(
            "api.request",
            properties(request),
            user_id=request["user"],
            timestamp=START + timedelta(minutes=request["minute"]),
            message_id=str(at),
        )
    await analytics.track("no request", {"path": "/a"})
    return analytics, clock


@given(requests=REQUESTS, threshold=st.sampled_from([100, 0.5]), errors_from=st.sampled_from([400, 500]))
@settings(max_examples=4, derandomize=True)
def test_performance_equals_plain_python(tmp_path_factory, requests, threshold, errors_from):
    """By day, by path, by neither, compared; before and after archiving, and as of a moment before later events."""

    async def run():
        analytics, clock = await filled(tmp_path_factory.mktemp("performance"), requests)
        how = {"threshold_ms": threshold, "errors_from": errors_from}
        keys = {
            ("day", None): lambda request: (START + timedelta(minutes=request["minute"])).date(),
            ("", "path"): lambda request: request["path"],
        }

        async def same(**options):
            for (grain, by), key in keys.items():
                rows = (await analytics.performance(grain=grain, by=by, **how, **options)).rows
                result = {row[0]: tuple(row[1:]) for row in rows}
                assert len(result) == len(rows)
                assert result == approx(model_performance(requests, key, threshold, errors_from))
            rows = (await analytics.performance(grain=None, **how, **options)).rows
            everything = model_performance(requests, lambda _one: None, threshold, errors_from)
            assert dict(zip([None], map(tuple, rows), strict=False)) == approx(everything)
            assert len(rows) == len(everything)

        async def compared():
            days = [START + timedelta(days=day) for day in range(3)]
            for grain, by in (("hour", "path"), (None, None)):
                question = {"grain": grain, "by": by, **how}
                result = await analytics.performance(**question, start=days[1], end=days[2], compare=True)
                alone = [
                    (*row, period)
                    for at, period in ((1, "current"), (0, "previous"))
                    for row in await analytics.performance(**question, start=days[at], end=days[at + 1])
                ]
                assert (result.columns[-1], [tuple(row) for row in result]) == ("period", alone)

        async with analytics:
            await same()
            await compared()
            clock.advance(60)  # events of one moment are received a microsecond apart
            then = clock.now_us()
            clock.advance(3600)
            await analytics.track("api.request", {"duration_ms": 1e6, "status_code": 503}, user_id="late")
            clock.advance(3600)
            moment = datetime.fromtimestamp(then / 1e6, UTC)
            await same(as_of=moment)
            await analytics.archive()
            await same(as_of=moment)
            await same(end=START + timedelta(days=4))
            assert await analytics.check() == []

    asyncio.run(run())


@given(requests=REQUESTS, errors_from=st.sampled_from([400, 500]))
@settings(max_examples=4, derandomize=True)
def test_errors_equal_plain_python(tmp_path_factory, requests, errors_from):
    """By status, path and the exception's class: counts, rates, shares, people, the first and the last."""

    async def run():
        analytics, _ = await filled(tmp_path_factory.mktemp("errors"), requests)
        async with analytics:
            for by in ("status_code", "path", "error"):
                groups = defaultdict(list)
                for request in filter(is_request, requests):
                    groups[request[by]].append(request)
                lost = {
                    key: [request for request in group if is_error(request, errors_from)]
                    for key, group in groups.items()
                }
                total = sum(map(len, lost.values()))
                expected = {
                    key: (
                        len(failed),
                        len(groups[key]),
                        len(failed) / len(groups[key]),
                        len(failed) / total,
                        len({request["user"] for request in failed} - {None}),
                        START + timedelta(minutes=min(request["minute"] for request in failed)),
                        START + timedelta(minutes=max(request["minute"] for request in failed)),
                    )
                    for key, failed in lost.items()
                    if failed
                }
                rows = (await analytics.errors(by, errors_from=errors_from)).rows
                assert {row[0]: tuple(row[1:]) for row in rows} == expected
                assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
                assert len((await analytics.errors(by, errors_from=errors_from, limit=1)).rows) == min(1, len(rows))
            assert await analytics.check() == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold_ms": 0},
        {"threshold_ms": "fast"},
        {"errors_from": 4},
        {"by": ["path", "PATH"]},
        {"by": "count"},
        {"by": [""]},
        {"grain": "year"},
        {"compare": True},
        {"compare": True, "start": "2026-01-01", "end": "2026-01-02", "by": "period"},
    ],
)
async def test_invalid_arguments_of_performance_are_refused(tmp_path, wrong):
    """Each is refused with a hint, before anything is read."""
    async with Analytics("shop", root=tmp_path) as analytics:
        with pytest.raises(QueryRefused):
            await analytics.performance(**wrong)


async def test_invalid_arguments_of_errors_are_refused(tmp_path):
    """Each is refused with a hint, before anything is read."""
    async with Analytics("shop", root=tmp_path) as analytics:
        for wrong in ({"limit": 0}, {"by": []}, {"errors_from": True}, {"by": "share"}):
            with pytest.raises(QueryRefused):
                await analytics.errors(**wrong)
