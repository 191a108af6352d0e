"""A process that indexes, for tests that kill it: `python indexing.py LIBRARY FIRST LAST [BATCH]`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from hashed import open_hashed
from longreach.library import writer
from longreach.types import Document


def document(number: int) -> Document:
    """The document of this number: a few chunks of words of its own."""
    return Document(f"d{number}", " ".join(f"common own{number} w{number % 7}x{word}" for word in range(20)))


def main() -> None:
    path, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    writer.BATCH_CHUNKS = int(sys.argv[4]) if len(sys.argv) > 4 else 8
    library = open_hashed(path, wait=60.0)
    importlib.import_module("lancedb.index")  # slow, and no moment at which anything could go wrong
    print("ready", flush=True)
    library.add_documents(map(document, range(first, last)))
    print("done", flush=True)


if __name__ == "__main__":
    main()
