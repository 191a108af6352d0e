"""What each file format is: its media type and which reader turns it into text. Cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeAlias

Reader: TypeAlias = Literal["text", "markdown", "html", "structured"]


@dataclass(frozen=True, slots=True)
class Format:
    """`reader` is the module of `longreach.corpus.read` that understands files of `media_type`."""

    media_type: str
    reader: Reader


PLAIN = Format("text/plain", "text")

_OPEN = "application/vnd.openxmlformats-officedocument"
_STRUCTURED = {
    "pdf": "application/pdf",
    "docx": f"{_OPEN}.wordprocessingml.document",
    "pptx": f"{_OPEN}.presentationml.presentation",
    "xlsx": f"{_OPEN}.spreadsheetml.sheet",
    "epub": "application/epub+zip",
}
_TEXT = {
    **dict.fromkeys(("txt", "text", "log", "rst", "org", "adoc", "asciidoc", "srt", "vtt", "po", "diff"), "text/plain"),
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "tex": "text/x-tex",
    "bib": "text/x-bibtex",
    **dict.fromkeys(("json", "jsonl", "ndjson", "ipynb"), "application/json"),
    **dict.fromkeys(("xml", "svg", "xsd", "xsl"), "application/xml"),
    **dict.fromkeys(("yaml", "yml"), "application/yaml"),
    "toml": "application/toml",
    **dict.fromkeys(("ini", "cfg", "conf", "properties", "env"), "text/plain"),
}
_CODE = {
    **dict.fromkeys(("py", "pyi", "pyw"), "python"),
    **dict.fromkeys(("js", "mjs", "cjs", "jsx"), "javascript"),
    **dict.fromkeys(("ts", "mts", "cts"), "typescript"),
    "tsx": "tsx",
    "java": "java",
    **dict.fromkeys(("c", "h"), "c"),
    **dict.fromkeys(("cc", "cpp", "cxx", "hh", "hpp", "hxx", "cu", "cuh"), "cpp"),
    "go": "go",
    "rs": "rust",
    **dict.fromkeys(("sh", "bash", "zsh"), "shell"),
    **dict.fromkeys(("css", "scss", "less"), "css"),
    **dict.fromkeys(("kt", "kts"), "kotlin"),
    **dict.fromkeys(("pl", "pm"), "perl"),
    **dict.fromkeys(("hs", "lhs"), "haskell"),
    **dict.fromkeys(("ex", "exs"), "elixir"),
    **dict.fromkeys(("clj", "cljs", "edn"), "clojure"),
    **dict.fromkeys(("ml", "mli"), "ocaml"),
    "cs": "csharp",
    **{name: name for name in ("rb", "php", "swift", "scala", "lua", "r", "jl", "sql", "dart", "zig", "nim", "erl")},
    **{name: name for name in ("el", "lisp", "scm", "vim", "ps1", "bat", "asm", "s", "f90", "proto", "graphql", "tf")},
    **{name: name for name in ("cmake", "mk", "gradle", "groovy", "vue", "svelte", "pyx", "pxd", "sol")},
}
FORMATS: dict[str, Format] = {
    **{extension: Format(media_type, "text") for extension, media_type in _TEXT.items()},
    **{extension: Format(f"text/x-{language}", "text") for extension, language in _CODE.items()},
    **dict.fromkeys(("md", "markdown", "mdown", "mkd", "mdx"), Format("text/markdown", "markdown")),
    **dict.fromkeys(("html", "htm", "xhtml"), Format("text/html", "html")),
    **{extension: Format(media_type, "structured") for extension, media_type in _STRUCTURED.items()},
}
"""Every known format by its extension, in lower case and without the dot."""

NOT_TEXT = frozenset(
    "png jpg jpeg gif bmp ico webp tif tiff psd heic avif mp3 mp4 m4a m4v wav flac ogg oga ogv webm avi mov mkv "
    "zip gz bz2 xz zst lz4 7z rar tar tgz jar war whl egg deb rpm dmg iso exe dll so dylib a o obj lib class pyc pyo "
    "pyd wasm bin dat db sqlite sqlite3 mdb parquet arrow feather orc npy npz pt pth ckpt safetensors gguf onnx h5 "
    "hdf5 pkl pickle ttf otf woff woff2 eot swf doc xls ppt odt ods odp rtf mobi azw3 djvu ps eps msg pst lock".split()
)
"""Extensions that no reader understands; a walk passes over them without opening the file."""


def extension(name: str) -> str:
    """The extension of a file name in lower case without its dot, "" where it has none."""
    return PurePath(name).suffix[1:].lower()


def format_of(name: str) -> Format | None:
    """The format that a file name tells of, None where it does not tell."""
    return FORMATS.get(extension(name))


def language_of(media_type: str) -> str | None:
    """The programming language of a media type such as "text/x-python", None for anything else."""
    language = media_type.removeprefix("text/x-")
    return language if language != media_type and language in _LANGUAGES else None


_LANGUAGES = frozenset(_CODE.values())
