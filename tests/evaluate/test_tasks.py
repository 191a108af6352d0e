"""What every task promises: the right answer scores 1, another one about nothing, and contexts are as long as asked."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import pytest

from longreach.errors import InputError, SpecError
from longreach.evaluate.baselines import Guesser, Oracle
from longreach.evaluate.prompt import ideal, parts, prompt
from longreach.evaluate.results import Results
from longreach.evaluate.run import run
from longreach.evaluate.tasks import CorpusTask, Task, tasks
from longreach.evaluate.tasks.generated import Generated
from longreach.tokens import Tokenizer

SHARED = ("kv_retrieval_75", "longeval_lines", "qmsum")
"""Tasks that are data sets of the shared folder."""
SINGLE = ("common_words", "frequent_words", "long_generation")
"""Tasks that ask one question about a context."""
GENERATED = [name for name in tasks.names() if issubclass(tasks.get(name), Generated)]
SIZES = (1500, 4000)


def scored(task: Task, respondent, folder: Path, limit: int | None = None) -> float:
    with Results(folder / "results.jsonl") as results:
        return fmean(line["score"] for line in run(task, respondent, results, limit=limit))


@pytest.mark.parametrize("name", [name for name in tasks.names() if name not in SHARED])
def test_the_right_answer_scores_one(name: str, make, tmp_path: Path) -> None:
    assert scored(make(name), Oracle(), tmp_path) == 1.0


@pytest.mark.parametrize("name", [name for name in tasks.names() if name not in SHARED])
def test_another_answer_scores_about_what_chance_gives(name: str, make, tmp_path: Path) -> None:
    task = make(name, n=24)
    assert abs(scored(task, Guesser(task), tmp_path, limit=24) - task.chance) <= (0.35 if task.chance else 0.05)


@pytest.mark.parametrize("name", SHARED)
def test_shared_data_is_asked_about_as_it_is(name: str, tmp_path: Path) -> None:
    try:
        task = tasks.make(name)
        assert len(task) > 0
    except InputError as error:
        pytest.skip(str(error))
    assert scored(task, Oracle(), tmp_path, limit=5) == 1.0
    assert scored(task, Guesser(task), tmp_path / "other", limit=5) < 0.35


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("name", GENERATED)
def test_a_context_is_as_long_as_asked_to_one_percent(name: str, length: int, make) -> None:
    task = make(name, length=length)
    for example in task.examples():
        assert 0.99 * length <= task.count("".join(parts(example))) <= length


@pytest.mark.parametrize("name", GENERATED)
def test_a_real_tokenizer_is_met_as_well(name: str, make, stories: Path) -> None:
    counter = Tokenizer.from_file(stories / "tokenizer.json")
    for example in make(name, counter, length=6000, n=1).examples():
        assert 0.99 * 6000 <= counter("".join(parts(example))) <= 6000


@pytest.mark.parametrize("name", GENERATED)
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(name: str, make) -> None:
    one, same, other = (list(make(name, seed=seed).examples()) for seed in (3, 3, 4))
    assert repr([asdict(example) for example in one]) == repr([asdict(example) for example in same])
    assert all(a.context != b.context for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", GENERATED)
def test_an_example_is_the_same_among_few_or_many(name: str, make) -> None:
    assert list(make(name, n=2).examples()) == list(itertools.islice(make(name, n=5).examples(), 2))


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_asked_for_stands_in_the_segments_that_are_said_to_tell_it(name: str, make) -> None:
    for example in make(name).examples():
        for question in example.questions:
            told = "\n".join(example.context[at] for at in question.gold)
            assert question.metric == "choice" or not question.gold or all(a in told for a in question.answers)
            assert "" not in question.answers


@pytest.mark.parametrize("mode", ["multi_request", "multi_turn"])
@pytest.mark.parametrize("name", [name for name in GENERATED if name not in SINGLE])
def test_several_questions_share_a_context_in_both_modes(name: str, mode: str, make) -> None:
    more = {"chains": 3} if name == "variable_tracking" else {"threads": 3}
    (example,) = make(name, n=1, questions=3, mode=mode, **more).examples()
    assert len(example.questions) == 3
    assert len({question.text for question in example.questions}) == 3
    texts = ["".join(parts(example, number)) for number in range(3)]
    shared = "".join(part + "\n\n" for part in (example.instructions, *example.context))
    assert all(text.startswith(shared) for text in texts)
    earlier = f"{example.questions[0].text}\nAnswer:"
    assert (earlier in texts[2]) == (mode == "multi_turn")
    if mode == "multi_turn":
        assert texts[2].startswith(f"{texts[1]} {ideal(example.questions[1])}")


@pytest.mark.parametrize("name", GENERATED)
def test_a_length_that_cannot_hold_what_must_be_told_is_refused(name: str, make) -> None:
    with pytest.raises(InputError, match="too short"):
        list(make(name, length=12).examples())


@pytest.mark.parametrize("name", SINGLE)
def test_a_task_that_asks_one_question_says_so(name: str, make) -> None:
    with pytest.raises(SpecError, match="one question"):
        make(name, questions=2)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("niah_single(depth=2.0)", "out of range"),
        ("niah_multikey(keys=1, questions=2)", "no fewer than"),
        ("niah_single(needles=3)", "it takes: length"),
        ("order_recall(excerpts=1)", "2 to 8"),
        ("frequent_words(alpha=1.0)", "above 1"),
        ("needle_threading(threads=1, follow=2)", "threads enough"),
        ("niah_single(mode=both)", "not usable"),
        ("corpus_qa(metric=bleu)", "is none of exact_match"),
        ("needle", "known: common_words"),
    ],
)
def test_a_wrong_option_is_one_sentence(spec: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        tasks.make(spec, count=len)


def test_a_missing_haystack_names_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGREACH_DATA", str(tmp_path))
    (tmp_path / "hay.json.gz").write_bytes(b"")
    with pytest.raises(InputError, match="there are: hay"):
        next(tasks.make("niah_single(haystack=grass)", count=len).examples())
    monkeypatch.setenv("LONGREACH_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match="set LONGREACH_DATA"):
        next(tasks.make("niah_single(haystack=grass)", count=len).examples())


@pytest.mark.parametrize("depth", [0.0, 1.0])
def test_a_needle_stands_at_its_depth(depth: float, make) -> None:
    for example in make("niah_single", depth=depth).examples():
        place = " ".join(example.context).index(example.questions[0].answers[0])
        assert abs(place / len(" ".join(example.context)) - depth) < 0.05


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_thread_is_followed_from_pair_to_pair(direction: str, make) -> None:
    for example in make("needle_threading", hops=3, direction=direction, branches=2, length=3000).examples():
        lines = [line for segment in example.context for line in segment.split("\n") if line.startswith('"')]
        pairs = [line.rstrip(",").replace('"', "").split(": ") for line in lines]
        keys = {key for key, _ in pairs}
        at = example.questions[0].text.split('"')[1]
        places = []
        for _ in range(3):
            (place, at), *others = sorted(
                ((place, value) for place, (key, value) in enumerate(pairs) if key == at),
                key=lambda pair: (pair[1] not in keys, pair[1] not in example.questions[0].answers),
            )
            places.append(place)
            assert len(others) == 1
            assert others[0][1] not in keys
        assert (at,) == example.questions[0].answers
        assert places == sorted(places, reverse=direction == "backward")


def test_the_words_asked_for_are_the_most_frequent(make) -> None:
    for name in ("common_words", "frequent_words"):
        for example in make(name).examples():
            words = " ".join(example.context).split()
            asked = example.questions[0].answers
            least = min(words.count(word) for word in asked)
            assert all(words.count(word) < least for word in set(words) - set(asked))


def test_the_order_asked_for_is_that_of_the_text(make) -> None:
    for example in make("order_recall", excerpts=3).examples():
        text = " ".join(example.context)
        question = example.questions[0]
        shown = {line[0]: line[5:-2] for line in question.text.split("\n") if line[1:3] == ": "}
        places = [text.index(shown[letter][:40]) for letter in question.answers[0]]
        assert places == sorted(places)


def test_confusing_facts_are_invented_and_tell_something_else(make, pack: Path) -> None:
    original = pack.read_text()
    for example in make("confusing_facts", facts=2).examples():
        (question,) = example.questions
        assert question.answers[0] not in original
        assert sum(question.answers[0] in segment for segment in example.context) == 1


def test_distractors_hold_no_answer(make) -> None:
    for example in make("qa_distractors", questions=2).examples():
        for question in example.questions:
            told = {at for at, segment in enumerate(example.context) if question.answers[0] in segment}
            assert told == set(question.gold)


def test_corpus_tasks_give_the_documents_that_their_questions_name(make) -> None:
    for name in ("retrieval", "corpus_qa"):
        task = make(name)
        assert isinstance(task, CorpusTask)
        ids = {document.id for document in task.documents()}
        assert all(set(q.relevant) <= ids for example in task.examples() for q in example.questions)
        assert task.answered == (name == "corpus_qa")


def test_a_pack_without_answers_can_be_searched_and_not_asked(tmp_path: Path, make) -> None:
    (tmp_path / "p.json").write_text('{"docs": {"d": "x"}, "queries": {"q": "x"}, "qrels": {"q": {"d": 1}}}')
    assert len(make("retrieval", pack=str(tmp_path / "p.json"))) == 1
    with pytest.raises(InputError, match="has no answers"):
        len(make("corpus_qa", pack=str(tmp_path / "p.json")))


def test_a_chat_holds_the_same_words_in_turns(make) -> None:
    (example,) = make("niah_multikey", n=1, questions=2, mode="multi_turn").examples()
    first, told, second = prompt(example, 1, "chat")
    assert first.content.startswith(example.instructions)
    assert first.content.endswith(example.questions[0].text)
    assert (told.role, told.content) == ("assistant", example.questions[0].answers[0])
    assert second.content == example.questions[1].text
