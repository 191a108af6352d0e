"""`longreach keys`: who may use the server."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from longreach.cli import options
from longreach.cli.common import note, out, print_json
from longreach.config import load_settings
from longreach.errors import InputError

app = typer.Typer(help="Create, list and revoke API keys of `longreach serve`.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)],
    libraries: Annotated[
        list[str] | None,
        typer.Option("--library", "-l", metavar="NAME", help="A library that it may ask; may be repeated; else all."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="It may add and delete documents and libraries.")] = False,
    per_minute: Annotated[int, typer.Option(min=0, help="Requests a minute; 0 is no limit.")] = 0,
    tenant: Annotated[str, typer.Option(help="Keys of one tenant reuse what was read for the others.")] = "",
    quota: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What of its uploads may be kept at once: 2GB, 512MiB; else any amount."),
    ] = None,
    folder: options.ServeFolder = None,
) -> None:
    """Make a key and print it, once: it cannot be had again."""
    from longreach.evaluate.quantities import size
    from longreach.serve.keys import ALL, KeyStore

    store = KeyStore(load_settings(serve_folder=folder).serve_folder)
    most = 0 if quota is None else size(quota)
    if quota is not None and most < 1:
        raise InputError(f"--quota {quota} keeps nothing: leave --write away instead")
    key, secret = store.create(
        name, libraries=libraries or [ALL], write=write, per_minute=per_minute, tenant=tenant, quota=most
    )
    out.print(secret, markup=False)
    note(f"{key.name} ({key.id}): keep it, only its hash is kept here")


@app.command("list")
def list_keys(folder: options.ServeFolder = None, as_json: options.AsJson = False) -> None:
    """List the keys, revoked ones too."""
    from longreach.serve.keys import KeyStore

    keys = KeyStore(load_settings(serve_folder=folder).serve_folder).list()
    if as_json:
        print_json([{**asdict(key), "libraries": list(key.libraries)} for key in keys])
        return
    for key in keys:
        may = "may write" if key.write else "may read"
        may += f" {key.quota / 1e6:,.4g} MB" if key.write and key.quota else ""
        rate = f"{key.per_minute} a minute" if key.per_minute else "no limit"
        state = "" if key.revoked is None else f" [red]revoked {_day(key.revoked)}[/]"
        libraries = escape(", ".join(key.libraries))
        out.print(f"{escape(key.name)}  [dim]{key.id} · {libraries} · {may} · {rate} · {_day(key.created)}[/]{state}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name or id.", show_default=False)],
    folder: options.ServeFolder = None,
) -> None:
    """Let a key be good no more, at once."""
    from longreach.serve.keys import KeyStore

    key = KeyStore(load_settings(serve_folder=folder).serve_folder).revoke(name)
    note(f"{key.name} ({key.id}) is revoked")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
