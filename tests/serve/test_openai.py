"""OpenAI's own client talks to the server."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from longreach.engine import Engine, Message
from longreach.engine.paged import PagedEngine
from serving import Running

STORY = "Once upon a time, there was a little"
TALK: Any = [{"role": "user", "content": "Tell me about the dog."}]


def test_models_are_listed_with_what_they_answer_from(shared: Running) -> None:
    names = {model.id for model in shared.openai().models.list()}
    assert names == {"tiny", "tiny@manuals", "hashing"}
    assert shared.openai().models.retrieve("tiny@manuals").model_extra["library"] == "manuals"  # type: ignore[index]


def test_a_completion_is_what_the_engine_writes(shared: Running, storyteller: PagedEngine) -> None:
    exact = storyteller.generate([STORY], max_tokens=12)[0]
    done = shared.openai().completions.create(model="tiny", prompt=STORY, max_tokens=12, temperature=0)
    assert done.choices[0].text == exact.text
    assert done.choices[0].finish_reason == exact.finish_reason == "length"
    assert done.usage is not None
    assert done.usage.prompt_tokens == exact.usage.prompt_tokens
    assert done.usage.completion_tokens == 12
    assert done.usage.total_tokens == done.usage.prompt_tokens + 12


def test_a_chat_is_what_the_engine_says(shared: Running, storyteller: PagedEngine) -> None:
    exact = storyteller.generate([[Message("user", TALK[0]["content"])]], max_tokens=10)[0]
    done = shared.openai().chat.completions.create(model="tiny", messages=TALK, max_tokens=10, temperature=0)
    assert done.choices[0].message.content == exact.text
    assert done.choices[0].message.role == "assistant"


def test_a_streamed_chat_says_the_same_and_tells_its_usage_if_asked(shared: Running) -> None:
    asked: Any = {"model": "tiny", "messages": TALK, "max_tokens": 10, "temperature": 0}
    whole = shared.openai().chat.completions.create(**asked)
    chunks = list(shared.openai().chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 10
    assert all(chunk.usage is None for chunk in shared.openai().chat.completions.create(**asked, stream=True))


def test_a_streamed_completion_of_two_prompts_says_the_same(shared: Running) -> None:
    asked: Any = {"model": "tiny", "prompt": [STORY, "The cat"], "max_tokens": 8, "temperature": 0}
    whole = shared.openai().completions.create(**asked)
    texts = ["", ""]
    for chunk in shared.openai().completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]


def test_a_seed_draws_the_same_again_and_n_draws_several(shared: Running) -> None:
    asked: Any = {"model": "tiny", "prompt": STORY, "max_tokens": 8, "temperature": 1.0, "seed": -7, "n": 3}
    first, second = (shared.openai().completions.create(**asked) for _ in range(2))
    assert [choice.text for choice in first.choices] == [choice.text for choice in second.choices]
    assert len({choice.text for choice in first.choices}) > 1
    assert first.usage is not None
    assert first.usage.completion_tokens == 24


def test_an_answer_ends_before_a_stop_string(shared: Running, storyteller: PagedEngine) -> None:
    text = storyteller.generate([STORY], max_tokens=12)[0].text
    word = text.split()[2]
    done = shared.openai().completions.create(model="tiny", prompt=STORY, max_tokens=12, temperature=0, stop=word)
    assert done.choices[0].text == text[: text.index(word)]
    assert done.choices[0].finish_reason == "stop"


def test_penalties_and_biases_reach_the_engine(shared: Running, storyteller: PagedEngine) -> None:
    banned = storyteller.generate([STORY], max_tokens=1)[0].token_ids[0]
    exact = storyteller.generate([STORY], max_tokens=6, logit_bias={banned: -100.0}, frequency_penalty=1.5)[0]
    done = shared.openai().completions.create(
        model="tiny",
        prompt=STORY,
        max_tokens=6,
        temperature=0,
        logit_bias={str(banned): -100},
        frequency_penalty=1.5,
    )
    assert done.choices[0].text == exact.text


def test_log_probabilities_are_the_engines_and_spell_the_text(shared: Running, storyteller: PagedEngine) -> None:
    exact = storyteller.generate([STORY], max_tokens=6, logprobs=2)[0]
    done = shared.openai().completions.create(model="tiny", prompt=STORY, max_tokens=6, temperature=0, logprobs=2)
    told = done.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs == pytest.approx([one.chosen.logprob for one in exact.logprobs], abs=1e-3)
    assert "".join(told.tokens or ()).strip() == exact.text.strip()
    assert all(len(top) == 2 for top in told.top_logprobs or ())


def test_a_chat_tells_log_probabilities_streamed_and_whole(shared: Running) -> None:
    asked: Any = {"model": "tiny", "messages": TALK, "max_tokens": 5, "temperature": 0, "logprobs": True}
    whole = shared.openai().chat.completions.create(**asked, top_logprobs=3).choices[0].logprobs
    assert whole is not None
    assert whole.content is not None
    assert [len(one.top_logprobs) for one in whole.content] == [3] * 5
    parts = shared.openai().chat.completions.create(**asked, top_logprobs=3, stream=True)
    told = [one.token for part in parts for c in part.choices if c.logprobs for one in c.logprobs.content or ()]
    assert told == [one.token for one in whole.content]


def test_token_ids_are_a_prompt(shared: Running, storyteller: PagedEngine) -> None:
    ids = storyteller.encode(STORY)
    by_text, by_ids = (
        shared.openai().completions.create(model="tiny", prompt=prompt, max_tokens=6, temperature=0).choices[0].text
        for prompt in (STORY, ids)
    )
    assert by_text == by_ids


def test_embeddings_are_unit_vectors_and_the_same_in_either_form(shared: Running) -> None:
    texts = ["the pump turns", "a lake"]
    packed = shared.openai().embeddings.create(model="hashing", input=texts)
    plain = shared.openai().embeddings.create(model="hashing", input=texts, encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(x * x for x in one.embedding) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 100_000}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"extra_body": {"top_logprobs": 2}}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"extra_body": {"budget": {"colour": 1}}}, "budget.colour"),
    ],
)
def test_what_is_wrong_is_named(shared: Running, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        shared.openai().chat.completions.create(**{"model": "tiny", "messages": TALK, **wrong})
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"


def test_a_model_that_is_not_there_is_not_found(shared: Running) -> None:
    for model in ("gpt-9", "tiny@nowhere"):
        with pytest.raises(openai.NotFoundError):
            shared.openai().chat.completions.create(model=model, messages=TALK)


def test_a_prompt_longer_than_the_context_is_refused(shared: Running) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as raised:
            shared.openai().completions.create(model="tiny", prompt="dog " * 600, stream=stream)
        assert raised.value.code == "context_length_exceeded"


def test_our_own_client_of_servers_talks_to_it(shared: Running, storyteller: PagedEngine) -> None:
    remote = Engine.load(f"{shared.url}#tiny")
    assert remote.context_length == storyteller.context_length
    options: Any = {"max_tokens": 8, "repetition_penalty": 1.3, "top_k": 5}
    assert remote.generate([STORY], **options)[0].text == storyteller.generate([STORY], **options)[0].text


def test_a_prompt_budget_refuses_and_a_memory_budget_shortens(shared: Running) -> None:
    def ask(**budget: int) -> Any:
        return shared.openai().completions.create(
            model="tiny", prompt=STORY, max_tokens=64, temperature=0, extra_body={"budget": budget}
        )

    with pytest.raises(openai.BadRequestError) as raised:
        ask(max_prompt_tokens=3)
    assert raised.value.code == "over_budget"
    engine: Any = shared.service.engine
    most = engine.kv_bytes_of(48)
    done = ask(max_kv_bytes=most)
    assert done.choices[0].finish_reason == "length"
    assert done.usage.total_tokens <= 48
    assert done.usage.kv_bytes <= most
    with pytest.raises(openai.BadRequestError):
        ask(max_kv_bytes=1)
