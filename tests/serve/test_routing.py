"""Which replica a task is sent to: by what it holds, and by how busy it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.engine import Part
from longreach.errors import InputError, UnsupportedError
from longreach.serve.replicas.holdings import Holdings
from longreach.serve.replicas.start import cpus_each, start_replicas
from longreach.serve.replicas.wanted import BLOCK, Wanted, wanted

OPENING, QUESTION = Part(tuple(range(20))), Part((7, 8, 9))
CAT, DOG, COW = (Part(tuple(range(at, at + 100)), passage=True) for at in (1000, 2000, 3000))


def prompt(*passages: Part) -> Wanted:
    return wanted([OPENING, *passages, QUESTION], "anna", apart=True)


def plain(tokens: list[int], tenant: str = "anna") -> Wanted:
    return wanted([Part(tuple(tokens))], tenant, apart=False)


def sent(*tasks: tuple[str, Wanted]) -> Holdings:
    """Holdings after `tasks` were done by replicas "a" and "b"."""
    holdings = Holdings()
    for number, (name, asked) in enumerate(tasks):
        holdings.begin(name, str(number), asked)
        holdings.end(name, str(number))
    return holdings


def test_a_question_goes_to_the_replica_that_holds_most_of_its_passages_in_any_order() -> None:
    holdings = sent(("a", prompt(CAT, DOG)), ("b", prompt(COW)))
    assert holdings.order(["a", "b"], prompt(COW, DOG, CAT))[0] == "a"
    assert holdings.order(["a", "b"], prompt(COW))[0] == "b"


def test_a_replica_that_holds_a_passage_is_spared_when_the_other_is_that_much_less_busy() -> None:
    holdings = sent(("a", prompt(CAT)))
    holdings.begin("a", "long", prompt(DOG))
    assert holdings.order(["a", "b"], prompt(CAT))[0] == "b"
    holdings.end("a", "long")
    assert holdings.order(["a", "b"], prompt(CAT))[0] == "a"


def test_prompts_that_lie_at_hand_everywhere_are_shared_out() -> None:
    holdings = sent(("a", prompt(CAT)), ("b", prompt(CAT)))
    first = holdings.order(["a", "b"], prompt(CAT))[0]
    holdings.begin(first, "one", prompt(CAT))
    assert holdings.order(["a", "b"], prompt(CAT))[0] != first


def test_what_nobody_holds_goes_where_there_is_most_room() -> None:
    holdings = sent(("a", prompt(CAT)))
    assert holdings.order(["a", "b"], plain(list(range(500, 600))))[0] == "b"


def test_the_beginning_of_a_prompt_counts_up_to_the_first_block_that_differs() -> None:
    tokens = list(range(5 * BLOCK))
    holdings = sent(("a", plain(tokens)))
    assert holdings.held("a", plain(tokens)) == 5 * BLOCK
    assert holdings.held("a", plain([*tokens[: 2 * BLOCK], -1, *tokens[2 * BLOCK + 1 :]])) == 2 * BLOCK
    assert holdings.held("a", plain([-1, *tokens[1:]])) == 0


def test_nothing_that_one_tenant_read_counts_for_another() -> None:
    parts = [OPENING, CAT, QUESTION]
    for apart in (True, False):
        holdings = sent(("a", wanted(parts, "anna", apart=apart)))
        assert holdings.held("a", wanted(parts, "anna", apart=apart)) > 0
        assert holdings.held("a", wanted(parts, "bert", apart=apart)) == 0


def test_a_passage_behind_another_opening_is_another_one() -> None:
    holdings = sent(("a", prompt(CAT)))
    other = wanted([Part((1, 2)), CAT, QUESTION], "anna", apart=True)
    assert holdings.held("a", other) == 0


def test_a_replica_is_taken_to_hold_no_more_than_it_has_room_for() -> None:
    holdings = sent(("a", prompt(CAT)))
    holdings.set_room("a", 250)
    for number, passage in enumerate((DOG, COW)):
        holdings.begin("a", str(number), prompt(passage))
    assert holdings.held("a", prompt(CAT)) == 20  # its opening, which others use too
    assert holdings.held("a", prompt(COW)) == 120


def test_a_replica_that_is_gone_holds_nothing() -> None:
    holdings = sent(("a", prompt(CAT)))
    holdings.begin("a", "unfinished", prompt(CAT))
    holdings.keep(["b"])
    holdings.end("a", "unfinished")
    assert holdings.held("a", prompt(CAT)) == 0
    assert holdings.order(["a", "b"], prompt(CAT)) == ["a", "b"]


tasks = st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from([CAT, DOG, COW]), max_size=3)), max_size=12)


@given(tasks, st.integers(0, 500), st.lists(st.sampled_from([CAT, DOG, COW]), max_size=3))
def test_every_replica_is_named_once_and_the_first_has_least_to_read(
    done: list[tuple[str, list[Part]]], room: int, passages: list[Part]
) -> None:
    holdings = Holdings()
    for name in "abc":
        holdings.set_room(name, room)
    for number, (name, read) in enumerate(done):
        holdings.begin(name, str(number), prompt(*read))
        holdings.end(name, str(number))
    asked = prompt(*passages)
    order = holdings.order("abc", asked)
    assert sorted(order) == ["a", "b", "c"]
    held = [holdings.held(name, asked) for name in order]
    assert held == sorted(held, reverse=True)
    assert all(0 <= tokens <= min(asked.tokens, max(room, 0)) for tokens in held)


def test_replicas_share_the_processors_of_each_machine() -> None:
    assert cpus_each([16], 2) == 8
    assert cpus_each([8, 8], 3) == 4
    assert cpus_each([2], 2) == 1
    with pytest.raises(InputError, match="3 replicas need a processor each, and there are 2"):
        cpus_each([1, 1], 3)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnsupportedError, match=r"longreach\[ray\]"):
        start_replicas(lambda: pytest.fail("nothing is loaded"), 2, tmp_path)
