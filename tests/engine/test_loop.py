from __future__ import annotations

import weakref
from pathlib import Path
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longreach.engine import Engine, Message
from longreach.engine.kv import BufferLayer, Kept, PastPrompts, bytes_of, common
from longreach.engine.loop import LoopEngine
from longreach.errors import InputError, ModelError, PromptTooLongError, UnsupportedError

STORY = "Once upon a time, there was a little girl"
tokens = st.lists(st.integers(3, 511), min_size=1, max_size=40)


def fresh(engine: LoopEngine, reuse_bytes: int = 512 << 20) -> LoopEngine:
    return LoopEngine(engine.loaded, reuse_bytes=reuse_bytes)


def alone(engine: LoopEngine, ids: list[int]) -> torch.Tensor:
    """Logits [vocab] after `ids`, by transformers without a cache."""
    with torch.inference_mode():
        logits: torch.Tensor = engine.loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits


@pytest.fixture(scope="module")
def reference(storyteller: LoopEngine) -> list[int]:
    """What transformers' own loop writes."""
    ids = torch.tensor([storyteller.encode(STORY)])
    options = {"max_new_tokens": 200, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    out = storyteller.loaded.model.generate(ids, **options)
    return list(out[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("before", [None, STORY, STORY + " who liked the rain", "Once upon a day"])
def test_greedy_is_what_transformers_writes_whatever_is_reused(
    storyteller: LoopEngine, reference: list[int], before: str | None
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


@settings(max_examples=25, deadline=None)
@given(st.lists(tokens, min_size=2, max_size=4), tokens)
def test_reuse_never_changes_the_logits(storyteller: LoopEngine, pasts: list[list[int]], start: list[int]) -> None:
    engine = fresh(storyteller)
    for past in pasts:
        ids = start + past
        _, reused, logits = engine._read(ids)
        assert reused < len(ids)
        assert torch.allclose(logits, alone(engine, ids), atol=1e-4)
    assert reused >= len(start) or len(start + past) == reused + 1


def test_a_conversation_reuses_its_past_answers(storyteller: LoopEngine) -> None:
    engine = fresh(storyteller)
    ids = engine.encode(STORY)
    done = engine.generate([ids], max_tokens=10)[0]
    longer = [*ids, *done.token_ids, 400, 401]
    again = engine.generate([longer], max_tokens=3)[0]
    assert again.usage.reused_tokens == len(ids) + 9  # the last token of the answer was chosen but never read


def test_without_room_nothing_is_kept(storyteller: LoopEngine) -> None:
    engine = fresh(storyteller, reuse_bytes=0)
    first, second = engine.generate([STORY, STORY], max_tokens=5)
    assert second.usage.reused_tokens == 0
    assert first.token_ids == second.token_ids
    assert engine._past.bytes == 0


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=12), st.integers(0, 20_000))
def test_past_prompts_stay_within_their_bytes_and_find_the_longest(prompts: list[list[int]], limit: int) -> None:
    from transformers.cache_utils import Cache

    past = PastPrompts(limit)
    for prompt in prompts:
        layer = BufferLayer(len(prompt))
        layer.update(torch.zeros(1, 2, len(prompt), 4), torch.zeros(1, 2, len(prompt), 4))
        past.put(Kept(prompt, Cache(layers=[layer])))
        assert past.bytes <= limit
        assert past.bytes == sum(2 * 2 * 4 * 4 * len(kept.tokens) for kept in past._kept)
    for prompt in prompts:
        found = past.longest(prompt)
        assert (found[1] if found else 0) == max((common(kept.tokens, prompt) for kept in past._kept), default=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 8))
def test_a_buffer_holds_what_was_appended_and_a_fork_its_start(lengths: list[int], capacity: int) -> None:
    layer = BufferLayer(capacity)
    parts = [torch.randn(2, 1, 2, n, 3) for n in lengths]
    for part in parts:
        keys, values = layer.update(part[0], part[1])
    whole = torch.cat(parts, dim=3)
    assert torch.equal(keys, whole[0])
    assert torch.equal(values, whole[1])
    twin = layer.fork(sum(lengths) // 2 or 1, 4)
    twin.update(parts[0][0] + 1, parts[0][1] + 1)
    assert torch.equal(twin.keys[:, :, : sum(lengths) // 2 or 1], whole[0][:, :, : sum(lengths) // 2 or 1])
    assert torch.equal(layer.keys, whole[0])


def test_a_stream_says_what_generate_says(storyteller: LoopEngine) -> None:
    done = storyteller.generate([STORY], max_tokens=30, stop=["."])[0]
    stream = storyteller.stream(STORY, max_tokens=30, stop=["."])
    pieces = list(stream)
    assert "".join(piece.text for piece in pieces) == done.text == stream.completion.text
    assert tuple(piece.token_id for piece in pieces) == stream.completion.token_ids == done.token_ids
    assert done.finish_reason == "stop"
    assert "." not in done.text


def test_text_is_cut_before_the_stop_string_even_inside_a_token(storyteller: LoopEngine) -> None:
    plain = storyteller.generate([STORY], max_tokens=60)[0].text
    for stop in (plain[7:10], plain[20:29], plain[3]):
        done = storyteller.generate([STORY], max_tokens=60, stop=[stop])[0]
        assert done.text == plain[: plain.index(stop)]
        assert done.finish_reason == "stop"


def test_an_end_token_ends_the_answer_and_is_not_shown(storyteller: LoopEngine) -> None:
    from dataclasses import replace

    ids = storyteller.generate([STORY], max_tokens=12)[0].token_ids
    engine = LoopEngine(replace(storyteller.loaded, end_tokens=frozenset({ids[-1]})), reuse_bytes=0)
    done = engine.generate([STORY], max_tokens=60)[0]
    assert done.finish_reason == "stop"
    assert done.token_ids == ids[: ids.index(ids[-1]) + 1]


def test_cancel_ends_before_the_next_piece(storyteller: LoopEngine) -> None:
    stream = storyteller.stream(STORY, max_tokens=100)
    shown = [next(stream).text, next(stream).text]
    stream.cancel()
    assert list(stream) == []
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text == "".join(shown)
    assert len(stream.completion.token_ids) == 2


def test_cancelled_before_it_began_it_computes_nothing(storyteller: LoopEngine) -> None:
    stream = storyteller.stream(STORY)
    stream.cancel()
    assert stream.finish().token_ids == ()
    assert stream.completion.usage.kv_bytes == 0


def test_a_stream_left_alone_blocks_nobody_and_frees_what_it_holds(storyteller: LoopEngine) -> None:
    engine = fresh(storyteller, reuse_bytes=0)
    stream = engine.stream(STORY, max_tokens=100)
    next(stream)
    assert engine.generate([STORY], max_tokens=3)[0].finish_reason == "length"
    held = weakref.ref(stream._pieces.gi_frame.f_locals["kept"].cache.layers[0])
    assert held() is not None
    del stream
    assert held() is None


def test_a_stream_gives_no_completion_before_its_end(storyteller: LoopEngine) -> None:
    stream = storyteller.stream(STORY, max_tokens=3)
    with pytest.raises(RuntimeError, match="not ended"):
        _ = stream.completion
    assert stream.finish().usage.generated_tokens == 3


def test_streams_of_several_threads_do_not_disturb_each_other(storyteller: LoopEngine) -> None:
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


def test_the_same_seed_writes_the_same_text_and_another_seed_another(storyteller: LoopEngine) -> None:
    def write(seed: int) -> str:
        return storyteller.generate([STORY], max_tokens=40, temperature=1.0, top_p=0.9, seed=seed)[0].text

    assert write(7) == write(7)
    assert len({write(seed) for seed in range(4)}) > 1


def test_a_prompt_that_fills_the_context_is_refused_and_one_token_less_is_not(storyteller: LoopEngine) -> None:
    with pytest.raises(PromptTooLongError, match="512"):
        storyteller.stream([5] * 512)
    done = storyteller.generate([[5] * 511], max_tokens=50)[0]
    assert len(done.token_ids) == 1
    assert done.finish_reason in ("length", "stop")


@pytest.mark.parametrize("prompt", [[512], [-1]])
def test_a_token_that_is_not_in_the_vocabulary_is_refused(storyteller: LoopEngine, prompt: list[int]) -> None:
    with pytest.raises(InputError, match="vocabulary"):
        storyteller.stream(prompt)


def test_count_is_without_special_tokens(storyteller: LoopEngine) -> None:
    ids = storyteller.encode(STORY)
    assert ids[0] == 1
    assert storyteller.tokenize(STORY) == ids[1:]
    assert storyteller.count(STORY) == len(ids) - 1
    assert storyteller.decode(ids) == STORY


def test_logits_that_are_no_numbers_are_an_error_not_an_answer(storyteller: LoopEngine, stories: Path) -> None:
    broken = Engine.load(str(stories), device="cpu", dtype="float32")
    assert isinstance(broken, LoopEngine)
    broken.loaded.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        broken.generate([STORY])
    with pytest.raises(ModelError, match="not numbers"):
        broken.explore(STORY)


def test_a_model_that_was_taught_no_chat_is_given_plain_turns(storyteller: LoopEngine) -> None:
    ids = storyteller.encode([Message("system", "Be kind."), Message("user", "Hello </s> you")])
    assert storyteller.decode(ids) == "Be kind.\n\nUser: Hello < /s> you\n\nAssistant:"
    assert 2 not in ids


def test_bytes_of_a_cache_are_those_of_its_buffers(storyteller: LoopEngine) -> None:
    engine = fresh(storyteller)
    kept, _, _ = engine._read(engine.encode(STORY))
    one_token = 5 * 2 * 4 * 8 * 4  # layers, keys and values, heads, head_dim, float32
    assert bytes_of(kept.cache) % one_token == 0
    assert bytes_of(kept.cache) >= one_token * len(kept.tokens)


def test_sampling_is_checked_before_anything_is_computed(storyteller: LoopEngine) -> None:
    with pytest.raises(InputError, match="top_p"):
        storyteller.stream(STORY, top_p=2.0)


def test_stop_tokens_end_an_answer_and_end_tokens_may_be_ignored(storyteller: LoopEngine) -> None:
    from dataclasses import replace

    plain = storyteller.generate([STORY], max_tokens=12)[0].token_ids
    done = storyteller.generate([STORY], max_tokens=12, stop_token_ids=[plain[5]])[0]
    assert done.token_ids == plain[: plain.index(plain[5]) + 1]
    assert done.finish_reason == "stop"
    ending = LoopEngine(replace(storyteller.loaded, end_tokens=frozenset({plain[5]})), reuse_bytes=0)
    assert ending.generate([STORY], max_tokens=12)[0].token_ids == done.token_ids
    assert ending.generate([STORY], max_tokens=12, ignore_eos=True)[0].token_ids == plain


def test_an_answer_does_not_end_before_its_least_tokens(storyteller: LoopEngine) -> None:
    plain = storyteller.generate([STORY], max_tokens=40)[0]
    stop = plain.text[5:8]
    done = storyteller.generate([STORY], max_tokens=40, stop=[stop, "."], min_tokens=40)[0]
    assert (done.text, done.finish_reason) == (plain.text, "length")
    first = plain.token_ids[2]
    later = storyteller.generate([STORY], max_tokens=40, stop_token_ids=[first], min_tokens=10)[0].token_ids
    assert len(later) > 10
    assert first not in later[:10]


def test_logprobs_are_those_of_the_model_for_every_token(storyteller: LoopEngine) -> None:
    ids = storyteller.encode(STORY)
    stream = storyteller.stream(STORY, max_tokens=5, temperature=1.0, seed=2, top_k=3, logprobs=2)
    told = [entry for piece in stream for entry in piece.logprobs]
    done = stream.completion
    assert tuple(told) == done.logprobs
    for at, (token, entry) in enumerate(zip(done.token_ids, told, strict=True)):
        own = alone(storyteller, [*ids, *done.token_ids[:at]]).log_softmax(-1)
        assert entry.chosen.token_id == token
        assert entry.chosen.logprob == pytest.approx(own[token].item(), abs=1e-3)
        assert [x.token_id for x in entry.likeliest] == own.topk(2).indices.tolist()


def test_penalties_and_bias_change_what_is_written(storyteller: LoopEngine) -> None:
    plain = storyteller.generate([STORY], max_tokens=40)[0].token_ids
    assert plain[0] not in storyteller.generate([STORY], max_tokens=40, logit_bias={plain[0]: -100})[0].token_ids
    penalised = storyteller.generate([STORY], max_tokens=40, frequency_penalty=2.0)[0].token_ids
    assert len(set(penalised)) > len(set(plain))


def test_what_the_loop_cannot_do_is_said_at_once(storyteller: LoopEngine) -> None:
    with pytest.raises(UnsupportedError, match="n=2"):
        storyteller.stream(STORY, n=2)
    with pytest.raises(InputError, match="vocabulary"):
        storyteller.stream(STORY, logit_bias={512: 1.0})
