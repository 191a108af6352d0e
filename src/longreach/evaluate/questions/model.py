"""`model`: an engine asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longreach.corpus.sentences import sentences, trim
from longreach.evaluate.metrics.answers import contained
from longreach.evaluate.questions import Made, makers
from longreach.evaluate.questions.names import NAME
from longreach.evaluate.questions.numbers import NUMBER
from longreach.registry import resource
from longreach.types import Document
from longreach.words import content_words

if TYPE_CHECKING:
    from longreach.engine import Engine

_EXAMPLE = "Text: The lighthouse of Ostra was built in 1871 by two brothers.\nAnswer: 1871\nQuestion: When was the\
 lighthouse of Ostra built?\n\n"


@makers.register("model")
@dataclass(frozen=True)
class ModelQuestions:
    """For sentences with a number or a name, `each` at most of a document: the model writes the question that it
    answers. What it writes is kept where it is a question that shares two words with the sentence and does not tell
    the answer."""

    engine: Engine = resource()
    each: int = 5
    longest: int = 300

    def make(self, document: Document) -> Iterator[Made]:
        made = 0
        for start, end in sentences(document):
            first, last = trim(document.text, start, end)
            sentence = " ".join(document.text[first:last].split())
            found = NUMBER.search(sentence) or NAME.search(sentence, 1)
            if made == self.each or found is None or len(sentence) > self.longest or not sentence.endswith("."):
                continue
            prompt = f"{_EXAMPLE}Text: {sentence}\nAnswer: {found[0]}\nQuestion:"
            (done,) = self.engine.generate([prompt], max_tokens=40, stop=("\n",))
            question = done.text.strip()
            shared = content_words(question) & content_words(sentence)
            if question.endswith("?") and len(shared) >= 2 and not contained(question, found[0]):
                made += 1
                yield Made(question, found[0], document.id, first, last, "model")
