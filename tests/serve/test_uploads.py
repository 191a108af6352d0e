"""Uploads: hostile names, files and sizes, and what a restart leaves."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longreach.errors import DiskFullError, DocumentError, LongreachError
from longreach.serve.journal import Journal
from longreach.serve.options import ServeOptions
from longreach.serve.parse import parse
from serving import Running, Scripted, Serving


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win.ini"),
        ("a\x00b\n.md", "ab.md"),
        ("  spaced .txt ", "spaced .txt"),
        ("ü" * 300 + ".md", "ü" * 98 + ".md"),
        ("\u202etxt.exe", "txt.exe"),
    ],
)
def test_a_files_name_becomes_an_id_that_is_no_path(shared: Running, name: str, kept: str) -> None:
    from longreach.serve.routes.documents import _safe

    assert _safe(name) == kept


@pytest.mark.parametrize("name", ["..", ".", "", "a/..", "\x00", "/"])
def test_a_file_without_a_name_is_refused(shared: Running, name: str) -> None:
    from longreach.serve.refusals import Refusal
    from longreach.serve.routes.documents import _safe

    with pytest.raises(Refusal):
        _safe(name)


@pytest.mark.thorough
def test_whatever_is_uploaded_the_server_stays_up_and_writes_nowhere_else(serving: Serving, tmp_path: Path) -> None:
    with serving(Scripted(), {"model": "scripted"}, parse_bytes=2 << 30) as server, server.http() as client:
        client.post("/v1/libraries", json={"name": "notes"})
        before = snapshot(tmp_path) | snapshot(Path.cwd() / "src")

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.text(max_size=40), st.binary(max_size=400), st.sampled_from(["", ".md", ".html", ".pdf", ".docx"]))
        def upload(name: str, content: bytes, extension: str) -> None:
            sent = f"{name}{extension}".encode("utf-8", "replace").decode()
            try:
                response = client.post("/v1/libraries/notes/documents", files={"file": (sent, content)})
            except (httpx.LocalProtocolError, UnicodeError):
                return
            assert response.status_code in (202, 400)
            assert client.get("/health").status_code == 200

        upload()
        server.indexed("notes", client)
        new = snapshot(tmp_path) | snapshot(Path.cwd() / "src")
        inside = ("serve/libraries/notes.library", "serve/uploads")
        assert all(path.startswith(inside) for path in new - before if "__pycache__" not in path)
        assert not list((tmp_path / "serve" / "uploads").iterdir())


def bomb() -> bytes:
    """A DOCX of some hundred kilobytes whose text is hundreds of megabytes."""
    docx = pytest.importorskip("docx")
    plain, made = io.BytesIO(), io.BytesIO()
    document = docx.Document()
    document.add_paragraph("HERE")
    document.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            with archive.open(name, "w", force_zip64=True) as file:
                before, here, after = source.read(name).partition(b"HERE")
                file.write(before)
                for _ in range(400 if here else 0):
                    file.write(b"a " * (1 << 19))
                file.write(after)
    return made.getvalue()


@pytest.mark.thorough
def test_a_zip_bomb_ends_its_parser_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(bomb())
    options = ServeOptions(folder=tmp_path, parse_bytes=2 << 30, parse_seconds=60, text_characters=1_000_000)
    with pytest.raises(DocumentError, match=r"cannot read bomb\.docx"):
        parse(path, "bomb.docx", options)


@pytest.mark.parametrize("limits", [{"parse_bytes": 64 << 20}, {"parse_seconds": 0.01}])
def test_a_parser_without_memory_or_time_is_ended(tmp_path: Path, limits: dict[str, Any]) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"<p>text</p>" * 2_000_000)
    with pytest.raises(DocumentError, match=r"cannot read large\.html"):
        parse(path, "large.html", ServeOptions(folder=tmp_path, **limits))


@pytest.mark.thorough
def test_a_file_is_read_as_without_a_process_of_its_own(tmp_path: Path) -> None:
    from longreach.corpus.load import load_bytes

    content = b"# Pumps\n\nThe pump turns.\n\n## Bolts\n\n25 Nm\n"
    (tmp_path / "content").write_bytes(content)
    read = parse(tmp_path / "content", "pump.md", ServeOptions(folder=tmp_path))
    assert read == load_bytes(content, "pump.md")
    with pytest.raises(DocumentError, match=r"has \d+ characters"):
        parse(tmp_path / "content", "pump.md", ServeOptions(folder=tmp_path, text_characters=10))


def test_a_damaged_file_fails_with_its_reason_and_others_go_in(serving: Serving) -> None:
    with serving(Scripted(), {"model": "scripted"}) as server, server.http() as client:
        client.post("/v1/libraries", json={"name": "notes"})
        for name, content in (("a.pdf", b"%PDF-1.4\nbroken"), ("b.txt", b"The gasket is made of cork.")):
            client.post("/v1/libraries/notes/documents", files={"file": (name, content)})
        ended = {upload["document"]: upload for upload in server.indexed("notes", client)}
        assert ended["a.pdf"]["status"] == "failed"
        assert "cannot read a.pdf" in ended["a.pdf"]["reason"]
        assert ended["b.txt"]["status"] == "done"
        assert client.get("/v1/libraries/notes").json()["documents"] == 1


def test_an_upload_that_is_too_large_is_refused(serving: Serving) -> None:
    with serving(Scripted(), {"model": "scripted"}, upload_bytes=10_000) as server, server.http() as client:
        client.post("/v1/libraries", json={"name": "notes"})
        told = client.post("/v1/libraries/notes/documents", files={"file": ("a.txt", b"x" * 20_000)})
        assert told.status_code == 413
        assert client.get("/v1/libraries/notes/uploads").json()["uploads"] == []


@pytest.mark.parametrize("metadata", ["[]", "{", '{"a": [1]}', '{"a": {"b": 1}}', "[" * 10_000])
def test_metadata_that_is_none_is_refused(shared: Running, metadata: str) -> None:
    told = shared.http().post(
        "/v1/libraries/manuals/documents", files={"file": ("a.txt", b"x")}, data={"metadata": metadata}
    )
    assert told.status_code == 400


def test_what_was_taken_is_indexed_after_a_restart(serving: Serving, tmp_path: Path) -> None:
    with serving(Scripted(), {"model": "scripted"}) as server:
        server.http().post("/v1/libraries", json={"name": "notes"})
    journal = Journal(tmp_path / "serve")
    reading, waiting = (
        journal.take("notes", name, "text", io.BytesIO(f"{name} tells of cork".encode()), {}) for name in ("a", "b")
    )
    journal.set(reading.id, "reading")
    journal.content("left-over").write_bytes(b"nobody speaks of it")
    journal.close()
    with serving(Scripted(), {"model": "scripted"}) as server, server.http() as client:
        uploads = {upload["id"]: upload["status"] for upload in server.indexed("notes", client)}
        assert uploads == {reading.id: "done", waiting.id: "done"}
        assert client.get("/v1/libraries/notes").json()["documents"] == 2
        assert not list((tmp_path / "serve" / "uploads").iterdir())


def test_what_is_taken_back_does_not_come(journal: Journal) -> None:
    taken = journal.take("notes", "a", "text", io.BytesIO(b"text"), {})
    other = journal.take("other", "a", "text", io.BytesIO(b"text"), {"year": 2025})
    assert journal.forget("notes") == 1
    assert not journal.set(taken.id, "indexing")
    assert not journal.content(taken.id).exists()
    assert [upload.id for upload in journal.next(8, 1000)] == [other.id]
    assert journal.get("notes", other.id) is None


def test_a_folder_has_one_server(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(LongreachError, match="another server"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_a_batch_is_of_one_library_and_not_too_large(journal: Journal) -> None:
    for library, size in (("a", 10), ("b", 10), ("a", 20), ("a", 1000), ("a", 30)):
        journal.take(library, "d", "text", io.BytesIO(b"x" * size), {})
    sizes = []
    while batch := journal.next(3, 100):
        sizes.append([(upload.library, upload.bytes) for upload in batch])
        for upload in batch:
            journal.set(upload.id, "done")
    assert sizes == [[("a", 10), ("a", 20)], [("b", 10)], [("a", 1000)], [("a", 30)]]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a disk that is full")
def test_an_upload_for_which_there_is_no_room_is_refused_and_leaves_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError):
        journal.take("notes", "a", "text", io.BytesIO(b"text"), {})
    assert journal.unfinished() == 0
    assert not list(journal.content("x").parent.iterdir())


@pytest.mark.thorough
def test_no_document_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    script = Path(__file__).parent / "killed.py"
    taken: list[str] = []
    for round_number in range(3):
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        assert process.stdout is not None
        with httpx.Client(base_url=process.stdout.readline().strip(), timeout=60) as client:
            client.post("/v1/libraries", json={"name": "notes"})
            for number in range(6):
                name = f"r{round_number}-{number}"
                text = {"text": f"Document {name} tells of cork and of {'words ' * 200}"}
                assert client.put(f"/v1/libraries/notes/documents/{name}", json=text).status_code == 202
                taken.append(name)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert last.stdout is not None
    try:
        with httpx.Client(base_url=last.stdout.readline().strip(), timeout=60) as client:
            while client.get("/v1/libraries/notes").json()["unfinished_uploads"]:
                pass
            documents = client.get("/v1/libraries/notes/documents?limit=1000").json()["documents"]
            assert sorted(document["id"] for document in documents) == sorted(taken)
            uploads = client.get("/v1/libraries/notes/uploads").json()["uploads"]
            assert {upload["status"] for upload in uploads} == {"done"}
            assert json.dumps(documents)
    finally:
        last.send_signal(signal.SIGTERM)
        assert last.wait(60) == 0
