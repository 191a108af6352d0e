"""Who looks at the page: a session after signing in with a key, or whoever sits at this machine while there are no
keys."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from longreach.serve.access import NOBODY
from longreach.serve.keys import Key
from longreach.serve.refusals import Refusal
from longreach.serve.service import Service

COOKIE = "longreach_session"
LASTS = 12 * 3600
"""Seconds until one must sign in again."""


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in with the key `key_id` that is good until `ends`, in seconds since 1970; `id` tells it from others."""

    key_id: str
    ends: int
    id: str


class Sessions:
    """Signs and reads the cookies of one server. They hold no key, and what signs them is made anew at each start: a
    cookie is worth nothing to another server, nor after a restart."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        self._clock = clock
        self._ended: dict[str, int] = {}

    def begin(self, key: Key) -> str:
        """The cookie of a new session."""
        told = f"{key.id}.{int(self._clock()) + LASTS}.{secrets.token_hex(16)}"
        return f"{told}.{self._signature(told)}"

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie, if it is one of ours and good."""
        told, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._signature(told).encode(), signature.encode("utf-8", "replace")):
            return None
        key_id, ends, identity = told.split(".")
        session = Session(key_id, int(ends), identity)
        return session if self.good(session) else None

    def good(self, session: Session) -> bool:
        """Whether it has not ended."""
        return session.id not in self._ended and self._clock() < session.ends

    def end(self, session: Session) -> None:
        """Let its cookie be good no more, wherever it is."""
        now = self._clock()
        self._ended = {identity: ends for identity, ends in self._ended.items() if ends > now}
        self._ended[session.id] = session.ends

    def _signature(self, told: str) -> str:
        return hmac.new(self._secret, told.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever looks at one page. What he may is looked up anew each time: a key that is revoked shows nothing more."""

    service: Service
    sessions: Sessions
    session: Session | None

    async def key(self) -> Key:
        """What he may. Raises Refusal, 401."""
        return await asyncio.to_thread(self._key)

    async def spend(self) -> Key:
        """The same for what counts as a request. Raises Refusal, 401 or 429."""
        key = await self.key()
        self.service.access.rates.take(key)
        return key

    def _key(self) -> Key:
        access = self.service.access
        if not access.asks:
            return NOBODY
        key = None
        if self.session is not None and self.sessions.good(self.session):
            key = access.keys.good(self.session.key_id)
        if key is None:
            raise Refusal(401, "you are not signed in any more", code="invalid_api_key")
        return key


def visitor_of(service: Service, sessions: Sessions, connection: HTTPConnection) -> Visitor:
    """Whoever makes a request or opens a connection. Raises Refusal: 401, 403."""
    if not service.access.asks:
        service.access.from_here(connection)
    visitor = Visitor(service, sessions, sessions.read(connection.cookies.get(COOKIE, "")))
    visitor._key()
    return visitor
