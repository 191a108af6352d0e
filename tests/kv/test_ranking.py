"""Which entry goes first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.kv.store.ranking import Ranking, Worth

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "touch", "remove", "room", "pop"]),
        st.integers(0, 5),
        st.integers(1, 9),
        st.sampled_from([0.0, 1.0, 2.0, 8.0]),
    ),
    max_size=60,
)


class Slow:
    """The same from the formula alone: looks at every entry each time."""

    def __init__(self) -> None:
        self.age, self.clock = 0.0, 0
        self.held: dict[int, tuple[Worth, int]] = {}
        self.past: dict[int, int] = {}

    def add(self, key: int, worth: Worth) -> None:
        self.clock += 1
        worth = replace(worth, hits=max(worth.hits, self.past.pop(key, 0) + 1))
        self.held[key] = worth, self.clock

    def pop(self, pinned: set[int]) -> int | None:
        order = [(worth.priority, used, key) for key, (worth, used) in self.held.items() if key not in pinned]
        if not order:
            return None
        priority, _, key = min(order)
        self.age = max(self.age, priority)
        del self.held[key]
        return key


@given(STEPS, st.sets(st.integers(0, 5), max_size=3))
def test_the_order_is_that_of_the_formula(steps: list[tuple[str, int, int, float]], pinned: set[int]) -> None:
    fast, slow = Ranking[int](20), Slow()
    for what, key, size, seconds in steps:
        if what == "add":
            fast.add(key, Worth(size, seconds, 1, fast.age))
            slow.add(key, Worth(size, seconds, 1, slow.age))
        elif what == "touch" and key in fast:
            worth = slow.held[key][0]
            slow.add(key, replace(worth, hits=worth.hits + 1, age=slow.age))
            assert fast.touch(key) == slow.held[key][0]
        elif what == "remove":
            fast.remove(key)
            slow.held.pop(key, None)
        elif what == "pop":
            popped = fast.pop(pinned.__contains__)
            assert (None if popped is None else popped[0]) == slow.pop(pinned)
        elif what == "room":
            fits = size + sum(worth.bytes for other, (worth, _) in slow.held.items() if other in pinned) <= 20
            gone = fast.room(size, pinned)
            assert (gone is not None) == fits
            assert list(gone or {}) == [slow.pop(pinned) for _ in gone or {}]
            slow.past.update({other: worth.hits for other, worth in (gone or {}).items()})
            assert not fits or fast.bytes + size <= 20
        assert {key: fast[key] for key in fast} == {key: worth for key, (worth, _) in slow.held.items()}
        assert fast.bytes == sum(worth.bytes for worth, _ in slow.held.values())
        assert fast.age == slow.age


def test_what_costs_more_to_compute_for_its_bytes_stays() -> None:
    ranking = Ranking[str](10)
    ranking.add("dear", Worth(5, 5.0))
    ranking.add("cheap", Worth(5, 1.0))
    assert list(ranking.room(5, ()) or {}) == ["cheap"]


def test_what_was_wanted_often_goes_when_it_is_wanted_no_more() -> None:
    ranking = Ranking[str](4)
    ranking.add("once hot", Worth(1, 1.0))
    for _ in range(5):
        ranking.touch("once hot")
    for number in range(100):
        ranking.room(1, ())
        ranking.add(str(number), Worth(1, 1.0, age=ranking.age))
        if number == 5:
            assert "once hot" in ranking
    assert "once hot" not in ranking


def test_what_comes_back_is_as_well_known_as_when_it_went() -> None:
    ranking = Ranking[str](1)
    ranking.add("a", Worth(1, 1.0, hits=4))
    ranking.room(1, ())
    ranking.add("a", Worth(1, 1.0))
    assert ranking["a"].hits == 5


@pytest.mark.parametrize("hits", [1, 7])
def test_newcomers_are_not_behind_what_an_older_ranking_left(hits: int) -> None:
    ranking = Ranking[str](3)
    for name in "abc":
        ranking.add(name, Worth(1, 1.0, hits, age=1000.0))
    ranking.catch_up()
    ranking.room(1, ())
    ranking.add("new", Worth(1, 1.0, age=ranking.age))
    ranking.room(1, ())
    assert "new" in ranking
