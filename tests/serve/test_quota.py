"""Quotas: what a key may keep here."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from typer.testing import CliRunner

from longreach.cli import app
from longreach.errors import InputError
from longreach.serve.journal import Journal, Upload
from longreach.serve.keys import KeyStore
from longreach.serve.refusals import Refusal
from serving import Scripted, Serving

OWNERS, LIBRARIES, DOCUMENTS = ("anna", "ben"), ("notes", "plans"), ("a", "b")
QUOTA = 100


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "serve")


def test_what_is_too_much_is_refused_until_something_is_deleted(serving: Serving, keys: KeyStore) -> None:
    secret = keys.create("anna", write=True, quota=1000)[1]
    with serving(Scripted(), {"model": "scripted"}) as server, server.http(secret) as client:
        client.post("/v1/libraries", json={"name": "notes"})
        assert client.put("/v1/libraries/notes/documents/a", json={"text": "a" * 600}).status_code == 202
        server.indexed("notes", client)
        told = client.put("/v1/libraries/notes/documents/b", json={"text": "b" * 600})
        assert (told.status_code, told.json()["error"]["code"]) == (413, "quota_exceeded")
        file = client.post("/v1/libraries/notes/documents", files={"file": ("c.txt", b"c" * 401)})
        assert file.status_code == 413
        assert len(client.get("/v1/libraries/notes/uploads").json()["uploads"]) == 1
        assert client.delete("/v1/libraries/notes/documents/a").status_code == 200
        assert client.put("/v1/libraries/notes/documents/b", json={"text": "b" * 600}).status_code == 202
        server.indexed("notes", client)
        assert client.delete("/v1/libraries/notes").status_code == 200
        client.post("/v1/libraries", json={"name": "notes"})
        assert client.put("/v1/libraries/notes/documents/b", json={"text": "b" * 1000}).status_code == 202


def test_a_quota_is_of_one_key_and_outlives_a_restart(serving: Serving, keys: KeyStore) -> None:
    anna, ben = (keys.create(name, write=True, quota=1000)[1] for name in ("anna", "ben"))
    with serving(Scripted(), {"model": "scripted"}) as server, server.http(anna) as client:
        client.post("/v1/libraries", json={"name": "notes"})
        client.put("/v1/libraries/notes/documents/a", json={"text": "a" * 900})
        server.indexed("notes", client)
    with serving(Scripted(), {"model": "scripted"}) as server:
        text = {"text": "b" * 200}
        assert server.http(anna).put("/v1/libraries/notes/documents/b", json=text).status_code == 413
        assert server.http(ben).put("/v1/libraries/notes/documents/b", json=text).status_code == 202


def test_a_failed_upload_counts_no_more(serving: Serving, keys: KeyStore) -> None:
    secret = keys.create("anna", write=True, quota=1000)[1]
    with serving(Scripted(), {"model": "scripted"}) as server, server.http(secret) as client:
        client.post("/v1/libraries", json={"name": "notes"})
        broken = b"%PDF-1.4\n" + b"x" * 900
        client.post("/v1/libraries/notes/documents", files={"file": ("a.pdf", broken)})
        assert server.indexed("notes", client)[0]["status"] == "failed"
        assert client.put("/v1/libraries/notes/documents/b", json={"text": "b" * 1000}).status_code == 202


class Ledger(RuleBasedStateMachine):
    """Uploads, their ends and deletions in any order, beside a list of what each key has here."""

    folder: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        Ledger.number += 1
        self.journal = Journal(self.folder / str(self.number))
        self.waiting: list[tuple[str, Upload]] = []
        self.kept: dict[tuple[str, str], tuple[str, int]] = {}

    def held(self, owner: str) -> int:
        here = sum(size for other, size in self.kept.values() if other == owner)
        return here + sum(upload.bytes for other, upload in self.waiting if other == owner)

    @rule(
        owner=st.sampled_from(OWNERS),
        library=st.sampled_from(LIBRARIES),
        document=st.sampled_from(DOCUMENTS),
        size=st.integers(0, 60),
    )
    def upload(self, owner: str, library: str, document: str, size: int) -> None:
        fits = self.held(owner) + size <= QUOTA
        content = io.BytesIO(b"x" * size)
        if fits:
            self.waiting.append((owner, self.journal.take(library, document, "text", content, {}, owner, QUOTA)))
        else:
            with pytest.raises(Refusal, match="delete some"):
                self.journal.take(library, document, "text", content, {}, owner, QUOTA)

    @rule(good=st.booleans())
    def end(self, good: bool) -> None:
        if self.waiting:
            owner, upload = self.waiting.pop(0)
            self.journal.set(upload.id, "done" if good else "failed")
            if good:
                self.kept[upload.library, upload.document] = owner, upload.bytes

    @rule(library=st.sampled_from(LIBRARIES), document=st.sampled_from([None, *DOCUMENTS]))
    def delete(self, library: str, document: str | None) -> None:
        self.journal.forget(library, document)
        self.journal.deleted(library, document)

        def gone(where: tuple[str, str]) -> bool:
            return where[0] == library and document in (None, where[1])

        self.waiting = [one for one in self.waiting if not gone((one[1].library, one[1].document))]
        self.kept = {where: one for where, one in self.kept.items() if not gone(where)}

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(self.folder / str(self.number))
        self.journal.resume()

    @invariant()
    def counts_what_is_here(self) -> None:
        with pytest.raises(Refusal):
            self.journal.take(
                "notes", "a", "text", io.BytesIO(b"x" * (QUOTA + 1 - self.held("anna"))), {}, "anna", QUOTA
            )

    def teardown(self) -> None:
        self.journal.close()


def test_what_counts_is_what_is_here_whatever_happens(tmp_path: Path) -> None:
    Ledger.folder = tmp_path
    run_state_machine_as_test(Ledger, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_no_upload_overtakes_another_of_its_library(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    taken = [journal.take("notes", "a", "text", io.BytesIO(b"x" * size), {}).id for size in sizes]
    seen: list[str] = []
    while batch := journal.next(3, 60):
        for upload in batch:
            journal.set(upload.id, "done")
            seen.append(upload.id)
    journal.close()
    assert seen == taken


def test_keys_that_were_made_before_there_were_quotas_are_good(keys: KeyStore, tmp_path: Path) -> None:
    key, secret = keys.create("anna")
    with sqlite3.connect(tmp_path / "serve" / "keys.sqlite") as connection:
        connection.execute("ALTER TABLE keys DROP COLUMN quota")
    connection.close()
    assert keys.find(secret) == key
    assert keys.create("ben", quota=5)[0].quota == 5


def test_a_quota_is_given_in_words(tmp_path: Path) -> None:
    arguments = ["keys", "create", "anna", "--write", "--folder", str(tmp_path)]
    assert CliRunner().invoke(app, [*arguments, "--quota", "2GB"]).exit_code == 0
    assert KeyStore(tmp_path).list()[0].quota == 2_000_000_000
    assert "2,000 MB" in CliRunner().invoke(app, ["keys", "list", "--folder", str(tmp_path)]).output
    for wrong in ("much", "-1", "0"):
        told = CliRunner().invoke(app, [*arguments[:2], "ben", *arguments[3:], "--quota", wrong])
        assert isinstance(told.exception, InputError)
