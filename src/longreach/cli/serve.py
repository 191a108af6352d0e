"""`longreach serve`: the library and the model for other programs."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longreach.cli import options
from longreach.cli.common import note, token_counter
from longreach.config import Settings, load_settings
from longreach.errors import InputError, LibraryVersionError

if TYPE_CHECKING:
    from longreach.engine import Engine
    from longreach.library import Library
    from longreach.serve.service import Service


def serve(
    host: Annotated[str, typer.Option(help="The address to listen at; others than this machine's need API keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    folder: options.ServeFolder = None,
    libraries: Annotated[
        list[Path] | None,
        typer.Option("--library", "-l", metavar="DIR", help="A library to serve, for reading; may be repeated."),
    ] = None,
    model: options.Model = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the page for people, too.")] = True,
    frontiers: Annotated[
        list[Path] | None,
        typer.Option(
            "--frontier", metavar="DIR", help="Show what `longreach eval --sweep` wrote here; may be repeated."
        ),
    ] = None,
    running: Annotated[int, typer.Option(min=1, help="Requests that are worked on at once.")] = 32,
    queue: Annotated[int, typer.Option(min=0, help="Requests that wait, beyond which they are sent away.")] = 64,
    ray: Annotated[
        bool, typer.Option("--ray", help="Let replicas of the engine answer, under Ray Serve; RAY_ADDRESS says where.")
    ] = False,
    replicas: Annotated[int | None, typer.Option(min=1, help="How many replicas; 2 where nothing is said.")] = None,
) -> None:
    """Serve questions, chats and documents over HTTP, by OpenAI's protocol and our own, and a page for people."""
    from longreach.serve.keys import KeyStore
    from longreach.serve.options import ServeOptions

    settings = load_settings(model=model, serve_folder=folder)
    chosen = ServeOptions(
        folder=settings.serve_folder,
        host=host,
        port=port,
        mounted=_mounted(settings, libraries),
        page=page and find_spec("nicegui") is not None,
        frontiers=frontiers or [Path("longreach-sweep")],
        running=running,
        queue=queue,
    )
    if replicas is not None and not ray:
        raise InputError("--replicas are for Ray: add --ray")
    keys = KeyStore(chosen.folder)
    if not chosen.loopback and not any(key.revoked is None for key in keys.list()):
        raise InputError(f"{host} can be reached by others: make a key first, with `longreach keys create NAME`")
    from longreach.serve.server import serve as run

    note(f"http://{host}:{port} · {settings.model} · documents and keys in {chosen.folder}")
    if page and not chosen.page:
        note("the API alone: the page for people needs `pip install 'longreach[page]'`")
    run(make_service(settings, chosen, (replicas or 2) if ray else 0))


def make_service(settings: Settings, chosen: object, replicas: int = 0) -> Service:
    """The server of the settings, with `replicas` of the engine under Ray Serve; 0: with an engine of its own."""
    from longreach.cli.ask import make_engine
    from longreach.library import Library
    from longreach.library.embed import load_encoder
    from longreach.serve.logs import make_log
    from longreach.serve.options import ServeOptions
    from longreach.serve.service import Service
    from longreach.serve.shared_encoder import SharedEncoder

    assert isinstance(chosen, ServeOptions)
    shared = SharedEncoder(
        settings.encoder,
        lambda: load_encoder(settings.encoder, cache=settings.cache, device=settings.device, offline=settings.offline),
    )
    count = token_counter(settings)

    def opened(path: Path, create: bool) -> Library:
        if create:
            return Library.open(
                path, create=True, encoder=shared, chunker=settings.chunker, cache=settings.cache, count=count
            )
        try:
            return Library.open(path, encoder=shared, cache=settings.cache, count=count)
        except LibraryVersionError:  # made with another encoder: it has its own
            return Library.open(path, cache=settings.cache, count=count)

    return Service(
        chosen,
        settings,
        make_log(),
        make_engine=lambda: _replicated(settings, chosen.folder, replicas) if replicas else make_engine(settings),
        open_library=opened,
        load_encoder=lambda: shared,
    )


def _replicated(settings: Settings, folder: Path, replicas: int) -> Engine:
    """What stands for replicas of the engine that the settings name."""
    from longreach.serve.replicas.engine import ReplicatedEngine
    from longreach.serve.replicas.start import start_replicas

    if settings.model.startswith(("http://", "https://")):
        raise InputError(f"{settings.model} is a server: there is nothing to replicate, start it without --ray")
    gpus: Literal["use", "leave"] = "leave" if settings.device == "cpu" else "use"
    return ReplicatedEngine(start_replicas(partial(_engine_there, _told(settings)), replicas, folder, gpus=gpus))


def _told(settings: Settings) -> dict[str, str]:
    """The settings as a process elsewhere finds them in its environment; it may stand in another folder."""
    told = {}
    for name, value in settings:
        path = isinstance(value, Path) or (name == "model" and Path(value).exists())
        if value is not None and name != "api_key":
            told[f"LONGREACH_{name.upper()}"] = str(Path(value).absolute() if path else value)
    return told


def _engine_there(told: dict[str, str]) -> Engine:
    """In a replica: the engine of the front's settings."""
    from longreach.cli.ask import make_engine

    os.environ.update(told)
    return make_engine(load_settings())


def _mounted(settings: Settings, libraries: list[Path] | None) -> dict[str, Path]:
    """Libraries by the names that they are served under. Without any, the one of the settings, if it is there."""
    chosen = libraries or ([settings.library] if settings.library.is_dir() else [])
    found: dict[str, Path] = {}
    for path in chosen:
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in path.stem.lower()).strip("-_")
        if not path.is_dir():
            raise InputError(f"{path} is no library")
        if not name or name in found:
            raise InputError(f"{path} cannot be served: no other library may be called {name!r}")
        found[name[:64]] = path
    return found
