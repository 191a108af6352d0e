"""`longreach tune LIBRARY --ttft 0.5s --memory 2GB`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from longreach.cli import options
from longreach.cli.common import note, out, shown_path
from longreach.config import Settings, load_settings
from longreach.errors import InputError

if TYPE_CHECKING:
    from longreach.engine import Engine
    from longreach.evaluate.grid import Point
    from longreach.evaluate.tune import Choice

GRID = "retriever=hybrid,bm25; k=8,16; chooser=top_k(k=2..8),sage; prompt_tokens=1024,2048"
FILE = Path("longreach.toml")


def tune(
    target: Annotated[
        str, typer.Argument(metavar="LIBRARY", help='A library, or a task such as "corpus_qa(pack=nq_passages)".')
    ],
    ttft: Annotated[
        str | None, typer.Option(metavar="TIME", help="To the first token, in the median: 0.5s, 500ms.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="For weights and the KV of an answer: 2GB, 512MiB.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="About the library; without it, some are made first.")
    ] = None,
    sweep: Annotated[str, typer.Option(metavar="GRID", help="What is tried.")] = GRID,
    limit: Annotated[int, typer.Option(min=4, help="Ask at most N questions.")] = 64,
    model: options.Model = None,
    answer: options.Answerer = None,
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where what was tried is kept.")] = Path(
        "longreach-tune"
    ),
    file: Annotated[Path, typer.Option("--toml", metavar="FILE", help="Where the choice is written.")] = FILE,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the choice here.")] = None,
) -> None:
    """Find the best way to answer from a library within a budget, and write it to longreach.toml.

    Safe to interrupt and to run again: it goes on where it was.
    """
    from longreach.cli.eval_parts import AXES, Parts
    from longreach.cli.sweep import run_arms, show_marks
    from longreach.evaluate.frontier import marks
    from longreach.evaluate.grid import parse_grid
    from longreach.evaluate.provenance import provenance
    from longreach.evaluate.quantities import seconds, size
    from longreach.evaluate.results import Results
    from longreach.evaluate.run import label
    from longreach.evaluate.tasks import CorpusTask
    from longreach.evaluate.tune import Limits, choose, first_round

    wanted_ttft = None if ttft is None else seconds(ttft)
    wanted_bytes = None if memory is None else size(memory)
    grid = parse_grid(sweep, [axis for axis in AXES if axis not in ("policy", "form")])
    settings = load_settings(model=model, answer=answer)
    parts = Parts(settings, "text", "", "")
    with Results(folder / "results.jsonl") as results:
        try:
            task = parts.task(_spec(target, questions, folder, limit, settings))
            if not isinstance(task, CorpusTask) or not task.answered:
                raise InputError(
                    f"{target} is no library, nor a task about a corpus with answers: nothing can be tuned"
                )
            weights = 0 if wanted_bytes is None else _weights(parts.engine)
            if wanted_bytes is not None and weights >= wanted_bytes:
                raise InputError(f"the weights alone take {weights / 1e6:,.0f} MB: allow more, or use a smaller model")
            limits = Limits(wanted_ttft, None if wanted_bytes is None else wanted_bytes - weights)
            examples = min(limit, len(task))
            first = first_round(len(grid.points()), examples)
            arms = run_arms(task, parts, grid, results, limit, limits.better_half, first)
        finally:
            parts.close()
    show_marks(marks(label(task), arms))
    choice = choose(arms, limits, examples)
    _tell(choice)
    _write(file, settings, choice.arm.point, f"tuned on {target}")
    note(f"written to {shown_path(str(file.absolute()))}")
    if as_json:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(
            json.dumps({**provenance(), **_as_object(choice)}, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )


def _spec(target: str, questions: Path | None, folder: Path, limit: int, settings: Settings) -> str:
    """The task: a library's questions, made where there are none."""
    path = Path(target).expanduser()
    if not path.is_dir():
        if questions is not None:
            raise InputError(f"{target} is no library: --questions are asked about one")
        return target
    if questions is None:
        questions = folder / "questions.jsonl"
        if not questions.exists():
            from longreach.cli.make_questions import make_questions

            make_questions(path, (), questions, limit, settings)
    return f"own_documents(library={str(path)!r}, file={str(questions)!r})"


def _weights(engine: Engine) -> int:
    """The bytes of the weights as they were loaded; 0 where they are a server's."""
    from longreach.engine.paged import PagedEngine

    if not isinstance(engine, PagedEngine):
        return 0
    return sum(weight.numel() * weight.element_size() for weight in engine.loaded.model.parameters())


def _tell(choice: Choice) -> None:
    arm, score = choice.arm, choice.score
    out.print(f"[bold]{escape(arm.name)}[/]")
    out.print(
        f"score {score.mean:.3f} ({score.low:.3f} to {score.high:.3f}, {score.n} questions), first token "
        f"{arm.ttft:.2f} s, KV {arm.kv_bytes / 1e6:,.1f} MB"
    )
    if choice.second:
        second, difference = choice.second
        better = difference.difference
        out.print(
            f"better than {escape(second.name)} by {better.mean:.3f} ({better.low:.3f} to {better.high:.3f} on "
            f"{better.n} questions); first in {choice.sure:.0%} of draws"
        )
    note(f"{choice.cost:.0%} of the answers that the whole grid would have taken")


def _write(file: Path, settings: Settings, point: Point, comment: str) -> None:
    from longreach.cli.eval_parts import settings_at
    from longreach.evaluate.settings_file import write_settings

    chosen = settings_at(settings, point)
    names = ["chunker" if axis == "chunk" else axis for axis in point]
    values: Mapping[str, str | int | float] = {name: getattr(chosen, name) for name in names}
    write_settings(file, values, comment)
    if "chunker" in values:
        note(f"chunker {values['chunker']} is for new libraries: index the documents into one")


def _as_object(choice: Choice) -> dict[str, object]:
    second = choice.second
    return {
        "point": dict(choice.arm.point),
        "score": {"mean": choice.score.mean, "low": choice.score.low, "high": choice.score.high, "n": choice.score.n},
        "ttft": choice.arm.ttft,
        "kv_bytes": choice.arm.kv_bytes,
        "sure": choice.sure,
        "second": None if second is None else {"point": dict(second[0].point), "better": second[1].difference.mean},
        "cost": choice.cost,
    }
