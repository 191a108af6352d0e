"""The contract of every chunker; a new file in `corpus/chunk` is tested by being registered."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from longreach.corpus.chunk import chunkers
from longreach.corpus.read.markdown import headings
from longreach.errors import SpecError
from longreach.registry import canonical
from longreach.types import Anchor, Document, Span

NAMES = chunkers.names()
SPECS = [f"{name}(tokens={size})" for name in NAMES for size in (3, 64)]
OVERLAPPING = [name for name in NAMES if "overlap" in chunkers.get(name).__dataclass_fields__]

PROSE = (
    "Dr. Smith went to Washington. He met Mr. J. K. Jones, who said: “No!” Then they left.\n"
    "The line goes on here without an end\n\nA new paragraph. It is short.\n\n\n- one item\n- another item. With two.\n"
    "1. numbered\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n日本語の文です。次の文。"
    " Emoji 😀 and e\u0301. \u00a0 End\r\n\r\nwindows.\r\n"
)
MARKDOWN = (
    f"# Top\n\nIntroduction.\n\n## First\n\n{PROSE}\n## Second\n\n"
    "```python\n# not a heading\nx = 1. + 2\n```\n\n### Deep\n\nText.\n"
)
CODE = '''"""Module é."""
import os  # 😀

# about f
@decorator
def f(a, b):
    """Doc."""
    return [a, b, "a long line of text that goes on and on", a + b]


class C:
    def m(self):
        for i in range(10):
            print(i, self.m(), "something", "else", "again and again and again", i * i)

    def n(self): return 1
'''
LONG = "x" * 500 + " " + "word " * 90 + "\n" + "é" * 150 + "\u3000" * 40 + "\t\t" + "0123456789" * 20
TEXTS = {"prose": PROSE, "markdown": MARKDOWN, "code": CODE, "long": LONG, "one": "a", "sentence": "Only this."}

pieces = st.sampled_from(
    ["A word", ". ", "\n", "\n\n", "# H\n", "- i\n", "\u00a0", "\u2028", "é😀", "```\n", "B.\u3000", "\r\n", "x" * 90]
)
unicode = st.one_of(st.text(max_size=300), st.lists(pieces, max_size=60).map("".join))


def document(text: str, media_type: str = "text/markdown") -> Document:
    return Document(id="d", text=text, anchors=headings(text), media_type=media_type)


def make(spec: str, count: Callable[[str], int], encoder: Any) -> Any:
    return chunkers.make(spec, count=count, encoder=encoder)


def check(doc: Document, spans: list[Span], tokens: int, count: Callable[[str], int]) -> None:
    text = doc.text
    covered = bytearray(len(text))
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        piece = text[span.start : span.end]
        assert not piece.isspace()
        assert count(piece) <= tokens or len(piece) == 1
        assert span.section == doc.place(span.start).section
        covered[span.start : span.end] = b"\1" * (span.end - span.start)
    assert all(one.start < other.start and one.end < other.end for one, other in pairwise(spans))
    assert all(covered[at] or text[at].isspace() for at in range(len(text)))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/x-python"])
@pytest.mark.parametrize("name", TEXTS)
def test_chunks_cover_the_text_in_order_within_the_budget(name, media_type, spec, count, encoder):
    doc = document(TEXTS[name], media_type)
    chunker = make(spec, count, encoder)
    check(doc, chunker.chunk(doc), chunker.tokens, count)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=unicode, tokens=st.integers(1, 40), media_type=st.sampled_from(["text/plain", "text/markdown", "text/x-c"]))
@example(text="B\u2028.\n\ufeff`", tokens=3, media_type="text/plain")
def test_any_unicode_is_chunked_whole(name, text, tokens, media_type, tokenizer, encoder):
    doc = document(text, media_type)
    chunker = make(f"{name}(tokens={tokens})", tokenizer, encoder)
    spans = chunker.chunk(doc)
    check(doc, spans, tokens, tokenizer)
    assert spans == chunker.chunk(doc)


@pytest.mark.parametrize("name", OVERLAPPING)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=unicode, tokens=st.integers(2, 40), data=st.data())
def test_overlapping_chunks_cover_the_text_within_the_budget(name, text, tokens, data, tokenizer, encoder):
    overlap = data.draw(st.integers(1, tokens - 1))
    doc = document(text)
    check(doc, make(f"{name}(tokens={tokens}, overlap={overlap})", tokenizer, encoder).chunk(doc), tokens, tokenizer)


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_chunk_repeats_the_end_of_the_one_before(name, tokenizer, encoder):
    doc = Document("d", " ".join(f"Sentence {n} is here." for n in range(60)))
    spans = make(f"{name}(tokens=64, overlap=32)", tokenizer, encoder).chunk(doc)
    shared = [doc.text[other.start : one.end] for one, other in pairwise(spans)]
    assert all(shared)
    assert all(tokenizer(text) <= 32 for text in shared)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_makes_no_chunks(name, tokenizer, encoder):
    for text in ("", " \n\t\u3000\n"):
        assert make(name, tokenizer, encoder).chunk(Document("d", text)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_text_within_the_budget_is_one_chunk(name, tokenizer, encoder):
    doc = Document("d", "\n  The cat sat on the mat. The dog ran.\n")
    [span] = make(name, tokenizer, encoder).chunk(doc)
    assert doc.text[span.start : span.end] == doc.text.strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_canonical_spec_makes_an_equal_chunker(name, tokenizer, encoder):
    chunker = make(f"{name}(tokens=99)", tokenizer, encoder)
    assert make(canonical(chunkers, chunker), tokenizer, encoder) == chunker


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", ["tokens=0", "tokens=-3", "tokens='many'"])
def test_sizes_that_cannot_be_are_refused(name, arguments, tokenizer, encoder):
    with pytest.raises(SpecError):
        make(f"{name}({arguments})", tokenizer, encoder)


@pytest.mark.parametrize("name", OVERLAPPING)
@pytest.mark.parametrize("overlap", [-1, 64, 100])
def test_an_overlap_must_be_less_than_the_chunk(name, overlap, tokenizer, encoder):
    with pytest.raises(SpecError, match="overlap"):
        make(f"{name}(tokens=64, overlap={overlap})", tokenizer, encoder)


def texts(doc: Document, spans: list[Span]) -> list[str]:
    return [doc.text[span.start : span.end] for span in spans]


def test_sentence_keeps_sentences_and_abbreviations_whole(tokenizer, encoder):
    doc = Document("d", "Dr. Smith met Mr. Jones at noon. They talked. " * 8)
    found = texts(doc, make("sentence(tokens=48)", tokenizer, encoder).chunk(doc))
    assert len(found) > 3
    assert all(text.startswith(("Dr.", "They")) and text.endswith(".") for text in found)
    assert not any(text.endswith(("Dr.", "Mr.")) for text in found)


def test_a_long_text_without_sentences_is_cut_between_lines(tokenizer, encoder):
    line = "“The cat sat on the mat and the dog ran (to the house\n"
    doc = Document("d", line * 700)
    found = texts(doc, make("sentence(tokens=150)", tokenizer, encoder).chunk(doc))
    assert all(text.startswith("“The cat") and text.endswith("house") for text in found)


def test_sentence_leaves_no_heading_at_the_end_of_a_chunk(tokenizer, encoder):
    text = "".join(f"# Part {n}\n\n" + "The cat sat on the mat. " * (n % 4 + 1) + "\n\n" for n in range(12))
    doc = document(text)
    found = texts(doc, make("sentence(tokens=40)", tokenizer, encoder).chunk(doc))
    assert not any(chunk.splitlines()[-1].startswith("#") for chunk in found)


def test_sections_begin_with_their_headings_and_name_them(tokenizer, encoder):
    text = "".join(f"# Part {n}\n\n" + "The cat sat on the mat. " * 6 + "\n\n" for n in range(5))
    doc = document(text)
    spans = make("sections(tokens=200)", tokenizer, encoder).chunk(doc)
    assert [span.section for span in spans] == [(f"Part {n}",) for n in range(5)]
    assert all(chunk.startswith("# Part") for chunk in texts(doc, spans))


def test_short_sections_are_joined_and_long_ones_split(tokenizer, encoder):
    text = "# A\n\nShort.\n\n# B\n\nShort too.\n\n# C\n\n" + "The cat sat on the mat. " * 60
    doc = document(text)
    first, *others = texts(doc, make("sections(tokens=100)", tokenizer, encoder).chunk(doc))
    assert first.startswith("# A")
    assert "# B" in first
    assert len(others) > 2


def test_semantic_cuts_where_the_subject_changes(tokenizer, encoder):
    cats, ships = "The cat sat with a cat on the cat mat. " * 6, "Big ships sail far over big seas. " * 6
    doc = Document("d", cats + ships)
    found = texts(doc, make("semantic(tokens=400, window=0)", tokenizer, encoder).chunk(doc))
    assert found == [cats.strip(), ships.strip()]


@pytest.mark.parametrize(
    ("media_type", "text"),
    [
        ("text/x-python", "@wrap\ndef {0}(x):\n    return x + x + x + x\n\n\n"),
        ("text/x-javascript", "// about {0}\nfunction {0}(x) {{\n  return x + x + x;\n}}\n\n"),
        ("text/x-typescript", "// about {0}\nfunction {0}(x: number): number {{\n  return x + x;\n}}\n\n"),
        ("text/x-tsx", "// about {0}\nconst {0} = (x: string) => {{\n  return <b>{{x}}</b>;\n}};\n\n"),
        ("text/x-java", "// about {0}\nclass {0} {{\n  int m(int x) {{ return x + x; }}\n}}\n\n"),
        ("text/x-c", "/* about {0} */\nint {0}(int x) {{\n  return x + x + x;\n}}\n\n"),
        ("text/x-cpp", "// about {0}\ntemplate <class T> T {0}(T x) {{\n  return x + x;\n}}\n\n"),
        ("text/x-go", "// about {0}\nfunc {0}(x int) int {{\n\treturn x + x + x\n}}\n\n"),
        ("text/x-rust", "#[inline]\nfn {0}(x: i32) -> i32 {{\n    x + x + x\n}}\n\n"),
    ],
)
def test_code_keeps_definitions_whole(media_type, text, tokenizer, encoder):
    parts = [text.format(name) for name in ("alpha", "beta", "gamma", "delta", "é😀" if media_type == "c" else "eps")]
    doc = Document("d", "".join(parts), media_type=media_type)
    size = max(tokenizer(part) for part in parts) + 2
    assert texts(doc, make(f"code(tokens={size})", tokenizer, encoder).chunk(doc)) == [part.strip() for part in parts]


def test_code_falls_back_for_unknown_languages(tokenizer, encoder):
    doc = Document("d", PROSE, media_type="text/x-cobol")
    assert make("code(tokens=30)", tokenizer, encoder).chunk(doc) == make(
        "recursive(tokens=30)", tokenizer, encoder
    ).chunk(doc)


def test_code_knows_the_language_by_the_id(tokenizer, encoder):
    doc = Document("src/a.py", CODE)
    typed = Document("x", CODE, media_type="text/x-python")
    assert make("code(tokens=40)", tokenizer, encoder).chunk(doc) == make("code(tokens=40)", tokenizer, encoder).chunk(
        typed
    )


def test_sections_of_spans_follow_the_anchors(tokenizer, encoder):
    doc = Document("d", "aa bb cc", anchors=(Anchor("heading", 3, "B", 1), Anchor("heading", 6, "C", 2)))
    spans = make("fixed(tokens=2)", tokenizer, encoder).chunk(doc)
    assert {span.start: span.section for span in spans}[6] == ("B", "C")
