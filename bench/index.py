"""Indexing a folder of real documentation as a whole process: rate, peak memory, and what a second run costs.

By default the HTML documentation of Python as Debian packages it (`apt-get install python3-doc`): pages and their
sources.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Options, Result, Row, at_least, at_most, run

PLACES = ("/usr/share/doc/python3-doc/html", "/usr/share/doc/python3.11/html", "/usr/share/doc/python3.13/html")
SECOND_RUN_S = 2.0


def measure(options: Options) -> Result:
    folder = options.extra.folder or next((Path(place) for place in PLACES if Path(place).is_dir()), None)
    if folder is None:
        raise SystemExit("there is no Python documentation here: apt-get install python3-doc, or name a folder")
    paths = [folder / "library"] if options.quick and (folder / "library").is_dir() else [folder]
    if options.quick:
        paths = sorted(paths[0].rglob("*.html"))[:40]
    with tempfile.TemporaryDirectory() as place:
        library = Path(place) / "docs.library"
        rows = [index(library, paths, what) for what in ("first run", "second run")]
        seconds = [index(library, paths, "")["seconds"] for _ in range(4)] + [rows[1]["seconds"]]
    rows[1]["seconds"] = sorted(seconds)[2]
    documents = rows[0]["documents"]
    bars = [
        at_most("second run, seconds (median of 5)", rows[1]["seconds"], SECOND_RUN_S),
        at_least("documents", documents, 1 if options.quick else 1000),
    ]
    return Result(rows, bars, [f"`longreach index` of {', '.join(map(str, paths[:1]))}, process start to end"])


def index(library: Path, paths: list[Path], what: str) -> dict[str, Any]:
    """One run of the command: what it did, seconds by the clock, peak memory of the process in MB."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        arguments = [sys.executable, "-m", "longreach", "index", "--json", "--library", str(library), *map(str, paths)]
        process = os.posix_spawn(
            sys.executable, arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1)]
        )
        _, status, usage = os.wait4(process, 0)
        seconds = time.perf_counter() - began
        output.seek(0)
        report = json.load(output)
    if status:
        raise SystemExit(f"longreach index ended with {os.waitstatus_to_exitcode(status)}")
    done = report["added"] + report["updated"]
    row: Row = {
        "run": what,
        "documents": report["documents"],
        "indexed": done,
        "skipped": len(report["skipped"]),
        "chunks": report["chunks"],
        "seconds": round(seconds, 2),
        "documents_per_s": round(done / seconds, 1) if done else None,
        "chunks_per_s": round(report["chunks"] / seconds, 1) if done else None,
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    return dict(row)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", help="a folder to index instead")


if __name__ == "__main__":
    run("index", measure, about=__doc__ or "", arguments=arguments)
