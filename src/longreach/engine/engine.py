"""The interface of every engine: prompts in, tokens out, one at a time if wished, and what they cost."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING

from longreach.engine.options import takes_options
from longreach.engine.requests import Completion, Piece, Prompt, Sampling, check_prompts
from longreach.errors import UnsupportedError

if TYPE_CHECKING:
    from longreach.engine.exploration import Exploration


class Stream:
    """The pieces of one answer as they are decoded.

    Iterate over it once. `cancel()` may be called from any thread: the stream ends before its next piece. A stream that
    is left alone computes nothing and frees what it holds when it is collected.
    """

    def __init__(
        self,
        run: Callable[[Event], Generator[Piece, None, Completion]],
        on_cancel: Callable[[], None] = lambda: None,
        ready: Callable[[], bool] = lambda: False,
    ) -> None:
        # The run is given the event and not the stream: without a cycle it is freed as soon as nobody holds the stream.
        self._cancelled = Event()
        self._on_cancel = on_cancel
        self._ready = ready
        self._pieces = run(self._cancelled)
        self._completion: Completion | None = None

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        try:
            return next(self._pieces)
        except StopIteration as end:
            if end.value is not None:
                self._completion = end.value
            raise StopIteration from None

    @property
    def ready(self) -> bool:
        """Whether the next piece, or the end, is there without anything being computed, as far as that is known."""
        return self._cancelled.is_set() or self._ready()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Piece:
        piece = await asyncio.to_thread(next, self, None)
        if piece is None:
            raise StopAsyncIteration
        return piece

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel()
        if kind is None:
            self.finish()

    def cancel(self) -> None:
        """End the stream before its next piece; `completion` then says "cancelled", unless it had ended already."""
        self._cancelled.set()
        self._on_cancel()

    def finish(self) -> Completion:
        """Take all pieces that are left and give the completion."""
        for _ in self:
            pass
        return self.completion

    @property
    def completion(self) -> Completion:
        """The finished answer. RuntimeError while the stream has not ended, or where it ended in an error."""
        if self._completion is None:
            raise RuntimeError("the stream has not ended: take all of its pieces, or call finish()")
        return self._completion


class Engine(ABC):
    """A language model that answers. Safe to use from several threads."""

    model: str
    """The name it was loaded by."""
    context_length: int
    """In tokens, prompt and answer together."""
    parameters: int
    """How many weights it has; 0 where that is not known."""
    end_tokens: frozenset[int]
    """The ids that end an answer; empty where they cannot be known."""

    @staticmethod
    def load(
        name: str | None = None,
        *,
        cache: Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        kv_dtype: str | None = None,
        offline: bool | None = None,
        api_key: str | None = None,
        kv_bytes: int | None = None,
        reuse: str | None = None,
        report: Callable[[str], None] | None = None,
    ) -> Engine:
        """The engine for `embedded`, a Hugging Face id, a folder, a `.gguf` file, or a server, `http(s)://host:port`.

        What is not given comes from the settings. `kv_dtype` says how keys and values are kept, "int8" in half of 16
        bits and "int4" in a quarter (docs/kv.md); `kv_bytes` is the memory for them, of all requests together and of
        past ones kept for reuse (None: `kv_gb` of the settings, else what suits the machine); `reuse` is "auto", what
        the model's card finds faithful enough (docs/reuse.md), "off", which keeps no passages apart, or a way such as
        "adapter"; `report` is told what is being fetched. Raises ModelError, NetworkError, InputError, DiskFullError,
        UnsupportedError.
        """
        from longreach.config import load_settings

        settings = load_settings(
            model=name,
            cache=cache,
            device=device,
            dtype=dtype,
            kv_dtype=kv_dtype,
            offline=offline,
            api_key=api_key,
            reuse=reuse,
        )
        if settings.model.startswith(("http://", "https://")):
            from longreach.engine.remote import RemoteEngine

            return RemoteEngine(settings.model, api_key=settings.api_key, cache=settings.cache)
        from longreach.engine.gate import begin_reuse
        from longreach.engine.paged import PagedEngine
        from longreach.model.device import choose_kv_dtype
        from longreach.model.load import load

        loaded = load(
            settings.model,
            cache=settings.cache,
            device=settings.device,
            dtype=settings.dtype,
            offline=settings.offline,
            report=report,
        )
        # Who names a dtype wants its numbers; else what is stored in few bits is multiplied in few, and keys and values
        # are kept in as few as can be read quickly.
        plain = settings.dtype != "auto" or loaded.device.type != "cpu"
        kept = choose_kv_dtype(settings.kv_dtype, loaded.dtype, plain)
        if kv_bytes is None and settings.kv_gb is not None:
            kv_bytes = int(settings.kv_gb * 1e9)
        engine = PagedEngine(loaded, kv_bytes=kv_bytes, products="own" if plain else "auto", kv_dtype=kept)
        begin_reuse(engine, settings, report)
        return engine

    @abstractmethod
    def start(self, prompt: Prompt, sampling: Sampling) -> Stream:
        """The stream of the answer to `prompt`. Raises InputError and PromptTooLongError at once."""

    def read_ahead(self, prompt: Prompt) -> int:
        """Read the passages of a prompt (`Part`, `Message.passages`) that are not kept yet, and keep them for the
        questions to come. Returns how many tokens were read. Raises UnsupportedError where the engine keeps none."""
        raise UnsupportedError(f"{self.model} keeps no passages: nothing can be read ahead")

    @property
    def keeps_passages(self) -> bool:
        """Whether passages are read apart, and kept for other prompts."""
        return False

    def kept(self, prompt: Prompt) -> list[bool]:
        """Of each passage of a prompt, whether it was read before and is kept; empty where the engine keeps none."""
        return []

    @abstractmethod
    def count(self, text: str) -> int:
        """How many tokens `text` is, special tokens not added."""

    @abstractmethod
    def tokenize(self, text: str) -> list[int]:
        """The token ids of a piece of text, nothing added before or after it: unlike `encode`, which begins a prompt as
        the model expects. Raises UnsupportedError where they cannot be known."""

    @abstractmethod
    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that the model reads for `prompt`. Raises UnsupportedError where they cannot be known."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids` without special tokens. Raises UnsupportedError where it cannot be known."""

    def explore(self, prompt: Prompt) -> Exploration:
        """Read `prompt` once and look at the probabilities of many continuations. Raises UnsupportedError where the
        model's probabilities cannot be had."""
        raise UnsupportedError(f"{self.model} does not show its probabilities: use a model that is loaded here")

    @takes_options(Sampling)
    def stream(self, prompt: Prompt, sampling: Sampling) -> Stream:
        """The answer to `prompt`, piece by piece: see `Sampling` for the options and their errors."""
        return self.start(prompt, sampling)

    @takes_options(Sampling)
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """The answers to `prompts`, in their order: see `Sampling` for the options and their errors."""
        check_prompts(prompts)
        streams = [self.start(prompt, sampling) for prompt in prompts]
        return [stream.finish() for stream in streams]
