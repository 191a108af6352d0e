"""`/v1/libraries/{library}/documents` and `/uploads`: what is in a library, and what is on its way."""

from __future__ import annotations

import io
import json
import unicodedata
from dataclasses import asdict
from typing import IO, Annotated, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from pydantic import TypeAdapter, ValidationError

from longreach.serve.access import Caller, may_read, may_write
from longreach.serve.bodies.common import Metadata
from longreach.serve.bodies.embeddings import ERRORS
from longreach.serve.bodies.libraries import Deleted, DocumentBody, Documents, TextRequest, UploadBody, Uploads
from longreach.serve.journal import Upload
from longreach.serve.keys import Key
from longreach.serve.refusals import Refusal, bad, not_found
from longreach.serve.routes.common import Here
from longreach.serve.service import Service
from longreach.types import DocumentInfo

router = APIRouter(prefix="/v1/libraries/{library}", tags=["Documents"], responses=ERRORS)
NAME_BYTES = 200
"""How long a document's name may be in UTF-8."""
UNFINISHED = 10_000
"""Uploads that may be on their way at once."""
_METADATA: TypeAdapter[Metadata] = TypeAdapter(Metadata)


@router.get("/documents", response_model_exclude_none=True)
async def list_documents(
    library: str,
    service: Here,
    key: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=4000)] = None,
) -> Documents:
    """The documents, oldest first, `limit` of them behind the one called `after`."""
    may_read(key, library)
    infos = await service.search_in(lambda: service.shelf.get(library).documents())
    begin = 0
    if after is not None:
        begin = next((place for place, info in enumerate(infos, 1) if info.id == after), len(infos))
    shown = infos[begin : begin + limit]
    more = shown[-1].id if shown and begin + limit < len(infos) else None
    return Documents(documents=[_document(info) for info in shown], after=more)


@router.post("/documents", status_code=202)
async def upload(
    library: str,
    service: Here,
    key: Caller,
    file: Annotated[UploadFile, File(description="Its name is the document's id; what had that name is replaced.")],
    metadata: Annotated[str, Form(max_length=20_000, description="A JSON object of texts and numbers.")] = "{}",
) -> UploadBody:
    """Take a file (PDF, DOCX, PPTX, XLSX, EPUB, HTML, Markdown, text, source code). It is read and indexed in the
    background: look at the upload to see how far it is. Once this is answered, a restart does not lose it."""
    may_write(key, library)
    try:
        about = _METADATA.validate_python(json.loads(metadata))
    except (ValueError, ValidationError, RecursionError):
        raise bad("metadata must be a JSON object of texts, numbers and truth values", "metadata") from None
    return await _take(service, key, library, _safe(file.filename or ""), "file", file.file, about)


@router.put("/documents/{document:path}", status_code=202)
async def put_text(library: str, document: str, body: TextRequest, service: Here, key: Caller) -> UploadBody:
    """Take a text as the document of this id; what had that id is replaced."""
    may_write(key, library)
    if document != _safe(document):
        raise bad("an id is a name without slashes, control characters and white space around it", "document")
    if len(body.text) > service.options.text_characters:
        raise Refusal(413, f"a text may have {service.options.text_characters} characters", code="too_large")
    content = io.BytesIO(body.text.encode("utf-8", "surrogatepass"))
    return await _take(service, key, library, document, "text", content, body.metadata)


@router.get("/documents/{document:path}", response_model_exclude_none=True)
async def get_document(library: str, document: str, service: Here, key: Caller, text: bool = True) -> DocumentBody:
    """A document; with its text unless that is not wanted. Citations are characters of this text."""
    may_read(key, library)

    def work() -> DocumentBody:
        opened = service.shelf.get(library)
        info = next((info for info in opened.documents() if info.id == document), None)
        if info is None:
            raise not_found(f"document {document!r}")
        found = _document(info)
        if text:
            found.text = opened.get(document).text.encode("utf-8", "replace").decode("utf-8")
        return found

    return await service.search_in(work)


@router.delete("/documents/{document:path}")
async def delete_document(library: str, document: str, service: Here, key: Caller) -> Deleted:
    """Take a document out of its library, and what is on its way to become it."""
    may_write(key, library)

    def work() -> None:
        opened = service.shelf.writable(library)
        taken_back = service.journal.forget(library, document)
        removed = opened.remove(document).removed
        service.journal.deleted(library, document)
        if not removed and not taken_back:
            raise not_found(f"document {document!r}")

    await service.write_in(work)
    return Deleted(id=document)


@router.get("/uploads")
async def uploads(library: str, service: Here, key: Caller) -> Uploads:
    """What was uploaded, latest first; what ended is told for a week."""
    may_read(key, library)

    def work() -> list[Upload]:
        service.shelf.get(library)
        return service.journal.of(library)

    return Uploads(uploads=[_upload(one) for one in await service.search_in(work)])


@router.get("/uploads/{upload}")
async def look(library: str, upload: str, service: Here, key: Caller) -> UploadBody:
    """How far an upload is."""
    may_read(key, library)
    found = await service.search_in(lambda: service.journal.get(library, upload))
    if found is None:
        raise not_found(f"upload {upload!r}")
    return _upload(found)


async def _take(
    service: Service,
    key: Key,
    library: str,
    name: str,
    kind: Literal["file", "text"],
    content: IO[bytes],
    metadata: Metadata,
) -> UploadBody:
    if len(metadata) > 64:
        raise bad("a document may have 64 pieces of metadata", "metadata")

    def work() -> Upload:
        service.shelf.writable(library)
        if service.journal.unfinished() >= UNFINISHED:
            raise Refusal(429, "too many uploads are on their way: try again later", code="queue_full", wait=30)
        return service.journal.take(library, name, kind, content, metadata, key.id, key.quota)

    taken = await service.write_in(work)
    service.indexer.wake()
    return _upload(taken)


def _safe(name: str) -> str:
    """The name of a file as a document's id: no folder, no control characters, not too long. Raises Refusal where
    nothing is left. It is never part of a path here."""
    last = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    shown = "".join(c for c in last if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")).strip()
    stem, dot, extension = shown.rpartition(".")
    while len(shown.encode()) > NAME_BYTES and (stem or extension):
        stem, extension = (stem[:-1], extension) if stem else (stem, extension[:-1])
        shown = f"{stem}{dot}{extension}"
    if shown.strip(".") == "":
        raise bad("the file has no name", "file")
    return shown


def _document(info: DocumentInfo) -> DocumentBody:
    return DocumentBody(
        id=info.id,
        source=info.source,
        media_type=info.media_type,
        characters=info.characters,
        chunks=info.chunks,
        metadata=dict(info.metadata),
    )


def _upload(one: Upload) -> UploadBody:
    told = asdict(one)
    return UploadBody(**{name: told[name] for name in UploadBody.model_fields})
