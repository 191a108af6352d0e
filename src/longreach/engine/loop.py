"""The plain engine: transformers' model code, one token after another, on a cache that reuses past prompts.

Imported only where a model runs.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from threading import Event, RLock
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache

from longreach.engine.chat import encode_chat
from longreach.engine.engine import Engine, Stream
from longreach.engine.exploration import Exploration
from longreach.engine.kv import BufferLayer, Kept, PastPrompts, bytes_of, only_full_attention
from longreach.engine.requests import (
    Completion,
    FinishReason,
    Message,
    Piece,
    Prompt,
    Sampling,
    TokenLogprobs,
    check_prompt,
)
from longreach.engine.sampling import Draw, Source, sample
from longreach.engine.visible import Visible
from longreach.errors import InputError, ModelError, PromptTooLongError, UnsupportedError
from longreach.model.load import LoadedModel
from longreach.types import Timing, Usage

_ROOM = 256  # entries made ready beyond the prompt before the buffers must grow


class LoopEngine(Engine):
    """Answers with a model in this process. The lock is held for one forward at a time, so several streams take turns
    and one that was left alone blocks nobody."""

    def __init__(self, loaded: LoadedModel, *, reuse_bytes: int) -> None:
        self.loaded = loaded
        self.model = loaded.name
        self.context_length = loaded.context_length
        self.parameters = sum(weight.numel() for weight in loaded.model.parameters())
        self.end_tokens = loaded.end_tokens
        self._lock = RLock()
        self._past = PastPrompts(reuse_bytes)
        self._full_attention = only_full_attention(loaded.model.config)
        self._layers = len(DynamicCache(config=loaded.model.config).layers)

    def count(self, text: str) -> int:
        return len(self.tokenize(text))

    def tokenize(self, text: str) -> list[int]:
        return list(self.loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, prompt: Prompt) -> list[int]:
        check_prompt(prompt)
        if isinstance(prompt, str):
            ids = list(self.loaded.tokenizer(prompt)["input_ids"])
        elif isinstance(prompt[0], Message):
            ids = encode_chat(self.loaded.tokenizer, [part for part in prompt if isinstance(part, Message)])
        else:
            ids = [part for part in prompt if isinstance(part, int)]
            size = self.loaded.model.get_input_embeddings().num_embeddings
            wrong = next((at for at in ids if not 0 <= at < size), None)
            if wrong is not None:
                raise InputError(f"there is no token {wrong}: the vocabulary has {size}")
        if not ids:
            raise InputError("the prompt is empty")
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(self.loaded.tokenizer.decode(list(token_ids), **options))

    def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
        began = time.perf_counter()
        if sampling.n > 1:
            raise UnsupportedError(f"n={sampling.n}: this engine writes one answer to a prompt at a time")
        ids = self._fitting(prompt)
        sampling.check_vocabulary(self.loaded.model.get_input_embeddings().num_embeddings)
        return Stream(lambda cancelled: self._run(ids, sampling, cancelled, began))

    def explore(self, prompt: Prompt) -> Exploration:
        if not self._full_attention:
            raise UnsupportedError(f"{self.model} has layers that do not see all of the text: it cannot be explored")
        ids = self._fitting(prompt)
        kept, reused, logits = self._read(ids)
        self._choose(logits, Draw(Source(Sampling())))  # raises where the model computed no numbers
        return Exploration(self, kept.cache, len(ids), reused, torch.log_softmax(logits, dim=-1))

    def forward_tree(
        self, cache: Any, tokens: Sequence[int], positions: Sequence[int], sees: torch.Tensor
    ) -> torch.Tensor:
        """Logits [new, vocab] of tree nodes that are appended to `cache`; `sees` [new, nodes] says which nodes, old and
        new, each of them attends to beside the whole prompt."""
        device, dtype = self.loaded.device, self.loaded.dtype
        with self._lock, torch.inference_mode():
            prompt = cache.get_seq_length() + len(tokens) - sees.shape[1]
            mask = torch.zeros((1, 1, len(tokens), prompt + sees.shape[1]), dtype=dtype)
            mask[0, 0, :, prompt:].masked_fill_(~sees, float("-inf"))
            place = torch.tensor([list(positions)], device=device)
            return self._forward(cache, tokens, position_ids=place, attention_mask=mask.to(device))

    def _fitting(self, prompt: Prompt) -> list[int]:
        ids = self.encode(prompt)
        if len(ids) + 1 > self.context_length:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens, and {self.model} reads {self.context_length} with "
                "the answer: shorten it"
            )
        return ids

    def _run(
        self, ids: list[int], sampling: Sampling, cancelled: Event, began: float
    ) -> Generator[Piece, None, Completion]:
        visible = Visible(sampling.stop)
        out: list[int] = []
        logprobs: list[TokenLogprobs] = []
        reason: FinishReason = "cancelled"
        ttft, reused, held = 0.0, 0, 0
        if not cancelled.is_set():
            limit = min(sampling.max_tokens, self.context_length - len(ids))
            ends = sampling.ends(self.loaded.end_tokens)
            source = Source(sampling, ids, ends)
            kept, reused, logits = self._read(ids)
            while True:
                token, its_logprobs = self._choose(logits, Draw(source, out))
                out.append(token)
                logprobs += its_logprobs
                ttft = ttft or time.perf_counter() - began
                ended = token in ends
                final = ended or len(out) == limit
                show = visible.pass_over if len(out) <= sampling.min_tokens else visible.update
                yield Piece(show(self.decode(out), final=final), token, logprobs=its_logprobs)
                if ended or visible.stopped:
                    reason = "stop"
                    break
                if final:
                    reason = "length"
                    break
                if cancelled.is_set():
                    break
                logits = self._step(kept, token)
            held = bytes_of(kept.cache)
        timing = Timing(ttft=ttft, total=time.perf_counter() - began)
        usage = Usage(prompt_tokens=len(ids), reused_tokens=reused, generated_tokens=len(out), kv_bytes=held)
        return Completion(visible.text, tuple(out), reason, timing, usage, tuple(logprobs))

    def _choose(self, logits: torch.Tensor, draw: Draw) -> tuple[int, Sequence[TokenLogprobs]]:
        """A token for `logits` [vocab], with its log-probabilities where they were asked for."""
        sampled = sample(logits[None], [draw])
        (token,), (logprobs,) = sampled.tokens, sampled.logprobs
        if token is None:
            raise ModelError("the model computed values that are not numbers: try dtype float32 or another model")
        return token, (logprobs,) if logprobs else ()

    def _read(self, ids: list[int]) -> tuple[Kept, int, torch.Tensor]:
        """Prefill: a cache with the KV of `ids`, how many were reused, and the logits [vocab] after the last."""
        with self._lock, torch.inference_mode():
            # The last token is always computed, since its logits are wanted and only KV is kept.
            found = self._past.longest(ids[:-1]) if self._full_attention else None
            if found:
                past, reused = found
                cache = past.fork(reused, len(ids) + _ROOM)
            else:
                reused = 0
                cache = self._fresh(len(ids) + _ROOM)
            logits = self._forward(cache, ids[reused:], logits_to_keep=1)[0]
            kept = Kept(list(ids), cache)
            if self._full_attention:
                self._past.put(kept)
            return kept, reused, logits

    def _step(self, kept: Kept, token: int) -> torch.Tensor:
        """Decode: append `token` and give the logits [vocab] after it."""
        with self._lock, torch.inference_mode():
            logits = self._forward(kept.cache, [token])[0]
            kept.tokens.append(token)
            self._past.trim()
            return logits

    def _fresh(self, capacity: int) -> Cache:
        if self._full_attention:
            return Cache(layers=[BufferLayer(capacity) for _ in range(self._layers)])
        return DynamicCache(config=self.loaded.model.config)

    def _forward(self, cache: Cache, tokens: Sequence[int], **options: Any) -> torch.Tensor:
        """Logits [computed, vocab] in float32."""
        ids = torch.tensor([list(tokens)], device=self.loaded.device)
        try:
            done = self.loaded.model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
        except torch.OutOfMemoryError:
            raise ModelError(
                f"no memory left on {self.loaded.device} to read {len(tokens)} tokens: shorten the prompt, "
                "use a smaller model or another device"
            ) from None
        logits: torch.Tensor = done.logits[0]
        return logits.float()
