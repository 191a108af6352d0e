"""`common_words`: which words of a long list come most often?"""

from __future__ import annotations

from dataclasses import dataclass

from longreach.evaluate.tasks import Example, Question, tasks
from longreach.evaluate.tasks.generated import Generated, segments


@tasks.register("common_words")
@dataclass(frozen=True)
class CommonWords(Generated):
    """A list of words of the haystack's vocabulary, mixed: `common` of them stand there `often` times, the others
    `seldom` times (Hsieh et al. 2024, RULER, arXiv 2404.06654). Wanted are the common ones."""

    common: int = 10
    often: int = 30
    seldom: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.questions != 1:
            raise ValueError("this task asks one question about a context")
        if self.common < 1 or not 1 <= self.seldom < self.often:
            raise ValueError("common must be at least 1, and seldom at least 1 and less than often")

    def example(self, number: int) -> Example:
        random = self.random(number)
        words = list(self.hay.vocabulary)
        random.shuffle(words)
        common, others = words[: self.common], words[self.common :]

        def build(count: int) -> Example:
            listed = common * self.often + others[:count] * self.seldom
            self.random(number, "order").shuffle(listed)
            context, _ = segments(listed)
            return Example(str(number), (self._asked(common),), _INSTRUCTIONS, context, self.mode)

        most = len(others)
        made, taken = self.fitted(build, self.length // (2 * self.seldom), most)
        if taken == most:
            raise ValueError(f"the haystack {self.haystack!r} has too few words for length={self.length}")
        return made

    def _asked(self, common: list[str]) -> Question:
        text = f"Which {len(common)} words come most often in the list?"
        lead = f"The {len(common)} words that come most often are"
        return Question(text, tuple(common), "all_answers", 16 + 6 * len(common), lead)


_INSTRUCTIONS = "Below is a long list of words. Some come far more often than the others. Keep count."
