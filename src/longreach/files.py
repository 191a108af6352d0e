"""What files take on disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def bytes_on_disk(path: Path) -> int:
    """The bytes of a file, or of all files in a folder. What is taken away in the meantime, as a library's writer does
    with what it has put together anew, isn't counted; what isn't there takes 0."""
    size = 0
    files = [path] if path.is_file() else (Path(at, name) for at, _, names in os.walk(path) for name in names)
    for file in files:
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size
