"""What files take on disk."""

from __future__ import annotations

from pathlib import Path

from longreach.files import bytes_on_disk


def test_bytes_are_those_of_a_file_or_of_all_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"123")
    assert bytes_on_disk(tmp_path) == 8
    assert bytes_on_disk(tmp_path / "a" / "b") == 5
    assert bytes_on_disk(tmp_path / "d") == 0


def test_what_is_gone_by_the_time_it_is_looked_at_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "gone").symlink_to(tmp_path / "b")
    assert bytes_on_disk(tmp_path) == 5
