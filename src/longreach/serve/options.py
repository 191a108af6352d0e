"""What a server is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from longreach.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """`folder` holds keys, libraries and uploads. `mounted` are libraries that lie elsewhere, by name: they are read
    and never written. With `page`, people are served too; `frontiers` are folders that `longreach eval --sweep` wrote.
    At most `running` requests are worked on at once and `queue` more wait. Sizes are bytes, times seconds:

    - `body_bytes`, `upload_bytes`: of a request, and of one that uploads; `text_characters`: of a document's text.
    - `header_seconds`, `body_seconds`: until a connection has sent its request's head, and its body.
    - `request_seconds`: until a request is ended wherever it is; a caller may ask for less.
    - `drain_seconds`: how long a server that was told to end lets requests finish.
    - `parse_seconds`, `parse_bytes`: what reading one upload may take.
    - `retry_seconds`: until a full disk or a busy library is tried again.
    - `most_tokens`: how long an answer may be asked for; `prompts`, `embeddings`: how many texts go into one request.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    mounted: Mapping[str, Path] = field(default_factory=dict)
    page: bool = False
    frontiers: Sequence[Path] = ()
    running: int = 32
    queue: int = 64
    body_bytes: int = 4 << 20
    upload_bytes: int = 100 << 20
    text_characters: int = 20_000_000
    header_seconds: float = 15.0
    body_seconds: float = 120.0
    request_seconds: float = 600.0
    drain_seconds: float = 30.0
    parse_seconds: float = 120.0
    parse_bytes: int = 4 << 30
    retry_seconds: float = 20.0
    most_tokens: int = 8192
    prompts: int = 32
    embeddings: int = 512

    def __post_init__(self) -> None:
        for name in ("running", "body_bytes", "upload_bytes", "most_tokens", "prompts", "embeddings"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.queue < 0:
            raise InputError(f"queue={self.queue} must be 0 or more")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False
