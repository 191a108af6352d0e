"""What a model's name means: `embedded`, a folder, a `.gguf` file, a URL, or an id on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

from longreach.errors import InputError, ModelError
from longreach.model import embedded

Kind: TypeAlias = Literal["embedded", "folder", "gguf", "url", "hub"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def kind(name: str) -> Kind:
    """What `name` is. Raises InputError where it is nothing, ModelError where it is a path at which nothing lies."""
    if name == embedded.NAME:
        return "embedded"
    if re.match(r"https?://", name):
        return "url"
    path = Path(name).expanduser()
    if name and path.is_dir():
        return "folder"
    if path.suffix == ".gguf":
        if path.is_file():
            return "gguf"
        raise ModelError(f"there is no file {name}")
    if path.is_file():
        raise ModelError(f"{name} is a file, but not a .gguf file: name the folder that holds config.json")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or (path.parent != Path() and path.parent.is_dir()):
        raise ModelError(f"there is no folder {name}")
    if _HUB_ID.fullmatch(name):
        return "hub"
    raise InputError(
        f"{name!r} names no model: write embedded, a folder, a .gguf file, http(s)://host:port or a Hugging Face id"
    )


def folder(name: str, cache: Path) -> Path | None:
    """Where the configuration of the model `name` lies, if it is at hand; None too for a URL and a GGUF file."""
    which = kind(name)
    if which == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json")
        return Path(cached).parent if isinstance(cached, str) else None
    found = {"embedded": embedded.folder(cache), "folder": Path(name).expanduser()}.get(which)
    return found if found and (found / "config.json").is_file() else None


def tokenizer_file(name: str, cache: Path) -> Path | None:
    """The `tokenizer.json` by which texts for the model `name` are counted, or None where there is none at hand yet.

    Nothing is fetched. A URL or a GGUF file has no tokenizer of its own here: the embedded one stands in for it.
    """
    which = kind(name)
    if which == "folder":
        found: Path | None = Path(name).expanduser() / "tokenizer.json"
    elif which == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "tokenizer.json")
        found = Path(cached) if isinstance(cached, str) else None
    else:
        found = embedded.folder(cache) / "tokenizer.json"
    return found if found and found.is_file() else None
