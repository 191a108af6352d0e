"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from longreach.serve.keys import Key, KeyStore
from longreach.serve.options import ServeOptions
from longreach.serve.rates import Rates
from longreach.serve.refusals import Refusal, not_found

NOBODY = Key("", "local", "", write=True)
"""Whoever sits at this machine, while there are no keys."""
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Access:
    """Lets requests in: with a good key, or, on loopback and while no key was ever made, without."""

    options: ServeOptions
    keys: KeyStore
    rates: Rates

    def caller(self, request: Request) -> Key:
        """The key of a request. Raises Refusal: 401, 403 or 429."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if self.asks:
            key = self.keys.find(secret) if secret else None
            if key is None:
                raise Refusal(401, "this needs a good API key: Authorization: Bearer lr-...", code="invalid_api_key")
        else:
            self.from_here(request)
            key = NOBODY
        request.state.fields["key"] = key.id
        self.rates.take(key)
        return key

    @property
    def asks(self) -> bool:
        """Whether nobody gets in without a key."""
        return not self.options.loopback or self.keys.any()

    def from_here(self, request: HTTPConnection) -> None:
        """Without a key, no web page may use a browser on this machine to get in: neither by a name that it lets point
        here (DNS rebinding), nor from its own origin. Raises Refusal, 403."""
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        origin = request.headers.get("origin")
        known = _HERE | {self.options.host}
        if host not in known or (origin is not None and (urlsplit(origin).hostname or "") not in known):
            raise Refusal(403, "without an API key only this machine itself may ask", code="not_local")


def caller(request: Request) -> Key:
    """The key of a request, as a dependency."""
    access: Access = request.app.state.service.access
    return access.caller(request)


def overseer(key: Annotated[Key, Depends(caller)]) -> Key:
    """The same, where it may look at the server as a whole."""
    if not key.everything:
        raise Refusal(403, "this key may not see that", code="no_right")
    return key


Caller: TypeAlias = Annotated[Key, Depends(caller)]


def may_read(key: Key, library: str) -> None:
    """Raises Refusal, 404, where the library is none of the key's: whether there is one is not told."""
    if not key.may_read(library):
        raise not_found(f"library {library!r}")


def may_write(key: Key, library: str) -> None:
    """Raises Refusal, 404 or 403."""
    may_read(key, library)
    if not key.write:
        raise Refusal(403, "this key may read, and change nothing", code="no_right")
