from __future__ import annotations

import asyncio
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from longreach.engine import Engine, Message
from longreach.engine.paged import PagedEngine
from longreach.errors import InputError, ModelError, PromptTooLongError
from longreach.model.load import LoadedModel

STORY = "Once upon a time, there was a little girl named Lily. She loved"


def fresh(engine: PagedEngine, **options: Any) -> PagedEngine:
    return PagedEngine(engine.loaded, **{"kv_bytes": 32 << 20, **options})


@pytest.fixture(scope="module")
def reference(storyteller: PagedEngine, original: Any) -> list[int]:
    """What transformers' own loop writes."""
    ids = torch.tensor([storyteller.encode(STORY)])
    options = {"max_new_tokens": 200, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    out = original.generate(ids, **options)
    return list(out[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("before", [None, STORY, STORY + " who liked the rain", STORY[:-2]])
def test_greedy_is_what_transformers_writes_whatever_is_reused(
    storyteller: PagedEngine, reference: list[int], before: str | None
) -> None:
    engine = fresh(storyteller)
    if before:
        engine.generate([before], max_tokens=20)
    done = engine.generate([STORY], max_tokens=200)[0]
    assert list(done.token_ids) == reference
    assert done.text == engine.decode(reference)
    assert (done.usage.reused_tokens > 0) == (before is not None)
    assert done.usage.generated_tokens == len(reference)
    assert done.usage.prompt_tokens == len(engine.encode(STORY))
    assert 0 < done.timing.ttft <= done.timing.total


def test_a_conversation_reuses_its_past_answers(storyteller: PagedEngine) -> None:
    engine = fresh(storyteller)
    ids = engine.encode(STORY)
    done = engine.generate([ids], max_tokens=10)[0]
    longer = [*ids, *done.token_ids, 400, 401]
    again = engine.generate([longer], max_tokens=3)[0]
    assert again.usage.reused_tokens == len(ids) + 9  # the last token of the answer was chosen but never read


@pytest.mark.parametrize("reuse", [True, False])
def test_samples_of_one_prompt_hold_its_pages_once(storyteller: PagedEngine, reuse: bool) -> None:
    engine = fresh(storyteller, reuse=reuse)
    prompt = engine.encode(STORY * 12)
    stream = engine.stream(prompt, n=6, max_tokens=8, temperature=1.0, seed=1)
    seen = 0
    for _ in stream:
        jobs = engine.scheduler.running
        seen = max(seen, len(jobs) if all(job.read for job in jobs) else 0)
        if seen == 6:
            break
    once = engine.scheduler.pages_for(len(prompt))
    assert engine.pool.used < 3 * once
    stream.cancel()
    assert stream.finish().usage.prompt_tokens == len(prompt)


def test_without_room_nothing_is_kept(storyteller: PagedEngine) -> None:
    engine = fresh(storyteller, reuse=False)
    first, second = engine.generate([STORY, STORY], max_tokens=5)
    assert second.usage.reused_tokens == 0
    assert first.token_ids == second.token_ids
    assert engine.pool.used == 0


def test_a_stream_says_what_generate_says(storyteller: PagedEngine) -> None:
    done = storyteller.generate([STORY], max_tokens=30, stop=["."])[0]
    stream = storyteller.stream(STORY, max_tokens=30, stop=["."])
    pieces = list(stream)
    assert "".join(piece.text for piece in pieces) == done.text == stream.completion.text
    assert tuple(piece.token_id for piece in pieces) == stream.completion.token_ids == done.token_ids
    assert done.finish_reason == "stop"
    assert "." not in done.text


def test_streams_can_be_awaited_side_by_side(storyteller: PagedEngine) -> None:
    async def read(prompt: str) -> list[int | None]:
        return [piece.token_id async for piece in storyteller.stream(prompt, max_tokens=12)]

    async def both() -> list[list[int | None]]:
        return list(await asyncio.gather(read(STORY), read("The dog ran to the")))

    want = [list(done.token_ids) for done in storyteller.generate([STORY, "The dog ran to the"], max_tokens=12)]
    assert asyncio.run(both()) == want


def test_text_is_cut_before_the_stop_string_even_inside_a_token(storyteller: PagedEngine) -> None:
    plain = storyteller.generate([STORY], max_tokens=60)[0].text
    for stop in (plain[7:10], plain[20:29], plain[3]):
        done = storyteller.generate([STORY], max_tokens=60, stop=[stop])[0]
        assert done.text == plain[: plain.index(stop)]
        assert done.finish_reason == "stop"


def test_an_end_token_ends_the_answer_and_is_not_shown(storyteller: PagedEngine) -> None:
    from dataclasses import replace

    ids = storyteller.generate([STORY], max_tokens=12)[0].token_ids
    engine = PagedEngine(replace(storyteller.loaded, end_tokens=frozenset({ids[-1]})), reuse=False, kv_bytes=32 << 20)
    done = engine.generate([STORY], max_tokens=60)[0]
    assert done.finish_reason == "stop"
    assert done.token_ids == ids[: ids.index(ids[-1]) + 1]


def test_cancel_ends_before_the_next_piece(storyteller: PagedEngine) -> None:
    stream = storyteller.stream(STORY, max_tokens=100)
    shown = [next(stream).text, next(stream).text]
    stream.cancel()
    assert list(stream) == []
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text == "".join(shown)
    assert len(stream.completion.token_ids) == 2


def test_cancelled_before_it_began_it_computes_nothing(storyteller: PagedEngine) -> None:
    stream = storyteller.stream(STORY)
    stream.cancel()
    assert stream.finish().token_ids == ()
    assert stream.completion.usage.kv_bytes == 0


def test_a_stream_left_alone_blocks_nobody_and_frees_what_it_holds(storyteller: PagedEngine) -> None:
    engine = fresh(storyteller, reuse=False)
    stream = engine.stream(STORY, max_tokens=100)
    next(stream)
    assert engine.generate([STORY], max_tokens=3)[0].finish_reason == "length"
    assert engine.pool.used > 0
    del stream
    engine.step()
    assert engine.pool.used == 0


def test_a_stream_gives_no_completion_before_its_end(storyteller: PagedEngine) -> None:
    stream = storyteller.stream(STORY, max_tokens=3)
    with pytest.raises(RuntimeError, match="not ended"):
        _ = stream.completion
    assert stream.finish().usage.generated_tokens == 3


def test_streams_of_several_threads_do_not_disturb_each_other(storyteller: PagedEngine) -> None:
    engine = fresh(storyteller)
    prompts = [STORY, STORY + " named Lily", "The dog ran to", "One day, Tom"]
    want = [engine.generate([prompt], max_tokens=25)[0].token_ids for prompt in prompts]
    got: dict[int, tuple[int, ...]] = {}

    def work(at: int) -> None:
        got[at] = tuple(piece.token_id or 0 for piece in engine.stream(prompts[at % 4], max_tokens=25))

    threads = [Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[at] for at in range(8)] == want * 2


def test_the_same_seed_writes_the_same_text_and_another_seed_another(storyteller: PagedEngine) -> None:
    def write(seed: int) -> str:
        return storyteller.generate([STORY], max_tokens=40, temperature=1.0, top_p=0.9, seed=seed)[0].text

    assert write(7) == write(7)
    assert len({write(seed) for seed in range(4)}) > 1


def test_a_prompt_that_fills_the_context_is_refused_and_one_token_less_is_not(storyteller: PagedEngine) -> None:
    with pytest.raises(PromptTooLongError, match="512"):
        storyteller.stream([5] * 512)
    done = storyteller.generate([[5] * 511], max_tokens=50)[0]
    assert len(done.token_ids) == 1
    assert done.finish_reason in ("length", "stop")


@pytest.mark.parametrize("prompt", [[512], [-1]])
def test_a_token_that_is_not_in_the_vocabulary_is_refused(storyteller: PagedEngine, prompt: list[int]) -> None:
    with pytest.raises(InputError, match="vocabulary"):
        storyteller.stream(prompt)


def test_count_is_without_special_tokens(storyteller: PagedEngine) -> None:
    ids = storyteller.encode(STORY)
    assert ids[0] == 1
    assert storyteller.tokenize(STORY) == ids[1:]
    assert storyteller.count(STORY) == len(ids) - 1
    assert storyteller.decode(ids) == STORY


def test_logits_that_are_no_numbers_are_an_error_not_an_answer(storyteller: PagedEngine, stories: Path) -> None:
    broken = Engine.load(str(stories), device="cpu", dtype="float32")
    assert isinstance(broken, PagedEngine)
    broken.loaded.model.model.embed_tokens.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        broken.generate([STORY])
    with pytest.raises(ModelError, match="not numbers"):
        broken.explore(STORY)


def test_a_model_that_was_taught_no_chat_is_given_plain_turns(storyteller: PagedEngine) -> None:
    ids = storyteller.encode([Message("system", "Be kind."), Message("user", "Hello </s> you")])
    assert storyteller.decode(ids) == "Be kind.\n\nUser: Hello < /s> you\n\nAssistant:"
    assert 2 not in ids


def test_sampling_is_checked_before_anything_is_computed(storyteller: PagedEngine) -> None:
    with pytest.raises(InputError, match="top_p"):
        storyteller.stream(STORY, top_p=2.0)


def test_stop_tokens_end_an_answer_and_end_tokens_may_be_ignored(storyteller: PagedEngine) -> None:
    from dataclasses import replace

    plain = storyteller.generate([STORY], max_tokens=12)[0].token_ids
    done = storyteller.generate([STORY], max_tokens=12, stop_token_ids=[plain[5]])[0]
    assert done.token_ids == plain[: plain.index(plain[5]) + 1]
    assert done.finish_reason == "stop"
    ending = PagedEngine(replace(storyteller.loaded, end_tokens=frozenset({plain[5]})), reuse=False, kv_bytes=32 << 20)
    assert ending.generate([STORY], max_tokens=12)[0].token_ids == done.token_ids
    assert ending.generate([STORY], max_tokens=12, ignore_eos=True)[0].token_ids == plain


def test_an_answer_does_not_end_before_its_least_tokens(storyteller: PagedEngine) -> None:
    plain = storyteller.generate([STORY], max_tokens=40)[0]
    stop = plain.text[5:8]
    done = storyteller.generate([STORY], max_tokens=40, stop=[stop, "."], min_tokens=40)[0]
    assert (done.text, done.finish_reason) == (plain.text, "length")
    first = plain.token_ids[2]
    later = storyteller.generate([STORY], max_tokens=40, stop_token_ids=[first], min_tokens=10)[0].token_ids
    assert len(later) > 10
    assert first not in later[:10]


def test_logprobs_are_those_of_the_model_for_every_token(storyteller: PagedEngine, original: Any) -> None:
    ids = storyteller.encode(STORY)
    stream = storyteller.stream(STORY, max_tokens=5, temperature=1.0, seed=2, top_k=3, logprobs=2)
    told = [entry for piece in stream for entry in piece.logprobs]
    done = stream.completion
    assert tuple(told) == done.logprobs
    for at, (token, entry) in enumerate(zip(done.token_ids, told, strict=True)):
        with torch.inference_mode():
            own = original(torch.tensor([[*ids, *done.token_ids[:at]]])).logits[0, -1].log_softmax(-1)
        assert entry.chosen.token_id == token
        assert entry.chosen.logprob == pytest.approx(own[token].item(), abs=1e-3)
        assert [x.token_id for x in entry.likeliest] == own.topk(2).indices.tolist()


def test_penalties_and_bias_change_what_is_written(storyteller: PagedEngine) -> None:
    plain = storyteller.generate([STORY], max_tokens=40)[0].token_ids
    assert plain[0] not in storyteller.generate([STORY], max_tokens=40, logit_bias={plain[0]: -100})[0].token_ids
    penalised = storyteller.generate([STORY], max_tokens=40, frequency_penalty=2.0)[0].token_ids
    assert len(set(penalised)) > len(set(plain))


def test_tokens_that_are_not_there_cannot_be_biased(storyteller: PagedEngine) -> None:
    with pytest.raises(InputError, match="vocabulary"):
        storyteller.stream(STORY, logit_bias={512: 1.0})


def test_samples_share_their_prompts_pages_and_are_as_if_alone(storyteller: PagedEngine) -> None:
    engine = fresh(storyteller)
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 1.0, "seed": 5}
    done = engine.generate([STORY], n=3, **options)[0]
    assert len(done.samples) == 3
    assert len({sample.token_ids for sample in done.samples}) == 3
    assert [sample.usage.reused_tokens for sample in done.samples][1:] == [len(engine.encode(STORY)) - 1] * 2
    pieces = list(engine.stream(STORY, n=3, **options))
    for number, sample in enumerate(done.samples):
        assert tuple(piece.token_id for piece in pieces if piece.sample == number) == sample.token_ids
    assert engine.generate([STORY], **options)[0].token_ids == done.token_ids


@pytest.mark.thorough
def test_in_a_batch_of_sixteen_every_answer_is_as_if_alone(storyteller: PagedEngine, reference: list[int]) -> None:
    engine = fresh(storyteller, reuse=False)
    others = [storyteller.encode(STORY)[:1] + [395 + at, 317, 426 + at] * (1 + at) for at in range(15)]
    want = [engine.generate([prompt], max_tokens=60)[0].token_ids for prompt in others]
    streams = [engine.stream(STORY, max_tokens=200), *[engine.stream(prompt, max_tokens=60) for prompt in others]]
    assert list(streams[0].finish().token_ids) == reference
    assert [stream.finish().token_ids for stream in streams[1:]] == want
    assert engine.pool.used == 0


@pytest.mark.thorough
def test_the_embedded_model_writes_what_transformers_writes_alone_and_in_a_batch(embedded_cache: Path) -> None:
    from longreach.model.load import load

    def loaded() -> LoadedModel:
        return load("embedded", cache=embedded_cache, device="cpu", dtype="float32")

    engine = PagedEngine(loaded(), kv_bytes=256 << 20, reuse=False)
    ids = engine.encode((Path(__file__).parent.parent.parent / "LICENSE").read_text())
    prompts = [ids[40 * at : 40 * at + 100] for at in range(16)]
    given = torch.tensor([prompts[0]])
    options = {"max_new_tokens": 200, "min_new_tokens": 200, "do_sample": False}
    written = loaded().model.generate(given, attention_mask=torch.ones_like(given), pad_token_id=0, **options)
    want = written[0, 100:].tolist()
    assert list(engine.generate([prompts[0]], max_tokens=200, ignore_eos=True)[0].token_ids) == want
    streams = [engine.stream(prompts[0], max_tokens=200, ignore_eos=True)]
    streams += [engine.stream(prompt, max_tokens=24, ignore_eos=True) for prompt in prompts[1:]]
    assert list(streams[0].finish().token_ids) == want
