"""Uvicorn, with what it lacks: connections that say nothing are closed, and a server that shall end says so first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from longreach.serve.app import create_app
from longreach.serve.service import Service

KEEP_ALIVE = 20
"""Seconds for which a connection may stay open between two requests."""
MESSAGE_BYTES = 1 << 20
"""How long a message from the page may be."""
LAST_SECONDS = 5
"""Seconds for what is still open when the time to drain is over."""


class Server(uvicorn.Server):
    """Serves a service until a signal comes: then new requests are refused while those that run finish. A second signal
    ends it at once."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        options = service.options
        config = uvicorn.Config(
            create_app(service, self._begin),
            host=options.host,
            port=options.port,
            http=_guarded(options.header_seconds),
            loop="asyncio",
            ws="websockets-sansio" if options.page else "none",
            ws_max_size=MESSAGE_BYTES,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=LAST_SECONDS,
            lifespan="on",
        )
        super().__init__(config)
        _quiet(service.log)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None or self._draining is not None:
            self.should_exit = True
            self.force_exit = self._draining is not None
        else:
            self._loop.call_soon_threadsafe(self._drain)

    def stop(self) -> None:
        """As a signal does, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain)

    @property
    def address(self) -> str:
        """Where it listens."""
        listening: socket.socket = self.servers[0].sockets[0]
        host, port = listening.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.service.start(self._fail)

    def _fail(self) -> None:
        self.should_exit = True

    def _drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        await self.service.drain()
        self.should_exit = True


def serve(service: Service) -> None:
    """Serve until it shall end. Raises what kept the model from being loaded."""
    _allow_connections()
    Server(service).run()
    if service.failure is not None:
        raise service.failure


def _guarded(seconds: float) -> type[H11Protocol]:
    """Uvicorn's protocol, which closes a connection that has not sent a request's head after `seconds`."""

    class Guarded(H11Protocol):
        _guard: asyncio.TimerHandle | None = None
        _upgraded = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._guard = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._calm()
            elif self._guard is None and not self._upgraded:
                self._guard = self.loop.call_later(seconds, self.transport.close)

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self._upgraded = True  # what follows has pings of its own
            self._calm()
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._calm()
            super().connection_lost(exc)

        def _calm(self) -> None:
            if self._guard is not None:
                self._guard.cancel()
                self._guard = None

    return Guarded


def _quiet(log: logging.Logger) -> None:
    """Uvicorn's own warnings and errors go where ours go, and look alike."""
    theirs = logging.getLogger("uvicorn")
    theirs.handlers = list(log.handlers)
    theirs.propagate = False
    theirs.setLevel(logging.WARNING)


def _allow_connections() -> None:
    """As many open files as the system lets this process have: each connection is one."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
