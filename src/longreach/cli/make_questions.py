"""`longreach eval --make-questions LIBRARY`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreach.cli.common import err, note, out, shown_path
from longreach.config import Settings
from longreach.errors import InputError

if TYPE_CHECKING:
    from longreach.evaluate.questions import Made

MOST = 100


def make_questions(folder: Path, specs: Sequence[str], file: Path, limit: int | None, settings: Settings) -> list[Made]:
    """Write at most `limit` questions about the documents of a library to `file`; nothing is written over."""
    from longreach.evaluate.questions.file import write_questions
    from longreach.evaluate.questions.harvest import RULES, harvest
    from longreach.library import Library

    if file.exists():
        raise InputError(f"{file} is there already: name another file with --questions, or remove it")
    makers = _makers(specs or RULES, settings)
    with Library.open(folder) as library, err.status("[dim]reading[/]") as status:

        def show(read: int, made: int) -> None:
            status.update(f"[dim]{read:,} documents, {made:,} questions[/]")

        found = harvest(library, makers, limit or MOST, show)
    kept = found.kept
    if not kept:
        raise InputError(f"no question could be made from {folder}: its texts have no sentence that answers just one")
    write_questions(file, kept, [found.texts[one.document][one.start : one.end] for one in kept])
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in Counter(one.kind for one in kept).items())
    out.print(f"{len(kept):,} questions ({kinds}) of {found.made:,} made: {shown_path(str(file.absolute()))}")
    note(f"look through them: change a line, or set its keep to false; then: longreach eval {folder} {file}")
    return kept


def _makers(specs: Sequence[str], settings: Settings) -> list[Any]:
    from longreach.evaluate.questions import makers
    from longreach.registry import parse

    engine = None
    if any(parse(spec).name == "model" for spec in specs):
        from longreach.cli.ask import make_engine

        engine = make_engine(settings)
    return [makers.make(spec, engine=engine) for spec in specs]
