"""Files in the cache folder."""

from __future__ import annotations

import errno
from pathlib import Path

from longreach.errors import DiskFullError, ModelError


def put(file: Path, data: bytes) -> None:
    """Write `file` in the place of what was there, as a whole or not at all. Raises DiskFullError, and ModelError where
    it cannot be written."""
    aside = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        aside.replace(file)
    except OSError as error:
        raise unwritable(error, file) from None


def unwritable(error: OSError, where: Path) -> ModelError | DiskFullError:
    """What to tell a user of whose cache `where` could not be written."""
    if error.errno == errno.ENOSPC:
        return DiskFullError(f"no room left on the disk of {where}")
    return ModelError(
        f"{where} cannot be written ({error.strerror or error}): choose another place with LONGREACH_CACHE"
    )
