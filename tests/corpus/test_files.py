"""The walk: what it finds, in which order, and what it passes over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longreach.corpus.files import walk
from longreach.errors import InputError


def make(root: Path, *names: str, content: str = "text") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def found(root: Path, *paths: Path, **options: int) -> list[str]:
    return [str(item.path.relative_to(root)) for item in walk(paths or [root], **options).candidates]


def test_files_come_in_the_order_of_their_names_with_size_and_time(tmp_path):
    make(tmp_path, "b.txt", "a/z.md", "a/b/c.py", "A.txt", "a.txt")
    walked = walk([tmp_path])
    assert found(tmp_path) == ["A.txt", "a.txt", "b.txt", "a/z.md", "a/b/c.py"]
    status = (tmp_path / "A.txt").stat()
    assert (walked.candidates[0].size, walked.candidates[0].mtime) == (status.st_size, status.st_mtime_ns)
    assert walked.candidates[0].path.is_absolute()
    assert walked == walk([tmp_path])


def test_hidden_files_caches_environments_and_libraries_are_left_out(tmp_path):
    make(
        tmp_path, "kept.txt", ".hidden", ".git/config", "node_modules/x.js", "__pycache__/x.py", "notes.library/x.json"
    )
    make(tmp_path, "env/pyvenv.cfg", "env/lib/x.py", "venv/x.py", "sub/.cache/x.txt")
    walked = walk([tmp_path])
    assert [item.path.name for item in walked.candidates] == ["kept.txt"]
    assert walked.skipped == []


def test_what_cannot_be_read_is_listed_with_its_reason(tmp_path):
    make(tmp_path, "a.png", "b.zip", "empty.txt.keep", "ok.txt", "ok.unknown", "README")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blob").write_bytes(b"\0\1\2" * 50)
    (tmp_path / "large.txt").write_bytes(b"x" * 2_000_000)
    (tmp_path / "dangling.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    walked = walk([tmp_path], size_limit=1_000_000)
    assert {Path(item.path).name: item.reason for item in walked.skipped} == {
        "a.png": "no reader understands .png files",
        "b.zip": "no reader understands .zip files",
        "empty.txt": "it is empty",
        "blob": "it is binary",
        "large.txt": "its 2 MB are over the limit of 1 MB",
        "dangling.txt": "it is unreadable: No such file or directory",
        "pipe.txt": "it is not a regular file",
    }
    assert {item.path.name for item in walked.candidates} == {"README", "empty.txt.keep", "ok.txt", "ok.unknown"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_listed(tmp_path):
    make(tmp_path, "a.txt", "closed/b.txt")
    (tmp_path / "a.txt").chmod(0)
    (tmp_path / "closed").chmod(0)
    assert [item.reason for item in walk([tmp_path]).skipped] == ["it is unreadable: Permission denied"] * 2
    (tmp_path / "closed").chmod(0o755)


def test_a_file_named_itself_is_kept_whatever_its_name(tmp_path):
    make(tmp_path, ".hidden", "a.png")
    assert found(tmp_path, tmp_path / ".hidden", tmp_path / "a.png") == [".hidden", "a.png"]


def test_a_hidden_folder_named_itself_is_walked(tmp_path):
    make(tmp_path, ".notes/a.txt")
    assert found(tmp_path, tmp_path / ".notes") == [".notes/a.txt"]


def test_a_file_reached_twice_is_found_once(tmp_path):
    make(tmp_path, "a/x.txt")
    (tmp_path / "a" / "again.txt").symlink_to("x.txt")
    assert found(tmp_path, tmp_path / "a", tmp_path, tmp_path / "a" / "x.txt") == ["a/again.txt"]


def test_loops_of_links_end(tmp_path):
    make(tmp_path, "a/x.txt", "a/b/y.txt")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "self").symlink_to("self")
    walked = walk([tmp_path])
    assert sorted(item.path.name for item in walked.candidates) == ["x.txt", "y.txt"]
    assert [Path(item.path).name for item in walked.skipped] == ["self"]


def test_odd_names_are_found_or_listed_in_printable_form(tmp_path):
    make(tmp_path, "a b.txt", "new\nline.txt", "quote'\".txt", "日本.txt", "-rf.txt")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    walked = walk([tmp_path])
    assert {item.path.name for item in walked.candidates} == {
        "a b.txt",
        "new\nline.txt",
        "quote'\".txt",
        "日本.txt",
        "-rf.txt",
    }
    [skipped] = walked.skipped
    assert skipped.reason == "its name is not valid UTF-8"
    skipped.path.encode("utf-8")


@pytest.mark.parametrize("name", ["nothing.txt", "no/folder", "new\nline", "nul\0byte"])
def test_a_path_that_is_not_there_is_an_error(tmp_path, name):
    with pytest.raises(InputError) as caught:
        walk([tmp_path, f"{tmp_path}/{name}"])
    assert "\n" not in str(caught.value)


def test_the_walk_imports_nothing_heavy():
    heavy = "numpy torch kreuzberg tokenizers charset_normalizer sentencex"
    code = f"import sys, longreach.corpus.files; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
