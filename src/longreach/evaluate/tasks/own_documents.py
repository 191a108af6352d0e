"""`own_documents`: questions about a library of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from longreach.errors import InputError
from longreach.evaluate.questions.file import Asked, read_questions
from longreach.evaluate.tasks import Example, Question, tasks
from longreach.types import Document

if TYPE_CHECKING:
    from longreach.library import Library


@tasks.register("own_documents")
@dataclass(frozen=True)
class OwnDocuments:
    """The questions of a file, as `longreach eval --make-questions` writes it, about the library in a folder."""

    library: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if not self.library or not self.file:
            raise ValueError("name a library and a file of questions")

    @property
    def chance(self) -> float:
        return 0.0

    @property
    def answered(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._asked)

    def examples(self) -> Iterator[Example]:
        for one in self._asked:
            asked = Question(one.question, one.answers, one.metric, relevant={one.document: 1})
            yield Example(one.id, (asked,))

    def documents(self) -> Sequence[Document]:
        with self.opened() as library:
            return [library.get(info.id) for info in library.documents()]

    def opened(self) -> Library:
        """The library. Raises LibraryError where there is none."""
        from longreach.library import Library

        return Library.open(Path(self.library))

    @cached_property
    def spans(self) -> Mapping[str, Asked]:
        """What is asked, by the example's id. Raises InputError where the documents have changed since."""
        with self.opened() as library:
            known = {info.id for info in library.documents()}
            for one in self._asked:
                text = library.get(one.document).text if one.document in known else ""
                if text[one.start : one.end] != one.quote:
                    raise InputError(
                        f"{self.file}, question {one.id}: its quote does not stand in {one.document} any more; "
                        "make the questions anew, or set its keep to false"
                    )
        return {one.id: one for one in self._asked}

    @cached_property
    def _asked(self) -> list[Asked]:
        return read_questions(Path(self.file).expanduser())
