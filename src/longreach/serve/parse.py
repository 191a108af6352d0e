"""Reading an upload in a process of its own: what a damaged or a hostile file does to its parser, it does there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from longreach.corpus.load import printable
from longreach.errors import DocumentError
from longreach.serve.options import ServeOptions
from longreach.types import Anchor, Document

_PASSED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")
"""What the process gets of the environment: no secrets."""


def parse(content: Path, name: str, options: ServeOptions) -> Document:
    """The document in the file `content`, which its client calls `name`. Raises DocumentError, also where reading takes
    more time or memory than it may, or gives more text."""
    shown = printable(name)
    with tempfile.TemporaryDirectory(prefix="longreach-") as folder:
        result = Path(folder) / "result"
        limits = f"{options.parse_bytes}", f"{options.parse_seconds:g}", f"{options.text_characters}"
        command = [
            sys.executable,
            "-m",
            "longreach.serve.parse_child",
            str(content.absolute()),
            name,
            str(result),
            *limits,
        ]
        environment = {key: os.environ[key] for key in _PASSED if key in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            child.wait(options.parse_seconds + 10)
        except subprocess.TimeoutExpired:
            raise DocumentError(f"cannot read {shown}: it takes longer than {options.parse_seconds:g} s") from None
        finally:
            _end(child)
        if child.returncode or not result.exists():
            raise DocumentError(f"cannot read {shown}: its parser failed, or took more memory or time than it may")
        told = json.loads(result.read_text("ascii"))
    if "error" in told:
        raise DocumentError(told["error"])
    anchors = tuple(Anchor(*anchor) for anchor in told["anchors"])
    return Document(name, told["text"], name, told["metadata"], anchors, told["media_type"])


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
    child.wait()
