"""The commands as users type them, each in a process of its own, with the embedded models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with documents, good and bad."""
    folder = tmp_path_factory.mktemp("work")
    docs = folder / "docs"
    docs.mkdir()
    (docs / "pump.md").write_text(
        "# Pump\n\nThe pump turns at 900 rpm.\n\n## Bolts\n\nThe torque limit of the bolts is 25 Nm.\n"
    )
    (docs / "lake.txt").write_text(
        "Lake Baikal is a rift lake in southern Siberia. It is the deepest lake of the world.\n"
    )
    (docs / "odd\nname ü.txt").write_text("The gasket is made of cork.\n")
    (docs / "damaged.pdf").write_bytes(b"%PDF-1.4\nbroken")
    (docs / "noise.bin").write_bytes(bytes(range(256)) * 40)
    return folder


@pytest.fixture(scope="module")
def longreach(place: Path, embedded_cache: Path):
    """Runs the command in that folder; what it says is text, its exit code is checked."""

    def run(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "longreach", *arguments],
            cwd=place,
            env={
                **os.environ,
                "LONGREACH_CACHE": str(embedded_cache),
                "LONGREACH_LIBRARY": str(place / "l.library"),
                "XDG_CONFIG_HOME": str(place / "config"),
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    run("index", "docs")
    return run


def test_index_names_what_it_skipped_and_takes_the_rest(longreach, place: Path) -> None:
    told = longreach("index", "docs", "--json", "--library", str(place / "other.library"))
    report = json.loads(told.stdout)
    assert report["added"] == 3
    assert {Path(path).name for path, _ in report["skipped"]} == {"damaged.pdf", "noise.bin"}
    again = json.loads(longreach("index", "docs", "--json", "--library", str(place / "other.library")).stdout)
    assert (again["added"], again["unchanged"]) == (0, 3)


def test_search_finds_the_span(longreach, place: Path) -> None:
    hits = json.loads(longreach("search", "torque limit", "--json", "-k", "2").stdout)
    text = (place / "docs" / "pump.md").read_text()
    assert hits[0]["document"] == str(place / "docs" / "pump.md")
    assert text[hits[0]["start"] : hits[0]["end"]] == hits[0]["text"]
    assert "25 Nm" in hits[0]["text"]


@pytest.mark.parametrize("answer", ["auto", "extract"])
def test_ask_answers_with_a_quote_from_the_source(longreach, place: Path, answer: str) -> None:
    told = json.loads(longreach("ask", "What is the torque limit?", "--json", "--answer", answer).stdout)
    (citation,) = told["citations"]
    assert told["answer"] in citation["quote"]
    assert "25 Nm" in citation["quote"]
    assert Path(citation["document"]).read_text()[citation["start"] : citation["end"]] == citation["quote"]
    assert citation["section"][-1] == "Bolts"
    assert told["usage"]["prompt_tokens"] > 0
    assert 0 < told["timing"]["search_s"] <= told["timing"]["ttft_s"] <= told["timing"]["total_s"]


def test_ask_for_people_shows_the_answer_and_where_it_stands(longreach) -> None:
    shown = longreach("ask", "What is the gasket made of?").stdout
    assert "cork" in shown
    assert r"odd\nname \xfc.txt" in shown


def test_ask_reads_only_the_paths_it_is_given(longreach) -> None:
    told = json.loads(longreach("ask", "What is the torque limit?", "docs/lake.txt", "--json").stdout)
    assert not told["found"]
    assert told["answer"] == "The documents do not tell."


def test_ask_tells_when_nothing_tells(longreach) -> None:
    told = json.loads(longreach("ask", "Who won the chess olympiad of 1972?", "--json").stdout)
    assert (told["found"], told["citations"]) == (False, [])
    assert "Nearest passages:" in longreach("ask", "Who won the chess olympiad of 1972?").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ask", " "), 2, "the question is empty"),
        (("ask", "why " * 9000), 2, "the question is too long"),
        (("ask", "x", "--model", "/no/such"), 1, "there is no folder /no/such"),
        (("ask", "x", "--model", "http://127.0.0.1:9"), 1, "no server answers"),
        (("ask", "x", "--answer", "guess"), 2, "known: extract, generate, rank_spans"),
        (("ask", "x", "--library", "none.library"), 1, "does not exist"),
        (("ask", "x", "nowhere"), 2, "no such file or folder"),
        (("search", "x", "--library", "docs"), 1, "is no library"),
        (("search", "x", "--where", "novalue"), 2, "write key=value"),
        (("index", "docs/damaged.pdf"), 1, "nothing was indexed"),
        (("index", "docs", "--chunker", "fixed(tokens=5)"), 1, "was made with the chunker"),
        (("index", "docs", "--encoder", "/else"), 1, "was made with the encoder"),
        (("library", "remove", "nothing"), 2, "not in the library: nothing"),
    ],
)
def test_a_wrong_request_gets_one_sentence_and_an_exit_code(longreach, arguments, code: int, said: str) -> None:
    done = longreach(*arguments, code=code)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_and_no_model_is_one_sentence(longreach, place: Path) -> None:
    done = longreach(
        "ask", "x", "docs", code=1, LONGREACH_CACHE=str(place / "cache"), LONGREACH_OFFLINE="1", LONGREACH_LIBRARY="n"
    )
    assert done.stderr.strip().splitlines()[-1].startswith("longreach: ")
    assert "Traceback" not in done.stderr


def test_the_library_can_be_looked_into_and_documents_taken_out(longreach, place: Path) -> None:
    library = ("--library", str(place / "small.library"))
    longreach("index", "docs/pump.md", "docs/lake.txt", "--metadata", "kind=note", *library)
    listed = json.loads(longreach("library", "list", "--where", "kind=note", "--json", *library).stdout)
    assert len(listed) == 2
    assert "1 removed" in longreach("library", "remove", "docs/lake.txt", *library).stdout
    assert json.loads(longreach("library", "stats", "--json", *library).stdout)["documents"] == 1


def test_what_reading_ahead_would_take_is_said_and_nothing_is_done(longreach, place: Path) -> None:
    library = ("--library", str(place / "never.library"))
    told = json.loads(longreach("index", "docs", "--estimate", "--json", *library).stdout)
    assert (told["model"], told["chunks"], told["skipped"]) == ("embedded", 3, 2)
    assert told["bytes_per_token"] >= 30 * 3 * (64 + 64 + 4) == 11_880
    assert told["bytes"] > (told["tokens"] + told["beside"]) * 11_880
    assert told["beside"] > told["tokens"] > 0
    assert not (place / "never.library").exists()
    assert "would take" in longreach("index", "docs", "--estimate").stdout
    eight = json.loads(longreach("index", "docs", "--estimate", "--json", LONGREACH_KV_DTYPE="int8").stdout)
    assert (eight["dtype"], eight["codec"]) == ("int8", "int8_pages")
    assert eight["bytes_per_token"] == 11_880
    assert "is a server" in longreach("index", "docs", "--estimate", "-m", "http://127.0.0.1:9", code=2).stderr


def test_stats_say_what_the_kv_of_chunks_takes(longreach, place: Path) -> None:
    from kv.chunks import entry_of, key_of, open_store

    store = open_store(place / "kv", model="some model")
    store.put(key_of(store, 1), entry_of(1))
    kept = json.loads(longreach("library", "stats", "--json", LONGREACH_STORE=str(place / "kv")).stdout)["kv_store"]
    assert kept["models"] == [{"model": "some model", "entries": 1, "bytes": store.stats().disk.bytes}]
    assert "some model: 1 entries" in longreach("library", "stats", LONGREACH_STORE=str(place / "kv")).stdout


def test_doctor_and_models_say_what_there_is(longreach) -> None:
    report = json.loads(longreach("doctor", "--json").stdout)
    assert report["library"]["documents"] == 3
    assert "tokens/s" in report["speed"]["prefill"]
    assert report["advice"]
    assert all(model["present"] for model in json.loads(longreach("models", "list", "--json").stdout))


def test_doctor_measures_a_model_and_keeps_its_card(longreach, embedded_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "embedded").symlink_to(embedded_cache / "embedded")
    own = {"LONGREACH_CACHE": str(tmp_path), "COLUMNS": "160"}
    arguments = ("doctor", "embedded", "--prompts", "1", "--way", "adapter")
    told = json.loads(
        longreach(*arguments, "--json", LONGREACH_REUSE_KL="9", LONGREACH_REUSE_AGREEMENT="0", **own).stdout
    )
    rows = {row["way"]: row for row in told["ways"]}
    assert list(rows) == ["prefix", "adapter"]
    assert rows["prefix"]["kl"] < 0.01 < told["bound"]["kl"]
    assert len(rows["adapter"]["made_of"]) == 16
    assert Path(told["file"]).is_file()
    shown = longreach("doctor", "embedded", "--prompts", "1", "--way", "prefix", "--library", "l.library", **own).stdout
    assert "From now on: prefix." in shown
    assert "known: adapter" in longreach("doctor", "embedded", "--way", "napkin", code=2, **own).stderr


def test_a_pipe_that_closes_is_no_error(longreach, place: Path) -> None:
    command = f"{sys.executable} -m longreach library list | head -n 0"
    done = subprocess.run(
        command, shell=True, cwd=place, capture_output=True, text=True, check=False,
        env={**os.environ, "LONGREACH_LIBRARY": str(place / "l.library")},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
