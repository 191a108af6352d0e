"""Whole definitions of source code, by its syntax tree.

Zhang et al., "cAST: Enhancing Code Retrieval-Augmented Generation with Structural Chunking via Abstract Syntax Tree"
(2025, arXiv:2506.15655): large nodes are split into their children, small neighbours joined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from longreach.corpus.chunk import chunkers
from longreach.corpus.chunk._pack import check, pack, spans
from longreach.corpus.chunk.recursive import Recursive
from longreach.corpus.formats import format_of, language_of
from longreach.corpus.sentences import Range
from longreach.registry import resource
from longreach.tokens import count_many
from longreach.types import Document, Span, TokenCounter

if TYPE_CHECKING:
    import tree_sitter


_LEADING = ("decorator", "attribute_item", "annotation")


@chunkers.register("code")
@dataclass(frozen=True)
class Code:
    """Packs whole definitions into `tokens`; one that is larger is cut between its members or statements, then lines. A
    comment or decorator stays with what follows it.

    Knows Python, JavaScript, TypeScript, TSX, Java, C, C++, Go and Rust, told by the document's media type, else by the
    extension of its id. Any other document is chunked as by `recursive`.
    """

    tokens: int = 128
    count: TokenCounter = resource()

    def __post_init__(self) -> None:
        check(self.tokens)

    def chunk(self, document: Document) -> list[Span]:
        parser = _parser(_language(document))
        if parser is None:
            return Recursive(self.tokens, count=self.count).chunk(document)
        text = document.text
        data = text.encode("utf-8", "replace")  # a lone surrogate becomes one byte, and stays one character below
        root = parser.parse(data).root_node
        characters = _characters(data)
        ranges, grades = _units(root, text, characters, self.tokens, self.count)
        return spans(document, pack(text, ranges, tokens=self.tokens, count=self.count, ranks=grades))


def _language(document: Document) -> str | None:
    form = format_of(document.id) or format_of(document.source)
    return language_of(document.media_type) or (language_of(form.media_type) if form else None)


def _parser(language: str | None) -> tree_sitter.Parser | None:
    import importlib

    grammars = {
        "tsx": ("tree_sitter_typescript", "language_tsx"),
        "typescript": ("tree_sitter_typescript", "language_typescript"),
    }
    known = ("python", "javascript", "java", "c", "cpp", "go", "rust")
    grammars |= {name: (f"tree_sitter_{name}", "language") for name in known}
    if language not in grammars:
        return None
    import tree_sitter

    module, function = grammars[language]
    grammar = tree_sitter.Language(getattr(importlib.import_module(module), function)())
    return tree_sitter.Parser(grammar)


def _characters(data: bytes) -> np.ndarray:
    """The character offset of each byte of UTF-8, and of the end: int64, [bytes + 1]."""
    begins = (np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80
    return np.concatenate([[0], np.cumsum(begins)])


def _units(
    root: tree_sitter.Node, text: str, characters: np.ndarray, tokens: int, count: TokenCounter
) -> tuple[list[Range], list[int]]:
    """Ranges that tile the text, cut at the starts of nodes until each fits or has no children that lie on lines of
    their own; and how good a cut before each is: the less deep in the tree, the better."""
    cuts: dict[int, int] = {0: 0}
    level = [root]
    depth = 0
    while level:
        sizes = count_many(count, [text[characters[node.start_byte] : characters[node.end_byte]] for node in level])
        wide = [node for node, size in zip(level, sizes, strict=True) if size > tokens or node is root]
        level = []
        for node in wide:
            together = False
            for child in node.children:
                start = _line_start(child, text, characters)
                if start is not None and not together:
                    cuts.setdefault(start, depth)
                together = start is not None and (child.type.endswith("comment") or child.type in _LEADING)
                level.append(child)
        depth += 1
    ordered = sorted(cuts)
    ends = [*ordered[1:], len(text)]
    return list(zip(ordered, ends, strict=True)), [max(0, 3 - cuts[at]) for at in ordered]


def _line_start(node: tree_sitter.Node, text: str, characters: np.ndarray) -> int | None:
    """The start of the line on which a node begins, None where something else stands before it there."""
    column = node.start_point.column
    if column > _DEEPEST:
        return None
    start = int(characters[node.start_byte - column])
    return start if not text[start : characters[node.start_byte]].strip() else None


_DEEPEST = 400
"""Bytes of indentation; what begins further right is not looked at, since lines of packed code may be endless."""
