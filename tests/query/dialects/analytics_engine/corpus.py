"""Statements of the dialect, each with the same computation in plain Python; most are compared with chDB too."""

from __future__ import annotations

import base64
import math
import re
import statistics
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta

EPOCH = datetime(2024, 1, 13, 4, 58, 30, tzinfo=UTC)
METHODS = ("GET", "POST", "put", "")
PATHS = ("/a", "/b/c", "/Über", "", "it's")
ROWS = [
    {
        "timestamp": EPOCH + timedelta(seconds=n * 4801),
        "index1": f"org{n % 3}",
        "blob1": METHODS[n % 4],
        "blob2": PATHS[n % 5],
        "double1": float((n * 37) % 101) - 7.5,
        "double2": float(n % 7),
    }
    for n in range(60)
]


def plain(value):
    """A value in the form of the answer."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return int(value) if isinstance(value, bool) else value


def rows(*of, where=lambda _: True):
    """A row for each event."""
    return sorted([[plain(value(r)) for value in of] for r in ROWS if where(r)], key=repr)


def groups(key, *aggregates, where=lambda _: True):
    """A row for each group."""
    by_key = defaultdict(list)
    for row in ROWS:
        if where(row):
            by_key[plain(key(row))].append(row)
    return sorted([[name, *(aggregate(group) for aggregate in aggregates)] for name, group in by_key.items()], key=repr)


def one(*values):
    """One row."""
    return [list(map(plain, values))]


def column(name):
    return [row[name] for row in ROWS]


def disc(values, level):
    return sorted(values)[max(math.ceil(level * len(values)), 1) - 1]


def half_even(x, digits=0):
    return float(round(x, digits))


T, M, P, D, E = (lambda r, n=n: r[n] for n in ("timestamp", "blob1", "blob2", "double1", "double2"))
DAY = timedelta(days=1)


def bucket(seconds, zone=timedelta()):
    return lambda r: plain(datetime.fromtimestamp(((T(r) + zone).timestamp() // seconds) * seconds, UTC) - zone)


def day_of(back):
    """The date `back(row)` days before."""
    return lambda r: (T(r) - timedelta(days=back(r))).date().isoformat()


# Each expression, with its value for one row.
EACH = {
    "blob1": M,
    "index1": lambda r: r["index1"],
    "timestamp": T,
    "blob20": lambda _: "",
    "double20": lambda _: 0,
    "_sample_interval": lambda _: 1,
    "lower(blob1)": lambda r: M(r).lower(),
    "upper(blob1)": lambda r: M(r).upper(),
    "lowerUTF8(blob2)": lambda r: P(r).lower(),
    "upperUTF8(blob2)": lambda r: P(r).upper(),
    "length(blob2)": lambda r: len(P(r)),
    "lengthUTF8(blob2)": lambda r: len(P(r)),
    "empty(blob1)": lambda r: M(r) == "",
    "notEmpty(blob1)": lambda r: M(r) != "",
    "startsWith(blob2, '/b')": lambda r: P(r).startswith("/b"),
    "endsWith(blob2, 'c')": lambda r: P(r).endswith("c"),
    "substring(blob1, 2)": lambda r: M(r)[1:],
    "substring(blob1, 1, 2)": lambda r: M(r)[:2],
    "position('S' IN blob1)": lambda r: M(r).find("S") + 1,
    "position(blob2, 'c')": lambda r: P(r).find("c") + 1,
    "concat(blob1, ' ', blob2)": lambda r: f"{M(r)} {P(r)}",
    "replaceAll(blob2, '/', '-')": lambda r: P(r).replace("/", "-"),
    "lower(blob2)": lambda r: re.sub("[A-Z]", lambda m: m[0].lower(), P(r)),
    "toUpper(blob2)": lambda r: P(r).upper(),
    "blob2 LIKE '/_%' AND blob2 NOT LIKE '/\\\\_%'": lambda r: len(P(r)) > 1 and P(r)[0] == "/",
    "format('{}: {} of {}', blob1, double2, toDate(timestamp))": lambda r: f"{M(r)}: {E(r):g} of {T(r):%F}",
    "toString(double1)": lambda r: f"{D(r):g}",
    "bin(toUInt8(double2))": lambda r: f"{int(E(r)):08b}",
    "bin(blob1)": lambda r: "".join(f"{byte:08b}" for byte in M(r).encode()),
    "hex(toUInt32(timestamp))": lambda r: f"{int(T(r).timestamp()):X}",
    "bitTest(toUInt32(double2), 1)": lambda r: int(E(r)) >> 1 & 1,
    "bitHammingDistance(toUInt32(double2), 5)": lambda r: (int(E(r)) ^ 5).bit_count(),
    "floor(double1 / 8, 1)": lambda r: math.floor(D(r) / 8 * 10) / 10,
    "ceil(double1 / 8, 2)": lambda r: math.ceil(D(r) / 8 * 100) / 100,
    "toUInt32(timestamp) * 1000": lambda r: int(T(r).timestamp()) * 1000,
    "(intDiv(toUInt32(timestamp) * 1000, 60000) * 60000)": lambda r: int(T(r).timestamp() // 60 * 60000),
    "toUInt8(double2) - 7": lambda r: int(E(r)) - 7,
    "0.1 + 0.2": lambda _: 0.1 + 0.2,
    "toDateTime('1700000000')": lambda _: "2023-11-14 22:13:20",
    "toDate(timestamp) - INTERVAL '1' DAY": day_of(lambda _: 1),
    "timestamp <= now() AND toDate(timestamp) < today()": lambda _: True,
    "hex(blob1)": lambda r: M(r).encode().hex().upper(),
    "base64Encode(blob1)": lambda r: base64.b64encode(M(r).encode()).decode(),
    "blob1 LIKE 'P%'": lambda r: M(r).startswith("P"),
    "blob1 ILIKE 'p%'": lambda r: M(r).lower().startswith("p"),
    "blob1 NOT LIKE '%T'": lambda r: not M(r).endswith("T"),
    "blob1 IN ('GET', 'put')": lambda r: M(r) in ("GET", "put"),
    "blob1 NOT IN ('GET')": lambda r: M(r) != "GET",
    "blob2 = 'it\\'s'": lambda r: P(r) == "it's",
    "double1 BETWEEN 0 AND 50": lambda r: 0 <= D(r) <= 50,
    "NOT (double1 > 3 AND double2 < 5 OR blob1 = 'GET')": lambda r: not ((D(r) > 3 and E(r) < 5) or M(r) == "GET"),
    "if(double1 > 20, 'slow', 'fast')": lambda r: "slow" if D(r) > 20 else "fast",
    "double1 + double2 * 2 - 1": lambda r: D(r) + E(r) * 2 - 1,
    "double1 / 4": lambda r: D(r) / 4,
    "-double1": lambda r: -D(r),
    "abs(double1)": lambda r: abs(D(r)),
    "double2 % 3": lambda r: E(r) % 3,
    "intDiv(toUInt32(double2), 2)": lambda r: int(E(r)) // 2,
    "floor(double1)": lambda r: float(math.floor(D(r))),
    "ceil(double1)": lambda r: float(math.ceil(D(r))),
    "round(double1)": lambda r: half_even(D(r)),
    "pow(double2, 2)": lambda r: E(r) ** 2,
    "toUInt8(double2)": lambda r: int(E(r)),
    "toUInt32('17')": lambda _: 17,
    "bitAnd(toUInt32(double2), 3)": lambda r: int(E(r)) & 3,
    "bitOr(toUInt32(double2), 8)": lambda r: int(E(r)) | 8,
    "bitXor(toUInt32(double2), 5)": lambda r: int(E(r)) ^ 5,
    "bitShiftLeft(toUInt32(double2), 2)": lambda r: int(E(r)) << 2,
    "bitShiftRight(toUInt32(double2), 1)": lambda r: int(E(r)) >> 1,
    "toString(timestamp)": T,
    "toUnixTimestamp(timestamp)": lambda r: int(T(r).timestamp()),
    "toUInt32(timestamp)": lambda r: int(T(r).timestamp()),
    "(intDiv(toUInt32(timestamp), 3600) * 3600) * 1000": lambda r: int(T(r).timestamp() // 3600 * 3600 * 1000),
    "toDateTime(1700000000)": lambda _: "2023-11-14 22:13:20",
    "toDateTime('2024-07-01 00:00:00', 'Europe/Berlin') = toDateTime('2024-06-30 22:00:00')": lambda _: 1,
    "toDate(timestamp)": lambda r: T(r).date().isoformat(),
    "timestamp + INTERVAL '1' DAY": lambda r: T(r) + DAY,
    "timestamp - toDateTime(1705121910)": lambda r: int((T(r) - EPOCH).total_seconds()),
    "toDate(timestamp) - toDate('2024-01-10')": lambda r: (T(r).date() - date(2024, 1, 10)).days,
    "timestamp - 90": lambda r: T(r) - timedelta(seconds=90),
    "toDate(timestamp) + 1": day_of(lambda _: -1),
    "timestamp > now() - 3600": lambda _: False,
    "timestamp - INTERVAL 90 MINUTE": lambda r: T(r) - timedelta(minutes=90),
    "timestamp >= '2024-01-14 00:00:00'": lambda r: T(r).day >= 14,
    "toYear(timestamp)": lambda r: T(r).year,
    "toMonth(timestamp)": lambda r: T(r).month,
    "toDayOfMonth(timestamp)": lambda r: T(r).day,
    "toDayOfYear(timestamp)": lambda r: T(r).timetuple().tm_yday,
    "toDayOfWeek(timestamp)": lambda r: T(r).isoweekday(),
    "toHour(timestamp)": lambda r: T(r).hour,
    "toMinute(timestamp)": lambda r: T(r).minute,
    "toSecond(timestamp)": lambda r: T(r).second,
    "toYYYYMM(timestamp)": lambda r: T(r).year * 100 + T(r).month,
    "extract(HOUR FROM timestamp)": lambda r: T(r).hour,
    "formatDateTime(timestamp, '%Y/%m/%d %H-%i %%')": lambda r: f"{T(r):%Y/%m/%d %H-%M %%}",
    "formatDateTime(timestamp, '%F %T', 'Asia/Tokyo')": lambda r: f"{T(r) + timedelta(hours=9):%F %T}",
    "toStartOfYear(timestamp)": lambda _: "2024-01-01",
    "toStartOfMonth(timestamp)": lambda _: "2024-01-01",
    "toStartOfWeek(timestamp)": day_of(lambda r: T(r).weekday()),
    "toMonday(timestamp)": day_of(lambda r: T(r).weekday()),
    "toStartOfDay(timestamp)": bucket(86400),
    "toStartOfHour(timestamp)": bucket(3600),
    "toStartOfFifteenMinutes(timestamp)": bucket(900),
    "toStartOfFiveMinutes(timestamp)": bucket(300),
    "toStartOfMinute(timestamp)": bucket(60),
    "toStartOfInterval(timestamp, INTERVAL '15' MINUTE)": bucket(900),
    "toStartOfInterval(timestamp, INTERVAL 6 HOUR)": bucket(21600),
    "toStartOfInterval(timestamp, INTERVAL '1' WEEK)": day_of(lambda r: T(r).weekday()),
    "toStartOfInterval(timestamp, INTERVAL '1' MONTH)": lambda _: "2024-01-01",
}
# Each complete statement over `t`, with its rows in any order.
WHOLE = {
    "SELECT count() FROM t": one(60),
    "SELECT COUNT(*), count(DISTINCT blob1) FROM t": one(60, 4),
    "SELECT sum(_sample_interval) FROM t": one(60),
    "SELECT count() - 70, intDiv(count(), 7), toString(count()), if(count() > 3, 'many', 'few') FROM t": one(
        -10, 8, "60", "many"
    ),
    "SELECT sum(double1 * _sample_interval) / sum(_sample_interval) FROM t": one(statistics.fmean(column("double1"))),
    "SELECT avg(double1), min(double1), max(double1) FROM t": one(
        statistics.fmean(column("double1")), min(column("double1")), max(column("double1"))
    ),
    "SELECT min(timestamp), max(timestamp) FROM t": one(ROWS[0]["timestamp"], ROWS[-1]["timestamp"]),
    **{
        f"SELECT quantileExactWeighted({level})(double1, _sample_interval) FROM t": one(disc(column("double1"), level))
        for level in (0, 0.1, 0.5, 0.95, 1)
    },
    "SELECT argMax(blob2, timestamp), argMin(blob2, timestamp) FROM t": one(ROWS[-1]["blob2"], ROWS[0]["blob2"]),
    "SELECT topK(1)(blob1) FROM t WHERE blob1 = 'GET' OR double2 < 1": [
        [[Counter(M(r) for r in ROWS if M(r) == "GET" or E(r) < 1).most_common(1)[0][0]]]
    ],
    "SELECT blob1 AS m, count() AS n FROM t GROUP BY m": groups(M, len),
    "SELECT blob1, sum(double2) FROM t WHERE index1 = 'org1' GROUP BY blob1": groups(
        M, lambda group: sum(map(E, group)), where=lambda r: r["index1"] == "org1"
    ),
    "SELECT toStartOfDay(timestamp) AS timestamp, count() FROM t GROUP BY timestamp": groups(bucket(86400), len),
    "SELECT toStartOfHour(timestamp) AS t, count() AS n FROM t GROUP BY t HAVING n > 0 ORDER BY t": groups(
        bucket(3600), len
    ),
    "SELECT blob2, count() AS n FROM t GROUP BY blob2 ORDER BY n DESC, blob2 LIMIT 2 OFFSET 1": sorted(
        groups(P, len), key=lambda r: (-r[1], r[0])
    )[1:3],
    "SELECT blob2 FROM t GROUP BY 1 ORDER BY 1 LIMIT ALL": groups(P),
    "SELECT m, max(n) FROM (SELECT blob1 AS m, index1 AS i, count() AS n FROM t GROUP BY m, i) GROUP BY m": groups(
        M, lambda group: max(Counter(r["index1"] for r in group).values())
    ),
    "SELECT sum(DISTINCT double2), avg(DISTINCT double2) FROM t": one(sum({*column("double2")}), 3),
    "SELECT quantileWeighted(0.5, double1, _sample_interval) FROM t": one(disc(column("double1"), 0.5)),
    "SELECT topK(index1), topKWeighted(index1, _sample_interval) FROM t": [[["org0", "org1", "org2"]] * 2],
    "SELECT DISTINCT index1 FROM t": [["org0"], ["org1"], ["org2"]],
}
# Statements with these parts do not run in chDB: it lacks them, or reads them differently from Analytics Engine, or
# (topK of equal counts) they have no order.
ONLY_HERE = (
    "extract(",
    "LIMIT ALL",
    "length(",
    "toStartOfWeek",
    "quantileWeighted",
    "topK(index1)",
    "format('{}: ",
    "toUpper(",
)
