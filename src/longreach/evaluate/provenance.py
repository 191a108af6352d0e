"""What a figure was taken on: versions, machine, revision, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = ("longreach", "torch", "transformers", "tokenizers", "lancedb", "kreuzberg", "numpy", "bm25s")
_HERE = Path(__file__).resolve().parent


def provenance() -> dict[str, Any]:
    """The environment, the command of this process and the time."""
    from datetime import UTC, datetime

    return {
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
    }


def _program() -> str:
    name = Path(sys.argv[0]).name
    return "longreach" if name == "__main__.py" else name


def environment() -> dict[str, Any]:
    """Machine, versions and the revision of Longreach's own tree, where it has one."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: _version(name) for name in _PACKAGES if _version(name)},
        "revision": _revision(),
        **_torch(),
    }


def _torch() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # never imported for its own sake
    if torch is None:
        return {}
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"torch_threads": torch.get_num_threads(), "gpus": gpus}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _revision() -> str:
    """The commit, with "+" where the tree has been changed since."""
    try:
        if not _git("ls-files", "--error-unmatch", Path(__file__).name):
            return ""  # installed into somebody else's tree
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(_HERE), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
