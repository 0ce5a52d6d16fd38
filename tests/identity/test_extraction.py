"""The facts in events, cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lakebed.identity.extraction import Evidence, FoundEdge


@given(
    users=st.lists(st.integers(0, 30), max_size=20),
    edges=st.lists(st.integers(0, 30), max_size=20),
    most=st.integers(1, 8),
)
def test_pieces_cover_all_facts_in_order(users, edges, most):
    """Each piece has exactly the facts from the end of the piece before it up to its own end."""
    evidence = Evidence(
        {f"u{number}": seq for number, seq in enumerate(users)},
        [FoundEdge(seq, "identify", "u", "a", 0, f"m{number}") for number, seq in enumerate(sorted(edges))],
    )
    low = 0
    for piece, cut in evidence.pieces(31, most):
        assert piece.users == {text: seq for text, seq in evidence.users.items() if low <= seq < cut}
        assert piece.edges == [edge for edge in evidence.edges if low <= edge.seq < cut]
        low = cut
    assert low == 31
