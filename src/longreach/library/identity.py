"""Names that stay while the content does: chunk ids, content hashes, text keys. All are BLAKE2b (RFC 7693)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable

from longreach.types import Anchor, Document


def encode(text: str) -> bytes:
    """UTF-8 that takes lone surrogates too; `decode` gives the text back exactly."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """The inverse of `encode`."""
    return data.decode("utf-8", "surrogatepass")


def chunk_ids(document_id: str, texts: Iterable[str]) -> list[str]:
    """20 hexadecimal digits for each chunk, from the document's id, the chunk's text, and which occurrence of this text
    in the document it is."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        parts = encode(document_id), str(seen[text]).encode(), encode(text)
        seen[text] += 1
        ids.append(hashlib.blake2b(b"\x00".join(parts), digest_size=10).hexdigest())
    return ids


def content_hash(document: Document) -> str:
    """32 hexadecimal digits over all that a document says."""
    digest = hashlib.blake2b(digest_size=16)
    about = [document.id, document.source, document.media_type, dict(sorted(document.metadata.items()))]
    digest.update(json.dumps([about, anchors_to_json(document.anchors)]).encode())
    digest.update(encode(document.text))
    return digest.hexdigest()


def text_key(text: str) -> int:
    """A signed 64-bit key of `text`."""
    return int.from_bytes(hashlib.blake2b(encode(text), digest_size=8).digest(), "big", signed=True)


def anchors_to_json(anchors: Iterable[Anchor]) -> str:
    """One JSON array; `anchors_from_json` gives the anchors back."""
    return json.dumps([[anchor.kind, anchor.offset, anchor.label, anchor.level] for anchor in anchors])


def anchors_from_json(text: str) -> tuple[Anchor, ...]:
    """The inverse of `anchors_to_json`."""
    return tuple(Anchor(kind, offset, label, level) for kind, offset, label, level in json.loads(text))
