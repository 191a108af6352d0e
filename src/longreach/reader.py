"""The reader: question -> answer. Search, choose, order, assemble, answer, cite; each step is another room's work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from longreach.answer import Draft, Quote, answerers
from longreach.config import READER, Settings
from longreach.context.choose import choosers
from longreach.context.order import orders
from longreach.context.prefer import prefer_kept
from longreach.context.relevance import relevant
from longreach.engine import Engine, Prompt
from longreach.errors import InputError, PromptTooLongError
from longreach.library import Library
from longreach.library.filters import Under, Where
from longreach.plan import suited
from longreach.search import search
from longreach.types import Answer, Budget, Citation, Document, DocumentInfo, Hit, Passage, Timing, Usage

NOT_TOLD = "The documents do not tell."
"""The answer where the passages hold no support for one."""
NEAREST = 3
"""How many of the best hits an answer names beside what was read."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the model is about to read: the passages in the order of the prompt, and the seconds that finding them
    took."""

    passages: Sequence[Passage]
    seconds: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """Of `document`, `chunks` more are kept now; `tokens` had to be read for that."""

    document: DocumentInfo
    chunks: int
    tokens: int


AT_ONCE = 8
"""Chunks that are read ahead together."""

Event: TypeAlias = Found | str | Answer
"""What `Reader.stream` yields: once `Found`, then pieces of text, last the whole `Answer`."""


class Reader:
    """Answers questions from a library with a model. The other arguments are spec strings and sizes:

    `retriever`, `reranker`, `chooser`, `order` and `answer` name methods of their families, "auto" what suits the model
    (`longreach.plan`); `k` hits are searched for; one that is less relevant to the question than
    `least_relevance` is not read (`longreach.context.relevance`; 0.4 suits the embedded encoder, -1 reads all);
    `prompt_tokens` bounds the prompt, and the model's context does where it is smaller.
    """

    def __init__(
        self,
        library: Library,
        engine: Engine,
        *,
        retriever: str = "hybrid",
        reranker: str = "none",
        chooser: str = "auto",
        order: str = "ends",
        answer: str = "auto",
        k: int = 16,
        prompt_tokens: int = 2048,
        least_relevance: float = 0.4,
    ) -> None:
        self.library = library
        self.engine = engine
        self.retriever = retriever
        self.reranker = reranker
        self.k = k
        self.prompt_tokens = prompt_tokens
        self.least_relevance = least_relevance
        plan = suited(engine)
        self.chooser = choosers.make(plan.chooser if chooser == "auto" else chooser)
        self.order = orders.make(order)
        self.answerer = answerers.make(plan.answer if answer == "auto" else answer)

    @classmethod
    def configured(cls, library: Library, engine: Engine, settings: Settings, **chosen: Any) -> Reader:
        """A reader with the methods and sizes of the settings, where `chosen` does not name others."""
        options = {name: getattr(settings, name) for name in READER}
        return cls(library, engine, **options | {name: value for name, value in chosen.items() if value is not None})

    def ask(
        self, question: str, *, where: Where | None = None, under: Under = None, query: str | None = None
    ) -> Answer:
        """The answer to `question`. `where` filters documents by metadata, `under` by their source. `query` is what to
        search for where the question does not say it all (`longreach.search.follow`).

        Raises InputError for an empty question, PromptTooLongError where the question alone does not fit.
        """
        for event in self.stream(question, where=where, under=under, query=query):
            if isinstance(event, Answer):
                return event
        raise AssertionError("a stream ends with its answer")

    def stream(
        self, question: str, *, where: Where | None = None, under: Under = None, query: str | None = None
    ) -> Iterator[Event]:
        """The answer as it comes about: see `Event`. Left alone, it computes nothing more. The text of the pieces is
        the model's own; the last event's is what of it the passages support. Raises as `ask` does."""
        question = question.strip()
        if not question:
            raise InputError("the question is empty: ask something")
        budget = self._budget(question)
        return self._events(question, query or question, budget, where, under)

    def read_ahead(self, *, under: Under = None) -> Iterator[Ahead]:
        """Have the model read every chunk of the library, or of the documents `under` some paths, that it has not read
        yet, document by document, so that questions need not wait for it; what was read before is passed over. Yields
        after each few chunks. Raises UnsupportedError where the engine keeps no passages."""
        for info in self.library.documents(under=under):
            for chunks, prompt in self.prompts_ahead(self.library.get(info.id)):
                yield Ahead(info, chunks, self.engine.read_ahead(prompt))

    def prompts_ahead(self, document: Document) -> Iterator[tuple[int, Prompt]]:
        """The prompts by which the chunks of `document` are read ahead, and how many of them each has."""
        texts = [document.text[span.start : span.end] for span in self.library.spans(document)]
        for at in range(0, len(texts), AT_ONCE):
            some = texts[at : at + AT_ONCE]
            yield len(some), self.answerer.prompt("?", some, self.engine)

    def _events(self, question: str, query: str, budget: Budget, where: Where | None, under: Under) -> Iterator[Event]:
        began = time.perf_counter()
        hits = search(
            self.library,
            query,
            self.k,
            retriever=self.retriever,
            reranker=self.reranker,
            where=where,
            under=under,
        )
        passages = self._passages(question, query, hits, budget)
        searched = time.perf_counter() - began
        yield Found(passages, searched)
        draft, ttft = Draft("", [], Usage()), 0.0
        if passages:
            pieces = self.answerer.answer(question, passages, self.engine)
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    draft = end.value
                    break
                ttft = ttft or time.perf_counter() - began
                yield piece
        citations = self._citations(draft.quotes)
        found = bool(citations)
        total = time.perf_counter() - began
        yield Answer(
            question=question,
            text=draft.text if found else NOT_TOLD,
            found=found,
            citations=citations,
            passages=passages,
            nearest=hits[:NEAREST],
            timing=Timing(search=searched, ttft=ttft or total, total=total),
            usage=draft.usage,
            model=self.engine.model,
        )

    def _budget(self, question: str) -> Budget:
        room = min(self.prompt_tokens, self.engine.context_length) - self.answerer.overhead(question, self.engine)
        if room < 1:
            raise PromptTooLongError(
                f"the question is too long: with the instructions and room for an answer it leaves nothing of the "
                f"{min(self.prompt_tokens, self.engine.context_length)} tokens of the prompt for passages"
            )
        return Budget(room, self.engine.count)

    def _passages(self, question: str, query: str, hits: Sequence[Hit], budget: Budget) -> list[Passage]:
        def kept(level: Sequence[Hit]) -> list[bool]:
            told = self.engine.kept(self.answerer.prompt(question, [hit.text for hit in level], self.engine))
            # Where a prompt's passages cannot be told apart, none is preferred.
            return told if len(told) == len(level) else [False] * len(level)

        taken = relevant(query, hits, self.least_relevance)
        if self.engine.keeps_passages:
            taken = prefer_kept(taken, kept)
        ordered = self.order.order(self.chooser.choose(query, taken, budget))
        return [Passage(number, hit, hit.text) for number, hit in enumerate(ordered, start=1)]

    def _citations(self, quotes: Sequence[Quote]) -> list[Citation]:
        """The quotes that stand in their documents, character for character; a quote that does not is dropped."""
        documents: dict[str, Document] = {}
        citations = []
        for quote in quotes:
            chunk = quote.passage.chunk
            if chunk.document_id not in documents:
                documents[chunk.document_id] = self.library.get(chunk.document_id)
            document = documents[chunk.document_id]
            start, end = chunk.start + quote.start, chunk.start + quote.end
            if quote.text and document.text[start:end] == quote.text:
                place = document.place(start)
                citations.append(
                    Citation(document.id, start, end, quote.text, place, quote.passage.number, quote.score)
                )
        return citations
