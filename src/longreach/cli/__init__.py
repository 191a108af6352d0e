"""The command line: `longreach COMMAND`. Each command is a file of this package."""

from __future__ import annotations

import sys

import typer

from longreach.cli import ask, doctor, eval, index, keys, library, models, search, serve, tune
from longreach.cli.common import errors, fail

app = typer.Typer(
    name="longreach",
    help="Question answering over your documents with a model you run yourself; every answer traced to its source.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("ask")(ask.ask)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("eval")(eval.evaluate)
app.command("tune")(tune.tune)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(library.app, name="library")
app.add_typer(keys.app, name="keys")


def version(shown: bool) -> None:
    if shown:
        from longreach import __version__

        typer.echo(f"longreach {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Say the version."),
) -> None:
    pass


def main() -> None:
    """The entry point. Exit codes: 0, done; 1, it could not be done; 2, the request was at fault; 130, interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes that are no text; showing them must not fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with errors():
            app()
    except KeyboardInterrupt:
        fail("interrupted; what was done so far is kept", 130)
