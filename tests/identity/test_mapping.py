"""A mapping as columns agrees with a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from lakebed.identity.mapping import Mapping

PAIRS = st.dictionaries(st.integers(1, 300), st.integers(1, 300), max_size=150)


def rows(pairs):
    return [(number, person, f"i{number}", f"i{person}") for number, person in sorted(pairs.items())]


def as_dict(mapping):
    return dict(zip(mapping.table["number"].to_pylist(), mapping.table["person"].to_pylist(), strict=True))


@given(before=PAIRS, changes=st.dictionaries(st.integers(1, 300), st.none() | st.integers(1, 300), max_size=150))
def test_replacing_few_or_many_rows(before, changes):
    """Rows are removed, added and changed; the numbers ascend, and texts stay with their numbers."""
    after = {number: person for number, person in (before | changes).items() if person is not None}
    moved = rows({number: person for number, person in changes.items() if person is not None})
    mapping = Mapping.of([Mapping.columns(rows(before))], 1).replaced(changes, moved, 2)
    assert as_dict(mapping) == after
    assert mapping.table["number"].to_pylist() == sorted(after)
    assert mapping.pairs.to_pylist() == [
        {"identity": f"i{number}", "person_id": f"i{person}"} for number, person in sorted(after.items())
    ]


@given(pairs=PAIRS, seen=st.sets(st.integers(1, 400), max_size=100))
def test_people_of_a_bitmap(pairs, seen):
    """Each identity in the bitmap counts as its person, once."""
    people = Mapping.of([Mapping.columns(rows(pairs))], 1).people_of(BitMap(seen))
    assert set(people) == {pairs.get(number, number) for number in seen}


@given(pairs=PAIRS, number=st.integers(1, 300))
def test_a_person_and_their_identities(pairs, number):
    """Each identity maps to its person, and the person to all of its identities."""
    mapping = Mapping.of([Mapping.columns(rows(pairs))], 1)
    assert mapping.person_of(f"i{number}") == f"i{pairs.get(number, number)}"
    others = {f"i{member}" for member, person in pairs.items() if person == number}
    assert mapping.identities_of(f"i{number}") == sorted({f"i{number}", *others})
