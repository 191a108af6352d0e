"""`/v1/libraries`: make, list, look at and delete libraries."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from longreach.serve.access import Caller, may_read, may_write
from longreach.serve.bodies.embeddings import ERRORS
from longreach.serve.bodies.libraries import Deleted, Libraries, LibraryBody, LibraryRequest
from longreach.serve.routes.common import Here
from longreach.serve.service import Service

router = APIRouter(prefix="/v1/libraries", tags=["Libraries"], responses=ERRORS)


@router.get("")
async def list_libraries(service: Here, key: Caller) -> Libraries:
    """The libraries that the key may ask."""
    return Libraries(libraries=[name for name in service.shelf.names() if key.may_read(name)])


@router.post("", status_code=201)
async def create(body: LibraryRequest, service: Here, key: Caller) -> LibraryBody:
    """A new, empty library."""
    may_write(key, body.name)
    await service.write_in(lambda: service.shelf.create(body.name))
    return await service.search_in(lambda: _body(service, body.name))


@router.get("/{library}")
async def look(library: str, service: Here, key: Caller) -> LibraryBody:
    """Sizes and settings."""
    may_read(key, library)
    return await service.search_in(lambda: _body(service, library))


@router.delete("/{library}")
async def delete(library: str, service: Here, key: Caller) -> Deleted:
    """Take a library with all of its documents from the disk."""
    may_write(key, library)

    def work() -> None:
        service.shelf.writable(library)
        service.journal.forget(library)
        service.shelf.delete(library)
        service.journal.deleted(library)

    await service.write_in(work)
    return Deleted(id=library)


def _body(service: Service, name: str) -> LibraryBody:
    stats = asdict(service.shelf.get(name).stats())
    del stats["dim"]
    unfinished = sum(upload.status not in ("done", "failed") for upload in service.journal.of(name))
    return LibraryBody(name=name, writable=service.shelf.writes(name), unfinished_uploads=unfinished, **stats)
