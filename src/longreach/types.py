"""The values that travel through the house. Offsets are characters, half open: `[start, end)`."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

MetadataValue: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, MetadataValue]
TokenCounter: TypeAlias = Callable[[str], int]
"""Counts the tokens of a text as the answering model would; a method `many(texts)`, if it has one, counts a batch."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A landmark at a character offset: it holds from there to the next anchor of its kind.

    A page anchor's `label` is its number as printed ("3"); a heading's is its text, with `level` 1 for the
    outermost. Lines need no anchors: they are counted from the text.
    """

    kind: Literal["page", "heading"]
    offset: int
    label: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a character stands, for people: `page` where the format has pages, `section` outermost heading first,
    `line` counted from 1."""

    page: int | None
    section: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        where = f"page {self.page}" if self.page is not None else f"line {self.line}"
        return f"{where}, {' › '.join(self.section)}" if self.section else where


@dataclass(frozen=True)
class Document:
    """A text with an id, the source it came from, metadata and anchors. The text is never changed after loading."""

    id: str
    text: str
    source: str = ""
    metadata: Metadata = field(default_factory=dict)
    anchors: Sequence[Anchor] = ()
    media_type: str = "text/plain"

    def place(self, offset: int) -> Place:
        """The page, section and line of the character at `offset`; `0 <= offset <= len(text)`."""
        page, section = self._landmarks[bisect.bisect_right(self._anchor_offsets, offset)]
        return Place(page, section, bisect.bisect_right(self._line_starts, offset))

    @cached_property
    def _anchor_offsets(self) -> list[int]:
        return [anchor.offset for anchor in self.anchors]

    @cached_property
    def _landmarks(self) -> list[tuple[int | None, tuple[str, ...]]]:
        """The page and section in force before the first anchor and after each one."""
        page: int | None = None
        section: list[tuple[int, str]] = []
        landmarks: list[tuple[int | None, tuple[str, ...]]] = [(None, ())]
        for anchor in self.anchors:
            if anchor.kind == "page":
                page = int(anchor.label)
            else:
                section = [(level, label) for level, label in section if level < anchor.level]
                section.append((anchor.level, anchor.label))
            landmarks.append((page, tuple(label for _, label in section)))
        return landmarks

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts


@dataclass(frozen=True, slots=True)
class Span:
    """`document.text[start:end]`, before it is a chunk; `section` is the path of headings above it."""

    start: int
    end: int
    section: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of one document: `library.get(document_id).text[start:end] == text`.

    `id` stays the same while the document's id and the chunk's text do. `tokens` counts the text as the model named in
    the library's settings does.
    """

    id: str
    document_id: str
    start: int
    end: int
    text: str
    tokens: int
    section: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document in a library without its text: `characters` long, `chunks` chunks, read from `source`."""

    id: str
    source: str
    metadata: Metadata
    media_type: str
    characters: int
    chunks: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found by a retriever. `score` ranks it among the hits of one search, higher is better; `scores` keeps
    what each stage gave it, by the stage's name ("bm25", "dense", "hybrid", "cross_encoder")."""

    chunk: Chunk
    document: DocumentInfo
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.chunk.text


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk chosen for a prompt: `number` is its place there, from 1; `text` is what the model reads of it."""

    number: int
    hit: Hit
    text: str

    @property
    def chunk(self) -> Chunk:
        return self.hit.chunk


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent on passages: `tokens` of prompt, counted by `count`."""

    tokens: int
    count: TokenCounter


@dataclass(frozen=True, slots=True)
class Citation:
    """A span that supports an answer: `library.get(document).text[start:end] == quote`, checked before it is made."""

    document: str
    start: int
    end: int
    quote: str
    place: Place
    passage: int
    score: float

    @property
    def page(self) -> int | None:
        return self.place.page


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: searching, from the question to the first token of the answer, and in all."""

    search: float = 0.0
    ttft: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost. Of `prompt_tokens`, `reused_tokens` came from a cache: `loaded_tokens` of them from host
    memory or disk, the others lay in pages. `recomputed_tokens` were computed again on top of it; `kv_bytes` is the KV
    cache held at the end."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    recomputed_tokens: int = 0
    generated_tokens: int = 0
    kv_bytes: int = 0
    loaded_tokens: int = 0

    @property
    def computed_tokens(self) -> int:
        """Tokens of the prompt that were computed for it, for the first time or again."""
        return self.prompt_tokens - self.reused_tokens + self.recomputed_tokens


@dataclass(frozen=True)
class Answer:
    """An answer and where it came from. `found` is false where the documents do not tell; `text` then says so.

    `passages` were read, in the order of the prompt; `nearest` are the best hits of the search, read or not.
    """

    question: str
    text: str
    found: bool
    citations: Sequence[Citation]
    passages: Sequence[Passage]
    nearest: Sequence[Hit]
    timing: Timing
    usage: Usage
    model: str
