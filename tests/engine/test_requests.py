from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Generator
from typing import Any

import pytest

from longreach.engine import Completion, Engine, Message, Piece, Prompt, Sampling, Stream
from longreach.engine.requests import check_prompt, check_prompts
from longreach.errors import InputError
from longreach.types import Timing, Usage


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": None},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": -1},
        {"stop": "a text"},
        {"stop": ("",)},
        {"stop": 7},
        {"top_k": -1},
        {"top_k": 0.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"typical_p": 0.0},
        {"typical_p": float("nan")},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
        {"presence_penalty": 2.1},
        {"frequency_penalty": -2.1},
        {"frequency_penalty": "0.1"},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {"1": 1.0}},
        {"logit_bias": {1: 101}},
        {"logit_bias": {1: float("nan")}},
        {"logit_bias": [1, 2]},
        {"stop_token_ids": [-1]},
        {"stop_token_ids": ["a"]},
        {"stop_token_ids": 7},
        {"ignore_eos": 1},
        {"min_tokens": -1},
        {"min_tokens": 129},
        {"n": 0},
        {"logprobs": 21},
        {"logprobs": -1},
        {"logprobs": True},
    ],
)
def test_sampling_out_of_range_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))) as caught:
        Sampling(**wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_the_ends_of_every_range_are_allowed() -> None:
    Sampling(
        max_tokens=1, temperature=0, top_p=1, seed=0, top_k=0, min_p=0, typical_p=1, presence_penalty=-2, logprobs=0
    )
    Sampling(seed=2**63 - 1, min_p=1, frequency_penalty=2, logit_bias={0: -100, 1: 100}, min_tokens=128, logprobs=20)


def test_an_error_says_what_is_allowed() -> None:
    for wrong, said in [
        (lambda: Sampling(top_p=2.0), "top_p=2.0 is out of range: more than 0, at most 1"),
        (lambda: Sampling(min_p=2.0), "min_p=2.0 is out of range: 0 to 1"),
        (lambda: Sampling(top_k=-1), "top_k=-1 is out of range: a whole number, 0 or more"),
        (lambda: Sampling(logprobs=21), "logprobs=21 is out of range: a whole number, 0 to 20"),
        (lambda: Sampling(repetition_penalty=0.0), "repetition_penalty=0.0 is out of range: more than 0"),
    ]:
        with pytest.raises(InputError) as caught:
            wrong()
        assert str(caught.value) == said


def test_what_ends_an_answer_are_the_models_own_tokens_and_those_named() -> None:
    own = frozenset({2, 3})
    assert Sampling().ends(own) == own
    assert Sampling(stop_token_ids=[5]).ends(own) == {2, 3, 5}
    assert Sampling(stop_token_ids=[3], ignore_eos=True).ends(own) == {3}


@pytest.mark.parametrize("options", [{"logit_bias": {9: 1.0}}, {"stop_token_ids": [9]}])
def test_a_token_beyond_the_vocabulary_is_refused_by_name(options: dict[str, Any]) -> None:
    Sampling(**options).check_vocabulary(10)
    with pytest.raises(InputError, match=f"{next(iter(options))} names token 9: the vocabulary has 9"):
        Sampling(**options).check_vocabulary(9)


def test_engines_take_the_options_of_sampling_by_name_and_no_others() -> None:
    taken = inspect.signature(Engine.stream).parameters
    assert list(taken)[2:] == [option.name for option in dataclasses.fields(Sampling)]
    assert all(option.kind is option.KEYWORD_ONLY for option in list(taken.values())[2:])

    class Silent(Engine):
        def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
            asked.append(sampling)
            return Stream(lambda cancelled: nothing())

        def count(self, text: str) -> int:
            return 0

        tokenize = encode = decode = count  # type: ignore[assignment]

    def nothing() -> Generator[Piece, None, Completion]:
        yield from ()
        return Completion("", (), "stop", Timing(), Usage())

    asked: list[Sampling] = []
    engine = Silent()
    engine.stream("a", max_tokens=3, top_k=2)
    assert len(engine.generate(["a", "b"], n=2, stop=["x"])) == 2
    engine.generate(["a"])
    assert asked == [Sampling(max_tokens=3, top_k=2), *[Sampling(n=2, stop=["x"])] * 2, Sampling()]
    with pytest.raises(TypeError, match="top_q"):
        engine.stream("a", top_q=2)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="top_k"):
        engine.generate(["a"], top_k=-1)


@pytest.mark.parametrize("prompt", ["", [], (), 7, ["a", "b"], [1, "a"], [Message("user", "a"), 1], [True]])
def test_what_is_no_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(InputError):
        check_prompt(prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompts", ["a prompt", [Message("user", "a")], [1, 2]])
def test_one_prompt_in_place_of_a_list_is_refused(prompts: object) -> None:
    with pytest.raises(InputError, match="brackets"):
        check_prompts(prompts)  # type: ignore[arg-type]
