"""From paths to the writer: what is new, what has changed, what is gone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from longreach.errors import DocumentError
from longreach.library.catalog import Stamp
from longreach.library.failures import reported
from longreach.library.writer import Writer
from longreach.types import Metadata


def add_paths(writer: Writer, paths: Iterable[str | Path], metadata: Metadata | None) -> None:
    """Bring the library up to date with the files and folders `paths`.

    A file whose size and time are those it had when it was read is not opened. A file that is gone from one of the
    folders is removed; one that is there but can no longer be read stays as it was, and is reported.
    """
    from longreach.corpus import files

    roots = [os.path.abspath(path) for path in paths]
    walk = files.walk(roots)
    writer.total += len(walk.candidates)
    writer.bytes_total += sum(candidate.size for candidate in walk.candidates)
    for skipped in walk.skipped:
        writer.report.skipped.append((skipped.path, skipped.reason))
    with reported(writer.catalog.folder):
        records = writer.catalog.records()
    by_source = {record.source: record for record in records if record.stamp}
    given = None if metadata is None else json.dumps(dict(sorted(metadata.items())))
    for candidate in walk.candidates:
        known = by_source.get(candidate.path.as_posix())
        before = known.stamp.extra if known and known.stamp else "{}"
        stamp = Stamp(candidate.size, candidate.mtime, before if given is None else given)
        if known and known.stamp == stamp:
            writer.unchanged(candidate.size)
        else:
            _read(writer, candidate.path, stamp)
    here = {candidate.path.as_posix() for candidate in walk.candidates}
    folders = tuple(root.rstrip(os.sep) + os.sep for root in roots if os.path.isdir(root))
    writer.remove(
        record.id
        for source, record in by_source.items()
        if source not in here and source.startswith(folders) and not os.path.lexists(source)
    )


def _read(writer: Writer, path: Path, stamp: Stamp) -> None:
    from longreach.corpus import load

    try:
        document = load.load(path)
    except DocumentError as error:
        writer.skip(path.as_posix(), str(error), stamp.size)
        return
    extra: Metadata = json.loads(stamp.extra)
    writer.put(replace(document, metadata={**document.metadata, **extra}), stamp)
