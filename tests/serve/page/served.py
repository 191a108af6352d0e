"""A server with its page in a process of its own: `python served.py FOLDER [PAUSE]`. It prints its address. Its model
says one sentence about a pump, a word every PAUSE seconds."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hashed import HashingEncoder, open_hashed
from longreach.config import Settings
from longreach.serve.logs import make_log
from longreach.serve.options import ServeOptions
from longreach.serve.service import Service
from serving import Scripted, serve_and_tell


def run(folder: Path, pause: float) -> None:
    service = Service(
        ServeOptions(folder=folder / "serve", port=0, page=True, frontiers=[folder / "sweep"]),
        Settings(model="scripted", encoder="hashing", least_relevance=-1.0),
        make_log(),
        make_engine=lambda: Scripted(pause=pause),
        open_library=lambda path, create: open_hashed(path, create=create),
        load_encoder=HashingEncoder,
    )
    serve_and_tell(service)


if __name__ == "__main__":
    run(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
