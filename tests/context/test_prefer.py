"""Preferring kept passages: among level hits alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longreach.context.choose import choosers
from longreach.context.prefer import prefer_kept
from longreach.types import Budget, Chunk, DocumentInfo, Hit


def hit(number: int, score: float) -> Hit:
    chunk = Chunk(f"c{number}", f"d{number}", 0, 4, "word", 1)
    return Hit(chunk, DocumentInfo(f"d{number}", "", {}, "text/plain", 4, 1, ""), score)


ranked = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=12).map(
    lambda drawn: sorted(drawn, reverse=True)
)


@given(ranked, st.sampled_from([0.0, 0.02, 0.1, 1.0]))
def test_no_hit_passes_one_that_is_better_by_more_than_a_little(drawn: list[tuple[int, bool]], near: float) -> None:
    hits = [hit(number, float(score)) for number, (score, _) in enumerate(drawn)]
    kept = {one.chunk.id for one, (_, held) in zip(hits, drawn, strict=True) if held}
    given_back = prefer_kept(hits, lambda some: [one.chunk.id in kept for one in some], near)
    assert sorted(one.chunk.id for one in given_back) == sorted(one.chunk.id for one in hits)
    reach = near * (hits[0].score - hits[-1].score) if hits else 0.0
    for at, one in enumerate(given_back):
        for later in given_back[at + 1 :]:
            assert later.score - one.score <= reach
            if later.score > one.score or (later.score == one.score and hits.index(later) < hits.index(one)):
                assert one.chunk.id in kept
                assert later.chunk.id not in kept


def test_of_level_hits_those_at_hand_come_first() -> None:
    hits = [hit(0, 9.0), hit(1, 8.99), hit(2, 5.0), hit(3, 5.0), hit(4, 1.0)]
    kept = {"c1", "c3", "c4"}
    given_back = prefer_kept(hits, lambda some: [one.chunk.id in kept for one in some])
    assert [one.chunk.id for one in given_back] == ["c1", "c0", "c3", "c2", "c4"]


def test_nothing_is_asked_where_no_hits_are_level() -> None:
    def never(_: object) -> list[bool]:
        raise AssertionError("there is nothing to prefer")

    hits = [hit(0, 9.0), hit(1, 6.0), hit(2, 1.0)]
    assert prefer_kept(hits, never) == hits
    assert prefer_kept([], never) == []


def test_a_chooser_takes_as_many_after_level_hits_changed_places() -> None:
    hits = [hit(0, 9.0), hit(1, 8.9), hit(2, 2.0), hit(3, 1.99), hit(4, 1.98)]
    turned = prefer_kept(hits, lambda some: [one.chunk.id in ("c1", "c4") for one in some])
    for name in choosers.names():
        chooser = choosers.make(name)
        budget = Budget(1000, lambda text: len(text.split()))
        assert len(chooser.choose("?", turned, budget)) == len(chooser.choose("?", hits, budget))
