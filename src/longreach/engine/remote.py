"""A model behind a server that speaks OpenAI's protocol: vLLM, llama.cpp, SGLang, Ollama, LM Studio and many more."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urldefrag, urlsplit

from longreach.engine.engine import Engine, Stream
from longreach.engine.remote_options import server_options
from longreach.engine.remote_sample import RemoteSample
from longreach.engine.requests import Completion, Message, Piece, Prompt, Sampling, check_prompt
from longreach.errors import InputError, ModelError, NetworkError, PromptTooLongError, UnsupportedError
from longreach.model import embedded
from longreach.types import Usage

DEFAULT_CONTEXT = 8192
"""Tokens, where the server does not tell."""


class RemoteEngine(Engine):
    """Asks a server. `url` is `http(s)://host:port`, with or without `/v1`; `#name` chooses among its models.

    Messages go to `/v1/chat/completions`, texts to `/v1/completions`. Raises NetworkError where nobody answers,
    ModelError where the answer is an error.
    """

    def __init__(self, url: str, *, api_key: str = "", cache: Path | None = None) -> None:
        from openai import OpenAI

        address, wanted = urldefrag(url)
        if not urlsplit(address).netloc:
            raise InputError(f"{url} is no address: write http://host:port, with #name to choose a model")
        base = address.rstrip("/")
        self._base = base if base.endswith("/v1") else f"{base}/v1"
        self._cache = cache
        # Without a key of ours the client would send the one it finds in the environment, to whatever host this is.
        self._client = OpenAI(base_url=self._base, api_key=api_key or "none", max_retries=1, timeout=600.0)
        self.model = url
        self.parameters = 0
        self.end_tokens = frozenset()
        self._name, self.context_length = self._choose(wanted)

    def count(self, text: str) -> int:
        """Counted by the embedded model's tokenizer where it is in the cache, else a quarter of the characters: an
        estimate either way, since the server's tokenizer is not known."""
        tokenizer = self._tokenizer
        return len(tokenizer.encode(text, add_special_tokens=False).ids) if tokenizer else -(-len(text) // 4)

    def tokenize(self, text: str) -> list[int]:
        raise UnsupportedError(f"{self.model} does not show its tokens: use a model that is loaded here")

    def encode(self, prompt: Prompt) -> list[int]:
        raise UnsupportedError(f"{self.model} does not show its tokens: use a model that is loaded here")

    def decode(self, token_ids: Sequence[int]) -> str:
        raise UnsupportedError(f"{self.model} does not show its tokens: use a model that is loaded here")

    def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
        check_prompt(prompt)
        if not isinstance(prompt, str) and not isinstance(prompt[0], Message):
            raise UnsupportedError(f"{self.model} takes text and messages, no token ids")
        began = time.perf_counter()
        return Stream(lambda cancelled: self._run(prompt, sampling, cancelled, began))

    def _run(
        self, prompt: Prompt, sampling: Sampling, cancelled: Event, began: float
    ) -> Generator[Piece, None, Completion]:
        samples = [RemoteSample(at, sampling, began) for at in range(sampling.n)]
        told = None
        if not cancelled.is_set():
            with self._errors(), self._ask(prompt, sampling) as answer, self._errors(self._broken):
                for event in answer:
                    if event.usage:
                        told = event.usage
                    for choice in event.choices:
                        if choice.index < len(samples):
                            yield from samples[choice.index].take(choice)
                    ended = all(sample.reason != "cancelled" for sample in samples)
                    if ended and any(sample.visible.stopped for sample in samples):
                        break
                    if cancelled.is_set() and not ended:
                        break
                else:
                    self._check_whole(samples)
        for sample in samples:
            yield from sample.rest()
        first, *others = (
            sample.completion(self._usage(told, prompt, sample.pieces, len(samples))) for sample in samples
        )
        return replace(first, others=tuple(others))

    def _check_whole(self, samples: Sequence[RemoteSample]) -> None:
        """Raises where the server has said all that it says, and that is not what was asked for."""
        ended = [sample for sample in samples if sample.reason != "cancelled"]
        silent = [sample for sample in samples if sample.reason == "cancelled" and not sample.pieces]
        if ended and silent and len(ended) + len(silent) == len(samples):
            raise UnsupportedError(f"the server at {self._base} gave {len(ended)} of n={len(samples)} answers: set n=1")
        # The end of the stream without a reason is a server that broke off, told from a finished answer.
        if len(ended) < len(samples):
            raise NetworkError(self._broken)

    @contextmanager
    def _ask(self, prompt: Prompt, sampling: Sampling) -> Iterator[Iterator[Any]]:
        options = {"model": self._name, **server_options(sampling, chat=not isinstance(prompt, str))}
        ask: Callable[..., Any]
        if isinstance(prompt, str):
            ask = self._client.completions.create
            options["prompt"] = prompt
        else:
            ask = self._client.chat.completions.create
            options["messages"] = [{"role": m.role, "content": m.content} for m in prompt if isinstance(m, Message)]
        answer = ask(**options)
        try:
            yield answer
        finally:
            answer.close()

    def _choose(self, wanted: str) -> tuple[str, int]:
        """The model's name at the server and its context length."""
        from openai import NotFoundError

        models: list[Any] = []
        with self._errors():
            try:
                models = list(self._client.models.list())
            except NotFoundError:
                if not wanted:
                    raise
        if not models and not wanted:
            raise ModelError(f"the server at {self._base} has no model")
        if not wanted:
            return models[0].id, _context_of(models[0])
        found = next((model for model in models if model.id == wanted), None)
        if models and found is None:
            known = ", ".join(model.id for model in models[:8])
            raise ModelError(f"the server at {self._base} has no model {wanted!r}; it has: {known}")
        return wanted, _context_of(found)

    def _usage(self, told: Any, prompt: Prompt, pieces: int, samples: int) -> Usage:
        if told is None:
            parts = [prompt] if isinstance(prompt, str) else [m.content for m in prompt if isinstance(m, Message)]
            return Usage(prompt_tokens=sum(map(self.count, parts)), generated_tokens=pieces)
        details = getattr(told, "prompt_tokens_details", None)
        return Usage(
            prompt_tokens=told.prompt_tokens or 0,
            reused_tokens=(details.cached_tokens or 0) if details else 0,
            # The server counts all answers together.
            generated_tokens=(told.completion_tokens or 0) if samples == 1 else pieces,
        )

    @cached_property
    def _tokenizer(self) -> Any:
        file = embedded.folder(self._cache) / "tokenizer.json" if self._cache else None
        if file is None or not file.is_file():
            return None
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(file))

    @contextmanager
    def _errors(self, silence: str = "") -> Iterator[None]:
        """The client's errors as ours, in one sentence; `silence` is what it means when nobody answers."""
        import openai

        try:
            yield
        except openai.APITimeoutError:
            raise NetworkError(f"the server at {self._base} does not answer in time") from None
        except openai.APIConnectionError:
            raise NetworkError(
                silence or f"no server answers at {self._base}: start it, or correct the address"
            ) from None
        except openai.APIStatusError as error:
            raise self._refusal(error.status_code, _reason(error), error.code) from None
        except openai.OpenAIError as error:
            raise ModelError(f"the server at {self._base} answers what cannot be read: {error}") from None
        except ValueError as error:  # not JSON
            raise ModelError(f"the server at {self._base} answers what cannot be read: {error}") from None
        except Exception as error:
            # While an answer streams, a broken connection may come as the HTTP library's own error.
            if not type(error).__module__.startswith(("httpx", "httpcore")):
                raise
            raise NetworkError(self._broken) from None

    def _refusal(self, status: int, reason: str, code: str | None) -> ModelError | PromptTooLongError:
        if code == "context_length_exceeded":
            return PromptTooLongError(f"the prompt is too long for {self._name}: {reason}")
        meaning = {
            401: "does not accept the API key: set LONGREACH_API_KEY",
            403: "does not accept the API key: set LONGREACH_API_KEY",
            404: f"knows no such address or model: check the URL and #name (it was asked for {self._asked})",
            429: "has too much to do: try again later",
        }
        said = meaning.get(status, "refuses the request" if status < 500 else "has failed")
        return ModelError(f"the server at {self._base} {said} (status {status}{f': {reason}' if reason else ''})")

    @property
    def _broken(self) -> str:
        return f"the server at {self._base} broke off in the middle of its answer"

    @property
    def _asked(self) -> str:
        return getattr(self, "_name", "its models")


def _context_of(model: Any) -> int:
    """What a server tells of its context: vLLM and SGLang in `max_model_len`, others under other names."""
    told = (model.model_extra or {}) if model is not None else {}
    meta = told["meta"] if isinstance(told.get("meta"), dict) else {}
    for found in (told.get("max_model_len"), told.get("context_length"), told.get("context_window"), meta.get("n_ctx")):
        if isinstance(found, int) and found > 0:
            return found
    return DEFAULT_CONTEXT


def _reason(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or "").strip().rstrip(".")
