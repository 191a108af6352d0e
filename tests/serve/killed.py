"""A server in a process of its own, for tests that do it harm: `python killed.py FOLDER [OPTIONS]`, the options of
`ServeOptions` as JSON. It prints its address."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from hashed import HashingEncoder, open_hashed
from longreach.config import Settings
from longreach.serve.logs import make_log
from longreach.serve.options import ServeOptions
from longreach.serve.service import Service
from serving import Scripted, serve_and_tell


def run(folder: Path, options: str = "{}") -> None:
    service = Service(
        ServeOptions(folder=folder / "serve", port=0, **json.loads(options)),
        Settings(model="scripted", encoder="hashing", answer="generate", least_relevance=-1.0),
        make_log(),
        make_engine=Scripted,
        open_library=lambda path, create: open_hashed(path, create=create),
        load_encoder=HashingEncoder,
    )
    serve_and_tell(service)


if __name__ == "__main__":
    run(Path(sys.argv[1]), *sys.argv[2:])
