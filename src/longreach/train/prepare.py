"""Make training material from packs of texts and questions: `python -m longreach.train.prepare --out FILE`.

Packs lie in the folder of evaluation data (`--data`, default LONGREACH_DATA). Long texts are cut by the chunker
`sentence`. Beside the questions of people, two are made from each passage: what is said about a name in it (answer: the
sentence), and how a sentence of it goes on (answer: its end). Technical prose comes from the descriptions of the Python
packages that are installed; its questions are about a term or a sentence of a passage, and count as people's do: they
come among passages that look alike.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longreach.config import load_settings
from longreach.context.assemble import EXAMPLES, INSTRUCTIONS, as_question, assemble_examples
from longreach.corpus.chunk import chunkers
from longreach.engine.chat import render
from longreach.engine.requests import Message
from longreach.errors import InputError
from longreach.train.material import HELD_OUT, NEAR, TRAINING, UNUSED, Form, Ids, Material, Ragged, held_out
from longreach.types import Document

PASSAGE_TOKENS, SHORT_TOKENS = 200, 96
DESCRIPTION = 12_000
"""Characters of one package's description at most."""
ANSWER_TOKENS = 24
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][\w’'-]+(?: (?:of |the |and )?[A-Z][\w’'-]+)*")
_TERM = re.compile(r"`{1,2}([^`\n]{3,40})`{1,2}|\*\*([^*\n]{3,40})\*\*")
_MARKUP = re.compile(r"<[^>\n]*>|!?\[([^\]\n]*)\]\([^)\n]*\)|^\.\. .*$|^[ |+=*-]{4,}$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")


DESCRIBED = "packages"
ABOUT_TERMS = (
    "What is {}?",
    "What does {} do?",
    "When is {} used?",
    "How is {} used?",
    "What is the default of {}?",
)
ABOUT_SENTENCES = ("What is said about this: {}?", "Why: {}?", "What does this mean: {}?", "{} what?")


@dataclass
class Passage:
    """A text and where it comes from."""

    pack: str
    text: str
    part: int


@dataclass
class Question:
    """A question, its answer as it would be written, and the passages that tell it, by their numbers."""

    pack: str
    text: str
    answer: str
    part: int
    gold: list[int] = field(default_factory=list)
    natural: bool = True


@dataclass
class Collector:
    """Gathers passages and questions from packs; `cut` divides a long text, `cut_short` into less."""

    data: Path
    cut: Callable[[str], list[tuple[int, int]]]
    cut_short: Callable[[str], list[tuple[int, int]]]
    passages: list[Passage] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def read(self, pack: str) -> Any:
        file = self.data / f"{pack}.json.gz"
        try:
            with gzip.open(file) as packed:
                return json.load(packed)
        except (OSError, ValueError) as error:
            raise InputError(f"the pack {file} cannot be read: {error}") from None

    def add(self, pack: str, text: str, held: bool) -> int:
        self.passages.append(Passage(pack, text, HELD_OUT if held else TRAINING))
        return len(self.passages) - 1

    def retrieval(self, pack: str, most: int | None = None) -> None:
        """A pack of documents, of which the first chunk is taken, with questions and graded documents."""
        stored = self.read(pack)
        graded = {query: {doc for doc, grade in docs.items() if grade} for query, docs in stored["qrels"].items()}
        wanted = [query for query in stored["queries"] if graded.get(query)]
        held = {doc for query in wanted if held_out(pack, query) for doc in graded[query]}
        docs = sorted({doc for query in wanted for doc in graded[query]}) if most else []
        docs += [doc for doc in stored["docs"] if doc not in set(docs)]
        number = {}
        for doc in docs[: most or len(docs)]:
            text = stored["docs"][doc]
            start, end = self.cut(text)[0]
            number[doc] = self.add(pack, text[start:end].strip(), doc in held or held_out(pack, doc))
        for query in wanted:
            answers = stored.get("answers", {}).get(query) or ""
            answer = answers if isinstance(answers, str) else answers[0]
            gold = [number[doc] for doc in sorted(graded[query]) if doc in number][:4]
            self.ask(Question(pack, stored["queries"][query], answer, int(held_out(pack, query)), gold))

    def ask(self, question: Question) -> None:
        """Add a question; one whose passages were divided is not used."""
        if any(self.passages[at].part != question.part for at in question.gold):
            question.part = UNUSED
        self.questions.append(question)

    def spans(self, pack: str) -> None:
        """A pack of texts with questions and the spans that answer them."""
        stored = self.read(pack)
        where: dict[str, list[tuple[int, int, int]]] = {}
        for name, text in stored["corpora"].items():
            cuts = self.cut(text[:400_000])
            where[name] = [(a, b, self.add(pack, text[a:b].strip(), held_out(pack, f"{name}:{a}"))) for a, b in cuts]
        for at, asked in enumerate(stored["questions"]):
            spans = asked["spans"]
            gold = [n for a, b, n in where[asked["corpus"]] if any(a < end and start < b for start, end in spans)]
            if gold:
                self.ask(Question(pack, asked["question"], "", int(held_out(pack, str(at))), gold[:4]))

    def texts(self, pack: str, texts: Iterable[tuple[str, str]], most: int, chance: random.Random) -> None:
        """Chunks of long texts, without questions."""
        cuts = [(name, text, a, b) for name, text in texts for a, b in self.cut(text)]
        for name, text, a, b in chance.sample(cuts, min(most, len(cuts))):
            self.add(pack, text[a:b].strip(), held_out(pack, f"{name}:{a}"))

    def descriptions(self, chance: random.Random) -> None:
        """What installed packages, but this one, say of themselves, with questions."""
        for name, text in sorted(_described().items()):
            for a, b in self.cut_short(text):
                passage = text[a:b].strip()
                if len(passage) < 120 or sum(map(str.isalpha, passage)) < 0.6 * len(passage):
                    continue  # tables, code and lists of links
                held = held_out(DESCRIBED, f"{name}:{a}")
                at, part = self.add(DESCRIBED, passage, held), HELD_OUT if held else TRAINING
                terms = [one or other for one, other in _TERM.findall(passage)]
                words = chance.choice([one for one in _SENTENCE.split(passage) if one]).split()
                asked = [form.format(chance.choice(terms)) for form in ABOUT_TERMS] if terms else []
                asked += [form.format(" ".join(words[: chance.randint(4, 9)])) for form in ABOUT_SENTENCES]
                self.questions.append(Question(DESCRIBED, chance.choice(asked), "", part, [at]))

    def make(self, chance: random.Random) -> None:
        """Questions that a passage itself asks for."""
        for at, passage in enumerate(self.passages):
            if passage.part != TRAINING:
                continue
            sentences = [s for s in _SENTENCE.split(passage.text.replace("\n", " ")) if 40 < len(s) < 300]
            named = [(s, name.group()) for s in sentences for name in _NAME.finditer(s) if len(name.group()) > 3]
            if named:
                sentence, name = chance.choice(named)
                asked = chance.choice(
                    ("What is said about {}", "What do the passages say about {}", "{}: what about it")
                )
                self.questions.append(Question(passage.pack, asked.format(name), sentence, TRAINING, [at], False))
            if sentences:
                words = chance.choice(sentences).split()
                cut = chance.randint(3, max(3, min(10, len(words) - 3)))
                asked = f'How does the sentence go on that begins with "{" ".join(words[:cut])}"'
                answer = " ".join(words[cut:])
                self.questions.append(Question(passage.pack, asked, answer, TRAINING, [at], False))


def _described() -> dict[str, str]:
    """By the names of installed packages, what they say of themselves, without what only a page shows."""
    found = {}
    for package in distributions():
        told = package.metadata.get_payload() or package.metadata.get("Description") or ""  # type: ignore[attr-defined]
        name = str(package.metadata["Name"]).lower()
        if name != "longreach" and len(told) > 1000:
            found[name] = _MARKUP.sub(lambda match: match.group(1) or "", str(told))[:DESCRIPTION]
    return found


def collect(data: Path, count: Any, seed: int) -> Collector:
    """All packs, and what is made from them."""
    chance = random.Random(seed)

    def cutter(tokens: int) -> Callable[[str], list[tuple[int, int]]]:
        chunker = chunkers.make(f"sentence(tokens={tokens})", count=count)
        return lambda text: [(span.start, span.end) for span in chunker.chunk(Document("text", text))]

    found = Collector(data, cutter(PASSAGE_TOKENS), cutter(SHORT_TOKENS))
    found.descriptions(random.Random(seed))
    found.retrieval("musique")
    found.retrieval("nq_passages")
    found.retrieval("scifact", most=2000)
    found.retrieval("code_qa")
    found.spans("chunk_spans")
    meetings = [(str(at), "\n".join(meeting["turns"])) for at, meeting in enumerate(found.read("qmsum"))]
    found.texts("qmsum", meetings, 1500, chance)
    found.texts("books", found.read("books").items(), 1500, chance)
    for meeting in found.read("qmsum"):
        for asked, answer, _ in meeting["queries"]:
            found.questions.append(Question("qmsum", asked, answer, TRAINING))
    found.make(chance)
    return found


def near(found: Collector) -> NDArray[np.int32]:
    """`[questions, NEAR]`: passages of its pack and part that BM25 finds for each question of people; -1 for none."""
    import bm25s

    table = np.full((len(found.questions), NEAR), -1, np.int32)
    for pack in {passage.pack for passage in found.passages}:
        for part in (TRAINING, HELD_OUT):
            texts = [at for at, p in enumerate(found.passages) if (p.pack, p.part) == (pack, part)]
            asked = [n for n, q in enumerate(found.questions) if (q.pack, q.part, q.natural) == (pack, part, True)]
            if len(texts) <= NEAR or not asked:
                continue
            index = bm25s.BM25()
            words = [found.passages[at].text for at in texts]
            index.index(bm25s.tokenize(words, stopwords="en", show_progress=False), show_progress=False)
            queries = bm25s.tokenize([found.questions[n].text for n in asked], stopwords="en", show_progress=False)
            results, scores = index.retrieve(queries, k=NEAR, show_progress=False)
            for n, row, values in zip(asked, results, scores, strict=True):
                table[n] = [texts[int(at)] if value > 0 else -1 for at, value in zip(row, values, strict=True)]
    return table


def forms(tokenizer: Any, ids: Callable[[str], list[int]], ends: Iterable[int]) -> tuple[Form, ...]:
    """The two prompts of the reader: examples for small models, a conversation for those that follow instructions."""
    opening, head, _, tail = (text for text, _ in assemble_examples("?", []))
    assert opening.count("Question:") == len(EXAMPLES)
    shown = render(tokenizer, [Message("system", INSTRUCTIONS), Message("user", "\0")])
    before, after = shown.split("\0")
    array: Callable[[Iterable[int]], Ids] = lambda row: np.asarray(list(row), np.int64)  # noqa: E731
    head_ids = array(ids(head))
    breaks = dict.fromkeys([*ids("\n\n\n"), *ids("\n\n"), *ids("\n")])  # the first of them ends the examples' answers
    return (
        Form("examples", array(ids(opening)), head_ids, array(ids(tail)), array([*breaks, *ends]), True),
        Form("chat", array(ids(before)), head_ids, array(ids(after)), array(sorted(ends)), False),
    )


def material(found: Collector, tokenizer: Any, ends: Iterable[int]) -> Material:
    """What was collected, as tokens."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    kind = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    packs = tuple(dict.fromkeys(passage.pack for passage in found.passages))
    gold = np.full((len(found.questions), 4), -1, np.int32)
    for at, question in enumerate(found.questions):
        gold[at, : len(question.gold)] = question.gold
    answers = [ids(f" {q.answer.strip()}")[:ANSWER_TOKENS] if q.answer.strip() else [] for q in found.questions]
    return Material(
        forms=forms(tokenizer, ids, ends),
        partings=tuple(np.asarray(row, np.int64) for row in (ids("\n\n"), [*ids("\n"), *ids("\n")])),
        packs=packs,
        passages=Ragged.of([ids(p.text) for p in found.passages], kind),
        passage_pack=np.array([packs.index(p.pack) for p in found.passages], np.int8),
        passage_part=np.array([p.part for p in found.passages], np.int8),
        questions=Ragged.of([ids(f" {as_question(q.text)}") for q in found.questions], kind),
        answers=Ragged.of(answers, kind),
        question_pack=np.array([packs.index(q.pack) for q in found.questions], np.int8),
        question_part=np.array([q.part for q in found.questions], np.int8),
        natural=np.array([q.natural for q in found.questions]),
        gold=gold,
        near=near(found),
    )


def main() -> None:
    """The command."""
    from longreach.model.load import load
    from longreach.tokens import Tokenizer

    parser = argparse.ArgumentParser(description="Make training material from packs of texts and questions.")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LONGREACH_DATA", "../shared/data")))
    parser.add_argument("--model", default="embedded", help="whose tokens: a name, a folder or a .gguf file")
    parser.add_argument("--out", type=Path, required=True, help="an .npz file")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    loaded = load(given.model, cache=load_settings().cache, device="cpu")
    found = collect(given.data, Tokenizer(loaded.tokenizer.backend_tokenizer), given.seed)
    made = material(found, loaded.tokenizer, loaded.end_tokens)
    made.save(given.out)
    for at, pack in enumerate(made.packs):
        passages, asked = made.passage_pack == at, made.question_pack == at
        held, people = made.question_part == HELD_OUT, asked & made.natural
        print(
            f"{pack}: {passages.sum()} passages, {(made.passage_part[passages] == HELD_OUT).sum()} of them held out; "
            f"{people.sum()} questions of people, {(people & held).sum()} of them held out, "
            f"{(people & (made.question_part == UNUSED)).sum()} unused; {(asked & ~made.natural).sum()} made"
        )
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB, {len(made.passages.flat)} tokens of passages")


if __name__ == "__main__":
    main()
