"""The process that reads one upload: `python -m longreach.serve.parse_child CONTENT NAME RESULT BYTES SECONDS
CHARACTERS`. It writes one JSON object, `{text, anchors, metadata, media_type}` or `{error}`, to RESULT."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path


def limit(memory: int, seconds: float, characters: int) -> None:
    """Let this process take no more than so much. The system ends it where it tries."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (12 * characters + (1 << 20),) * 2
    )  # of JSON: 12 bytes a character at most
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(content: str, name: str, result: str, memory: str, seconds: str, characters: str) -> None:
    limit(int(memory), float(seconds), int(characters))
    from longreach.corpus.load import load_bytes
    from longreach.errors import DocumentError

    try:
        document = load_bytes(Path(content).read_bytes(), name, timeout=float(seconds))
        if len(document.text) > int(characters):
            raise DocumentError(
                f"cannot read {name}: it has {len(document.text)} characters, and may have {characters}"
            )
    except DocumentError as error:
        Path(result).write_text(json.dumps({"error": str(error)}), "ascii")
        return
    told = {
        "text": document.text,
        "anchors": [[anchor.kind, anchor.offset, anchor.label, anchor.level] for anchor in document.anchors],
        "metadata": dict(document.metadata),
        "media_type": document.media_type,
    }
    Path(result).write_text(json.dumps(told), "ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
