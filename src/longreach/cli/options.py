"""The options and arguments of the commands, each written once: a command takes those it names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Library: TypeAlias = Annotated[
    Path | None, typer.Option("--library", "-l", metavar="DIR", help="The library; by default the one in the settings.")
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", "-m", help="embedded, a Hugging Face id, a folder, a .gguf file, or http://host:port."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Under: TypeAlias = Annotated[
    list[Path] | None, typer.Argument(metavar="[PATH]...", help="Only documents at or under these.")
]
Where: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", metavar="KEY=VALUE", help="Only documents with this metadata; may be repeated."),
]
Metadata: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Attach to every document of these paths; may be repeated."),
]

Retriever: TypeAlias = Annotated[str | None, typer.Option(help="hybrid, dense or bm25, with options.")]
Reranker: TypeAlias = Annotated[str | None, typer.Option(help='Such as "cross_encoder(model=...)".')]
Chooser: TypeAlias = Annotated[str | None, typer.Option(help="top_k or sage, with options.")]
Answerer: TypeAlias = Annotated[
    str | None, typer.Option(help="auto, rank_spans or extract (a span of the text), or generate.")
]
Chunker: TypeAlias = Annotated[
    str | None,
    typer.Option(help='How documents are cut, such as "sentence(tokens=128)"; settled by the first index.'),
]
Encoder: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What makes vectors: embedded, a Hugging Face id, a folder; settled by the first."),
]
ServeFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--folder", metavar="DIR", help="Where the server keeps keys, libraries and uploads.")
]
PromptTokens: TypeAlias = Annotated[int | None, typer.Option(help="The prompt's budget, in tokens.")]
