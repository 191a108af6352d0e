from __future__ import annotations

import pytest

from longreach.engine import Message, Sampling
from longreach.engine.requests import check_prompt, check_prompts
from longreach.errors import InputError


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": -1},
        {"stop": "a text"},
        {"stop": ("",)},
    ],
)
def test_sampling_out_of_range_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", ["", [], (), 7, ["a", "b"], [1, "a"], [Message("user", "a"), 1], [True]])
def test_what_is_no_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(InputError):
        check_prompt(prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompts", ["a prompt", [Message("user", "a")], [1, 2]])
def test_one_prompt_in_place_of_a_list_is_refused(prompts: object) -> None:
    with pytest.raises(InputError, match="brackets"):
        check_prompts(prompts)  # type: ignore[arg-type]
