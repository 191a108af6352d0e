"""Who answers the questions of an example: a model that reads the context, a search, a reader with a library.

An engine of this process starts every example afresh and in its quick form, so that an answer depends on its example
alone and not on those before it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from longreach.errors import UnsupportedError
from longreach.evaluate.metrics.efficiency import Cost
from longreach.evaluate.prompt import STOPS, Form, prompt
from longreach.evaluate.tasks import Example
from longreach.types import Answer, Timing, Usage

if TYPE_CHECKING:
    from longreach.engine import Engine, Sampling, Stream
    from longreach.engine import Prompt as EnginePrompt
    from longreach.library import Library
    from longreach.reader import Reader


@dataclass(frozen=True)
class Response:
    """The answer to one question: its text, what it cost; for corpora the documents found, with their scores, those
    cited, and the passages read; `stages` are scores that only who answered can know."""

    text: str
    cost: Cost
    ranking: Mapping[str, float] = field(default_factory=dict)
    cited: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)


class Respondent(Protocol):
    """Answers examples. `columns` are its part of a configuration: names and values that tell it from others; the same
    columns give the same answers."""

    @property
    def columns(self) -> Mapping[str, str]: ...

    def respond(self, example: Example) -> list[Response]:
        """A response to each question. Raises what its parts do."""
        ...


@dataclass
class ModelRespondent:
    """A model reads the context of the example itself. `policy` is a spec of `longreach.kv.policies`; empty, everything
    is kept. The questions of an example share what of its context was read, as far as the policy lets them."""

    engine: Engine
    form: Form = "text"
    policy: str = ""

    def __post_init__(self) -> None:
        settle(self.engine)

    @property
    def columns(self) -> Mapping[str, str]:
        return {**model_columns(self.engine), "form": self.form, "policy": self._policy_in_full()}

    def respond(self, example: Example) -> list[Response]:
        from longreach.engine import Sampling

        start_afresh(self.engine)
        responses = []
        for number, question in enumerate(example.questions):
            sampling = Sampling(max_tokens=question.max_tokens, stop=STOPS if self.form == "text" else ())
            done = self._start(prompt(example, number, self.form), sampling).finish()
            responses.append(Response(done.text, _cost(done.timing, done.usage)))
        return responses

    def _policy_in_full(self) -> str:
        from longreach.kv.policies import policies
        from longreach.registry import canonical

        return canonical(policies, policies.make(self.policy)) if self.policy else "full"

    def _start(self, given: EnginePrompt, sampling: Sampling) -> Stream:
        if not self.policy:
            return self.engine.start(given, sampling)
        from longreach.engine.paged import PagedEngine

        if not isinstance(self.engine, PagedEngine):
            raise UnsupportedError(f"{self.engine.model} takes no KV policy: use a model that is loaded here")
        return self.engine.start(given, sampling, policy=self.policy)


@dataclass
class SearchRespondent:
    """A library is searched, nothing is read. `corpus` tells its documents from others."""

    library: Library
    corpus: str = ""
    retriever: str = "hybrid"
    reranker: str = "none"
    k: int = 100

    @property
    def columns(self) -> Mapping[str, str]:
        stats = self.library.stats()
        return {
            "retriever": self.retriever,
            "reranker": self.reranker,
            "k": str(self.k),
            "chunker": stats.chunker,
            "encoder": stats.encoder,
            "corpus": self.corpus,
        }

    def respond(self, example: Example) -> list[Response]:
        responses = []
        for question in example.questions:
            began = time.perf_counter()
            hits = self.library.search(question.text, self.k, retriever=self.retriever, reranker=self.reranker)
            seconds = time.perf_counter() - began
            ranking: dict[str, float] = {}
            for hit in hits:  # the best chunk of a document stands for it
                ranking.setdefault(hit.document.id, hit.score)
            responses.append(Response("", Cost(seconds, seconds, 0, 0), ranking))
        return responses


@dataclass
class ReaderRespondent:
    """A reader searches its library, reads what it found, answers and cites. `settings` are the columns that tell how:
    what the reader was made with."""

    reader: Reader
    settings: Mapping[str, str]

    def __post_init__(self) -> None:
        settle(self.reader.engine)

    @property
    def columns(self) -> Mapping[str, str]:
        stats = self.reader.library.stats()
        parts = {"chunker": stats.chunker, "encoder": stats.encoder}
        return {**model_columns(self.reader.engine), **reuse_column(self.reader.engine), **parts, **self.settings}

    def respond(self, example: Example) -> list[Response]:
        start_afresh(self.reader.engine)
        return [response_of(self.reader.ask(question.text)) for question in example.questions]


def response_of(answer: Answer) -> Response:
    """What a reader's answer says, as it is scored."""
    ranking: dict[str, float] = {}
    for passage in sorted(answer.passages, key=lambda passage: -passage.hit.score):
        ranking.setdefault(passage.hit.document.id, passage.hit.score)
    cited = tuple(dict.fromkeys(citation.document for citation in answer.citations))
    read = tuple(passage.text for passage in answer.passages)
    return Response(answer.text, _cost(answer.timing, answer.usage), ranking, cited, read)


def settle(engine: Engine) -> None:
    """Let an engine of this process do now what it else does after a while."""
    from longreach.engine.paged import PagedEngine

    if isinstance(engine, PagedEngine):
        engine.quicken()


def start_afresh(engine: Engine) -> None:
    """Let an engine of this process forget what it read before. What a server keeps is its own affair."""
    from longreach.engine.paged import PagedEngine

    if isinstance(engine, PagedEngine):
        engine.forget()


def model_columns(engine: Engine) -> dict[str, str]:
    """The model by its name, and what its weights, numbers and machine are where it runs here; how keys and values are
    kept where somebody chose that."""
    from longreach.engine.paged import PagedEngine
    from longreach.kv.coding import name_of
    from longreach.model.device import choose_kv_dtype

    columns = {"model": engine.model}
    if isinstance(engine, PagedEngine):
        loaded = engine.loaded
        columns |= {
            "fingerprint": loaded.fingerprint,
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "device": str(loaded.device),
            "products": engine.products,
        }
        kept = engine.pool.keys.dtype
        if kept != choose_kv_dtype("auto", loaded.dtype, plain=engine.products == "own"):
            columns["kv_dtype"] = name_of(kept)
    return columns


def reuse_column(engine: Engine) -> dict[str, str]:
    """How the model reuses passages, where it runs here: readers' answers depend on it."""
    from longreach.engine.paged import PagedEngine

    return {"reuse": engine.way} if isinstance(engine, PagedEngine) else {}


def _cost(timing: Timing, usage: Usage) -> Cost:
    return Cost(
        ttft=timing.ttft,
        total=timing.total,
        prompt_tokens=usage.prompt_tokens,
        generated_tokens=usage.generated_tokens,
        reused_tokens=usage.reused_tokens,
        kv_bytes=usage.kv_bytes,
    )
