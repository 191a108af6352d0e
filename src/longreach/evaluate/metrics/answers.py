"""An answer in words against the answers that are wanted.

Texts are compared in the plain form of SQuAD's evaluation (Rajpurkar et al. 2016, arXiv 1606.05250): lower case,
without ASCII punctuation and English articles. Where several references are given, the best one counts, unless a metric
says that all are wanted. All values lie between 0 and 1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"^\s*(\d+)\s*[.):]\s*(.*)$")
_WEIGHTLESS = frozenset(
    "about after also and are as at be been being but by did do does for from had has have he her his how if in into is"
    " it its may no not of on or over she so than that their them then there these they this to under up was were what"
    " when where which while who whom why will with".split()
)
LEAST_KEYWORDS = 0.2
"""Below this share of keywords, LV-Eval counts an English answer as wrong."""


def plain(text: str) -> str:
    """The form in which texts are compared: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, references: Sequence[str]) -> float:
    """Whether the text is one of the references."""
    return float(any(plain(text) == plain(reference) for reference in references))


def f1(text: str, references: Sequence[str]) -> float:
    """The harmonic mean of the shares of words that text and reference have in common, for the best reference. Where
    either has no words, whether both have none (as SQuAD 2.0 has it)."""
    return max((_f1(plain(text).split(), plain(reference).split()) for reference in references), default=0.0)


def reference_recall(text: str, references: Sequence[str]) -> float:
    """The share of the reference's words that stand in the text, for the best reference (Adlakha et al. 2023, arXiv
    2307.16877): right for models that answer in sentences."""
    words = Counter(plain(text).split())
    return max((_covered(Counter(plain(reference).split()), words) for reference in references), default=0.0)


def any_answer(text: str, references: Sequence[str]) -> float:
    """Whether a reference stands in the text, word for word."""
    return float(any(contained(text, reference) for reference in references))


def all_answers(text: str, references: Sequence[str]) -> float:
    """The share of the references that stand in the text, word for word: all are wanted."""
    return sum(contained(text, reference) for reference in references) / len(references) if references else 0.0


def keyword_recall(text: str, references: Sequence[str]) -> float:
    """LV-Eval's score (Yuan et al. 2024, arXiv 2402.05136): F1, but 0 where less than `LEAST_KEYWORDS` of the
    reference's words that carry weight stand in the text, so that an answer earns nothing by its function words."""
    words = Counter(plain(text).split())
    best = 0.0
    for reference in references:
        wanted = plain(reference).split()
        keywords = Counter(word for word in wanted if word not in _WEIGHTLESS) or Counter(wanted)
        if _covered(keywords, words) >= LEAST_KEYWORDS:
            best = max(best, _f1(plain(text).split(), wanted))
    return best


def numbered(text: str, references: Sequence[str]) -> float:
    """The share of the lines "1. …", "2. …" that hold their reference: the first line with a number counts for it."""
    lines: dict[int, str] = {}
    for line in text.splitlines():
        if match := _NUMBER.match(line):
            lines.setdefault(int(match[1]), match[2])
    right = [contained(lines.get(number, ""), reference) for number, reference in enumerate(references, start=1)]
    return sum(right) / len(right) if right else 0.0


def choice(text: str, references: Sequence[str]) -> float:
    """Whether the first run of capital letters that stands by itself is a reference: "B", or "CAB" for an order."""
    found = re.search(r"(?<![^\W_])[A-Z]+(?![^\W_])", text)
    return float(found is not None and found[0] in references)


def contained(text: str, reference: str) -> bool:
    """Whether the reference stands in the text, word for word; one without words stands nowhere."""
    wanted = plain(reference)
    return bool(wanted) and f" {wanted} " in f" {plain(text)} "


@dataclass(frozen=True, slots=True)
class AnswerMetric:
    """`score(text, references)`, and the text that a perfect answer would be."""

    score: Callable[[str, Sequence[str]], float]
    ideal: Callable[[Sequence[str]], str]


def _first(references: Sequence[str]) -> str:
    return references[0] if references else ""


def _list(references: Sequence[str]) -> str:
    return ", ".join(references)


def _lines(references: Sequence[str]) -> str:
    return "\n".join(f"{number}. {reference}" for number, reference in enumerate(references, start=1))


ANSWER_METRICS: Mapping[str, AnswerMetric] = MappingProxyType(
    {
        "exact_match": AnswerMetric(exact_match, _first),
        "f1": AnswerMetric(f1, _first),
        "reference_recall": AnswerMetric(reference_recall, _first),
        "any_answer": AnswerMetric(any_answer, _first),
        "all_answers": AnswerMetric(all_answers, _list),
        "keyword_recall": AnswerMetric(keyword_recall, _first),
        "numbered": AnswerMetric(numbered, _lines),
        "choice": AnswerMetric(choice, _first),
    }
)
"""The metrics that a question can name."""


def _f1(text: Sequence[str], reference: Sequence[str]) -> float:
    if not text or not reference:
        return float(not text and not reference)
    same = sum((Counter(text) & Counter(reference)).values())
    if not same:
        return 0.0
    precision, recall = same / len(text), same / len(reference)
    return 2 * precision * recall / (precision + recall)


def _covered(wanted: Counter[str], words: Counter[str]) -> float:
    total = sum(wanted.values())
    return sum((wanted & words).values()) / total if total else 0.0
