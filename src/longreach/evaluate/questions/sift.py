"""Which of the questions made are kept: those that only their own span answers; some of every kind and document."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from longreach.corpus.sentences import sentences
from longreach.evaluate.metrics.answers import plain
from longreach.evaluate.questions import Made
from longreach.evaluate.questions.blanks import ASKED
from longreach.types import Document
from longreach.words import content_words

ALIKE = 0.8
"""A sentence that holds this share of the words that carry meaning may answer too."""
TELLING = 4
"""Questions of fewer such words are found all over; only what repeats their own span is held against them."""


@dataclass
class Sentences:
    """Every sentence of a collection, found by the words that it holds."""

    _places: list[tuple[str, int, int]] = field(default_factory=list)
    _by_word: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, document: Document) -> None:
        for start, end in sentences(document):
            for word in content_words(document.text[start:end]):
                self._by_word[word].append(len(self._places))
            self._places.append((document.id, start, end))

    def alike(self, words: set[str], made: Made) -> bool:
        """Whether a sentence that does not lie in the question's span holds most of `words`."""
        counts = Counter(at for word in words for at in self._by_word.get(word, ()))
        return any(count >= ALIKE * len(words) and not self._within(at, made) for at, count in counts.items())

    def _within(self, at: int, made: Made) -> bool:
        document, start, end = self._places[at]
        return document == made.document and start < made.end and end > made.start


def clear(made: Iterable[Made], known: Sentences) -> list[Made]:
    """Those whose question is asked once, whose span is not told elsewhere in other words' order, and that no other
    sentence may answer."""
    asked = list(made)
    times = Counter(plain(each.question) for each in asked)
    kept = []
    for each in asked:
        words = content_words(each.question.removeprefix(ASKED))
        if times[plain(each.question)] > 1 or plain(each.answer) == "" or not words:
            continue
        told = words | content_words(each.answer)
        if known.alike(told, each) or (len(words) >= TELLING and known.alike(words, each)):
            continue
        kept.append(each)
    return kept


def spread(made: Sequence[Made], limit: int, seed: int = 0) -> list[Made]:
    """`limit` of them in random order, in turn from each kind and within a kind from each document, then as they
    came."""
    random = Random(seed)
    turns: dict[str, list[Made]] = {}
    for kind in dict.fromkeys(each.kind for each in made):
        by_document: dict[str, list[Made]] = defaultdict(list)
        for each in made:
            if each.kind == kind:
                by_document[each.document].append(each)
        piles = list(by_document.values())
        random.shuffle(piles)
        for pile in piles:
            random.shuffle(pile)
        turns[kind] = [pile[at] for at in range(max(map(len, piles))) for pile in piles if at < len(pile)]
    longest = max(map(len, turns.values()), default=0)
    chosen = [pile[at] for at in range(longest) for pile in turns.values() if at < len(pile)][:limit]
    order = {id(each): at for at, each in enumerate(made)}
    return sorted(chosen, key=lambda each: order[id(each)])
