"""A year of visits to a shop: what reports are asked of. The same seed and day give the same bytes, in any process.

Somebody's visit begins with `Viewed`, as a rule goes on, and rarely ends in `Purchased`. Few people come often: of 20
events a person, half are those of a quarter of all. Two in five are anonymous and stay so, with a UUID for an id.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator

from bench.sample import BATCH, SEED

DAYS = 364  # whole weeks
START_US = 1_735_516_800_000_000  # 2024-12-30, a Monday
STEPS = ("Viewed", "Added", "Checkout", "Purchased")
COUNTRIES = ("DE", "FR", "GB", "US", "PL", "ES")
_PER_PERSON = 20
_PER_VISIT = 5.2
_MS, _DAY_MS = 1_000, 86_400_000
_NEXT = {  # what comes after what, by chance; None is the end of the visit
    "Viewed": ("Viewed", "Viewed", "Viewed", "Searched", "Searched", "Added", "Added", None),
    "Searched": ("Viewed", "Viewed", "Searched", None),
    "Added": ("Viewed", "Checkout", "Checkout", None),
    "Checkout": ("Purchased", "Viewed", None),
    "Purchased": (None,),
}


def people(events: int) -> int:
    """The number of people among so many events."""
    return max(100, events // _PER_PERSON)


def days(events: int) -> Iterator[tuple[int, list[bytes]]]:
    """Each day's end, microseconds, and its events in batches of JSON, in the order of their times."""
    population, visits = people(events), round(events / DAYS / _PER_VISIT)
    for day in range(DAYS):
        rng = random.Random(f"{SEED}/visits/{day}")
        start_ms = START_US // _MS + day * _DAY_MS
        ordered = sorted(event for _ in range(max(1, visits)) for event in _visit(rng, population, start_ms))
        texts = [_text(*event, f"{day}-{index}") for index, event in enumerate(ordered)]
        end_us = (start_ms + _DAY_MS) * _MS
        yield end_us, [f"[{','.join(texts[start : start + BATCH])}]".encode() for start in range(0, len(texts), BATCH)]


def _visit(rng: random.Random, everybody: int, start_ms: int) -> Iterator[tuple[int, int, str]]:
    """Time, person and name of each event. A visit that passes midnight ends there."""
    at, person, name = start_ms + int(rng.random() * _DAY_MS), int(rng.random() ** 2 * everybody), "Viewed"
    while name is not None and at < start_ms + _DAY_MS:
        yield at, person, name
        at += 1 + int(rng.expovariate(1 / 45_000))
        name = rng.choice(_NEXT[name])


def _text(at: int, person: int, name: str, number: str) -> str:
    anonymous = person % 5 < 2
    who = f'"anonymousId":"{uuid.UUID(int=person * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128))}"'
    who = who if anonymous else f'"userId":"user-{person}"'
    revenue = f',"revenue":{person * at % 20_000 / 100}' if name == "Purchased" else ""
    return (
        f'{{"type":"track","event":"{name}",{who},"messageId":"{number}","timestamp":{at},'
        f'"properties":{{"country":"{COUNTRIES[person % 6]}","page":"/{at % 300}"{revenue}}}}}'
    )
