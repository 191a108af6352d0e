"""`frequent_words`: the most frequent made-up words of a text in which frequency falls off as in a language."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as numbers_from

from longreach.evaluate.tasks import Example, Question, tasks
from longreach.evaluate.tasks.generated import Generated, segments
from longreach.evaluate.vocabulary import values


@tasks.register("frequent_words")
@dataclass(frozen=True)
class FrequentWords(Generated):
    """Made-up words, the one of rank r about r^-`alpha` times as often as the first (Hsieh et al. 2024, RULER, arXiv
    2404.06654). Wanted are the `top` most frequent."""

    alpha: float = 2.0
    top: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.questions != 1:
            raise ValueError("this task asks one question about a context")
        if self.alpha <= 1 or self.top < 1:
            raise ValueError("alpha must be above 1, top at least 1")

    def example(self, number: int) -> Example:
        random = self.random(number)
        fresh, words = values("words", random), list[str]()

        def build(first: int) -> Example:
            """The text in which the first word comes `first` times, and no word more often than it should."""
            listed: list[str] = []
            times = first
            for rank in numbers_from(1):
                natural = int(first * rank**-self.alpha)
                # Words that are asked for differ in how often they come, from each other and from the next.
                if rank <= self.top:
                    times = max(natural, 2 * (self.top + 1 - rank))
                else:
                    times = min(natural, times - (rank == self.top + 1))
                if times < 1:
                    break
                if rank > len(words):
                    words.append(next(fresh))
                listed += [words[rank - 1]] * times
            self.random(number, "order").shuffle(listed)
            context, _ = segments(listed)
            return Example(str(number), (self._asked(words[: self.top]),), _INSTRUCTIONS, context, self.mode)

        return self._filled(build(self.fitted(build, self.length // 8)[1]))

    def _filled(self, made: Example) -> Example:
        """With prose before it, which has none of the words, where a step of the frequencies is coarse."""
        start = self.random(int(made.id), "prose").randrange(len(self.hay.sentences))

        def build(words: int) -> Example:
            before = (" ".join(self.hay.stretch(start, words)),) if words else ()
            return Example(made.id, made.questions, made.instructions, (*before, *made.context), made.mode)

        return self.fitted(build, 1)[0]

    def _asked(self, top: list[str]) -> Question:
        text = f"Which {len(top)} made-up words come most often?"
        lead = f"The {len(top)} made-up words that come most often are"
        return Question(text, tuple(top), "all_answers", 16 + 8 * len(top), lead)


_INSTRUCTIONS = "Below is a text of made-up words. Find out which of them come most often."
