"""What `longreach eval` and `longreach tune` run tasks with: engines, libraries and who answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from longreach.cli.common import note, token_counter
from longreach.config import READER, Settings, load_settings
from longreach.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from longreach.engine import Engine
    from longreach.evaluate.grid import Point
    from longreach.evaluate.metrics.judge import Judge
    from longreach.evaluate.respond import Respondent
    from longreach.evaluate.sweep import Source
    from longreach.evaluate.tasks import CorpusTask, Task
    from longreach.library import Library

_SEARCH = ("retriever", "reranker", "k")
_MODEL = ("policy", "form")
CHUNK = "chunk"
"""Short for a chunker of sentences with so many tokens."""
REUSE = "reuse"
"""How a reader's model reuses the passages that it has read: a way, or as the setting has it."""
AXES = (*_MODEL, CHUNK, "chunker", REUSE, *READER)
"""What a sweep can vary."""


def own_documents(specs: Sequence[str]) -> list[str]:
    """Task specs, in which a library and the questions about it, one after the other, have become a task."""
    made: list[str] = []
    for spec in specs:
        if spec.endswith(".jsonl") and made and Path(made[-1]).expanduser().is_dir():
            made[-1] = f"own_documents(library={made[-1]!r}, file={spec!r})"
        else:
            made.append(spec)
    return made


def settings_at(settings: Settings, point: Point) -> Settings:
    """The settings with the values of a point in their places. Raises InputError for one that cannot be."""
    given = {name: value for name, value in point.items() if name not in (*_MODEL, CHUNK)}
    if CHUNK in point:
        if "chunker" in point:
            raise InputError("chunk and chunker are one axis: name one of them")
        given["chunker"] = f"sentence(tokens={point[CHUNK]})"
    return load_settings(**{**settings.model_dump(include=settings.model_fields_set), **given})


class Parts:
    """What tasks are run with, made when the first task needs it."""

    def __init__(self, settings: Settings, form: Literal["text", "chat"], policy: str, judge: str) -> None:
        self.settings = settings
        self.form: Literal["text", "chat"] = form
        self.policy = policy
        self._judge = judge
        self._libraries: dict[Path, Library] = {}
        self._engines: dict[str, Engine] = {}

    def task(self, spec: str) -> Task:
        """The task that `spec` names; lengths are counted as the answering model does."""
        from longreach.evaluate.tasks import tasks

        count = token_counter(self.settings) or (lambda text: self.engine.count(text))
        return tasks.make(spec, count=count)

    def respondent(self, task: Task, settings: Settings | None = None) -> Respondent:
        """Who answers a task: a search where documents are wanted, a reader where a corpus is asked, else a model."""
        from longreach.evaluate.corpus import corpus_digest
        from longreach.evaluate.respond import ModelRespondent, ReaderRespondent, SearchRespondent
        from longreach.evaluate.stages import StagesRespondent
        from longreach.evaluate.tasks import CorpusTask
        from longreach.evaluate.tasks.own_documents import OwnDocuments

        if not isinstance(task, CorpusTask):
            return ModelRespondent(self.engine, self.form, self.policy)
        if self.policy:
            raise InputError("a KV policy is for tasks that a model reads by itself: leave --policy away")
        settings = settings or self.settings
        library = self._library(task, settings)
        # A library of one's own may have changed since; one in the cache is named by what is in it.
        own = isinstance(task, OwnDocuments)
        corpus = corpus_digest(library.documents()) if own else library.path.stem
        if not task.answered:
            k = settings.k if "k" in settings.model_fields_set else 100
            return SearchRespondent(library, corpus, settings.retriever, settings.reranker, k)
        from longreach.reader import Reader

        columns = {"corpus": corpus, **{name: str(getattr(settings, name)) for name in READER}}
        reader = Reader.configured(library, self._engine_at(settings), settings)
        if isinstance(task, OwnDocuments):
            return StagesRespondent(reader, columns, task.spans)
        return ReaderRespondent(reader, columns)

    def sources(self, task: Task, points: Sequence[Point]) -> list[Source]:
        """Who answers at each point; points that differ in the KV policy alone, or have a model read the same passages,
        share what is read."""
        from longreach.evaluate.respond import ReaderRespondent
        from longreach.evaluate.shared_reading import SharedReading
        from longreach.evaluate.sweep import Alone
        from longreach.evaluate.tasks import CorpusTask

        usable: tuple[str, ...] = _MODEL
        if isinstance(task, CorpusTask):
            usable = ("chunker", CHUNK, *((REUSE, *READER) if task.answered else _SEARCH))
        if wrong := next((name for point in points for name in point if name not in usable), None):
            raise InputError(f"{wrong} changes nothing in this task; a sweep over it can vary {', '.join(usable)}")
        if isinstance(task, CorpusTask):
            respondents = [self.respondent(task, settings_at(self.settings, point)) for point in points]
            readers = [(p, r) for p, r in zip(points, respondents, strict=True) if isinstance(r, ReaderRespondent)]
            if len(readers) == len(points):
                together: Source = SharedReading(readers)
                return [together for _ in points]
            return [Alone(respondent) for respondent in respondents]
        shared = {form: self._shared(form) for form in dict.fromkeys(point.get("form", self.form) for point in points)}
        return [shared[point.get("form", self.form)] for point in points]

    def _shared(self, form: str) -> Source:
        from longreach.engine.paged import PagedEngine
        from longreach.evaluate.respond import settle
        from longreach.evaluate.shared_prefill import SharedPrefill

        if form not in ("text", "chat"):
            raise InputError(f"form={form} is neither text nor chat")
        if not isinstance(self.engine, PagedEngine):
            raise UnsupportedError(f"{self.engine.model} takes no KV policy: sweep with a model that is loaded here")
        settle(self.engine)
        return SharedPrefill(self.engine, "text" if form == "text" else "chat")

    def _engine_at(self, settings: Settings) -> Engine:
        """The engine that reuses as `settings` say: over the same weights, where it runs here."""
        if settings.reuse == self.settings.reuse:
            return self.engine
        if settings.reuse not in self._engines:
            from longreach.engine.paged import PagedEngine

            if not isinstance(self.engine, PagedEngine):
                raise UnsupportedError(
                    f"{self.engine.model} reuses as it likes: sweep with a model that is loaded here"
                )
            self._engines[settings.reuse] = self._reusing(self.engine.another(), settings)
        return self._engines[settings.reuse]

    @cached_property
    def engine(self) -> Engine:
        from longreach.cli.ask import make_engine

        return self._reusing(make_engine(self.settings.model_copy(update={"reuse": "off"})), self.settings)

    def _reusing(self, engine: Engine, settings: Settings) -> Engine:
        """An engine that reuses as `settings` say, with a store of its own: it forgets everything before each example,
        and what the user had read ahead shall stay."""
        from longreach.engine.gate import begin_reuse
        from longreach.engine.paged import PagedEngine

        if isinstance(engine, PagedEngine):
            begin_reuse(engine, settings.model_copy(update={"store": settings.cache / "evaluation-kv"}), note)
        return engine

    @cached_property
    def judge(self) -> Judge | None:
        from longreach.evaluate.metrics.judge import Judge

        if not self._judge:
            return None
        from longreach.cli.ask import make_engine
        from longreach.evaluate.respond import settle

        engine = make_engine(self.settings.model_copy(update={"model": self._judge}))
        settle(engine)
        return Judge(engine)

    def _library(self, task: CorpusTask, settings: Settings) -> Library:
        """The corpus of a task as a library, kept in the cache for the next run; a library that is asked about itself
        is taken as it is, unless documents are to be cut otherwise."""
        from longreach.cli.common import open_library
        from longreach.evaluate.corpus import corpus_folder
        from longreach.evaluate.tasks.own_documents import OwnDocuments
        from longreach.library.defaults import canonical_chunker

        wanted = canonical_chunker(settings.chunker)
        if isinstance(task, OwnDocuments):
            with task.opened() as own:
                same = "chunker" not in settings.model_fields_set or canonical_chunker(own.chunker_spec) == wanted
            if same:
                folder = Path(task.library).expanduser().absolute()
                return self._open(folder, lambda: open_library(settings.model_copy(update={"library": folder})))
        documents = task.documents()
        folder = corpus_folder(settings, documents)
        chosen = settings.model_copy(update={"library": folder})
        library = self._open(folder, lambda: open_library(chosen, create=True, chunker=settings.chunker))
        if library.stats().documents < len(documents):
            note(f"indexing {len(documents):,} documents, once for {settings.chunker}")
            library.add_documents(documents)
        return library

    def _open(self, folder: Path, opening: Callable[[], Library]) -> Library:
        if folder not in self._libraries:
            self._libraries[folder] = opening()
        return self._libraries[folder]

    def close(self) -> None:
        for library in self._libraries.values():
            library.close()
        self._libraries.clear()
