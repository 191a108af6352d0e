"""Writing settings into a `longreach.toml`, all else in it left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from longreach.errors import InputError


def write_settings(file: Path, values: Mapping[str, str | int | float], comment: str) -> None:
    """Set `values` in `file`, made where it is missing, each with `comment` behind it. Raises InputError where the file
    is no TOML."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    for name, value in values.items():
        item = tomlkit.item(value)
        item.comment(comment)
        document[name] = item
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(tomlkit.dumps(document), encoding="utf-8")
