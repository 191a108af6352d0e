"""Questions that lean on what was said before, on talks made by hand: what to search for, and what to ask the model.

| way | searched for | asked |
|---|---|---|
| last alone | the last question | the last question |
| all | all questions | the last question |
| with the last that stood | if the last leans, also the last before it that did not | the last question |
| and its answer | the same, with what was answered to it | the last question |
| asked as searched for | as "with the last that stood" | the same |
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from follow_talks import ANSWERED, LEANING, STANDING, TEXTS, Talk
from harness import Options, Result, Row, at_least, run
from longreach import Engine, Library, Reader
from longreach.search.follow import Asked, followed, leans
from longreach.types import Answer

Way = Callable[[str, Sequence[Asked]], tuple[str, str]]
"""From the last question and what was before: what is searched for, and what is asked."""
FOLLOWED = "with the last that stood"


def with_answer(question: str, before: Sequence[Asked]) -> str:
    """As `followed`, with what was answered to the question that stood, and to all since."""
    if not leans(question):
        return question
    stood = next((at for at in reversed(range(len(before))) if not leans(before[at].question)), 0)
    said = [f"{turn.question} {turn.answer}" if at == stood else turn.answer for at, turn in enumerate(before)]
    return " ".join([*said[stood:], question])


WAYS: dict[str, Way] = {
    "last alone": lambda question, before: (question, question),
    "all": lambda question, before: (" ".join([*(turn.question for turn in before), question]), question),
    FOLLOWED: lambda question, before: (followed(question, before), question),
    "and its answer": lambda question, before: (with_answer(question, before), question),
    "asked as searched for": lambda question, before: (followed(question, before), followed(question, before)),
}


def last(ask: Callable[[str, str], Answer], talk: Talk, way: Way) -> Answer:
    """The answer to a talk's last question, those before having been asked the same way."""
    before: list[Asked] = []
    for question in talk.questions:
        answer = ask(*way(question, before))
        before.append(Asked(question, answer.text if answer.found else ""))
    return answer


def measure(options: Options) -> Result:
    parts = {"leaning": LEANING, "standing": STANDING, "meant was answered": ANSWERED}
    ways = {FOLLOWED: WAYS[FOLLOWED]} if options.quick else WAYS
    rows: list[Row] = []
    right: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        library = Library.open(Path(folder) / "talks.library", create=True)
        for name, text in TEXTS.items():
            library.add_text(name, text)
        reader = Reader(library, Engine.load("embedded", reuse="off"))

        @cache  # ways often agree
        def ask(query: str, asked: str) -> Answer:
            return reader.ask(asked, query=query)

        for name, way in ways.items():
            for part, talks in parts.items():
                answers = [last(ask, talk, way) for talk in talks]
                first = [
                    bool(one.nearest) and one.nearest[0].document.id == talk.text
                    for one, talk in zip(answers, talks, strict=True)
                ]
                good = [talk.expected in one.text for one, talk in zip(answers, talks, strict=True)]
                untold = sum(not one.found for one in answers)
                right[name, part] = sum(good) / len(good)
                rows.append(
                    {
                        "way": name,
                        "talks": part,
                        "of them": len(talks),
                        "text found first": sum(first),
                        "right": sum(good),
                        "not told": untold,
                        "wrong": len(talks) - sum(good) - untold,
                    }
                )
                print(rows[-1], flush=True)
        library.close()
    bars = []
    if not options.quick:
        bars = [
            at_least(f"{part}: right, beside the last alone", right[FOLLOWED, part] - right["last alone", part], least)
            for part, least in (("leaning", 0.3), ("standing", 0.0))
        ]
    told = sum(leans(talk.questions[-1]) == talk.leaning for talks in parts.values() for talk in talks)
    return Result(
        rows, bars, [f"whether the last question leans is seen right in {told} of {sum(map(len, parts.values()))}"]
    )


if __name__ == "__main__":
    run("follow", measure, about=__doc__ or "")
