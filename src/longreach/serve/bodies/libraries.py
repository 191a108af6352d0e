"""Libraries and documents."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from longreach.serve.bodies.common import Body, Metadata
from longreach.serve.journal import Status


class LibraryRequest(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "manuals"}]})

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")


class LibraryBody(BaseModel):
    """Sizes; `writable` is false for a library that is only read here."""

    name: str
    writable: bool
    documents: int
    chunks: int
    characters: int
    tokens: int
    bytes: int
    encoder: str
    chunker: str
    unfinished_uploads: int = 0


class Libraries(BaseModel):
    libraries: list[str]


class TextRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "The torque limit is 25 Nm.", "metadata": {"y": 2025}}]},
    )

    text: str = Field(min_length=1)
    metadata: Metadata = Field(default_factory=dict, max_length=64)


class DocumentBody(BaseModel):
    id: str
    source: str
    media_type: str
    characters: int
    chunks: int
    metadata: Metadata
    text: str | None = None


class Documents(BaseModel):
    """`after` is the id to go on from, None at the end."""

    documents: list[DocumentBody]
    after: str | None = None


class UploadBody(BaseModel):
    """`progress` goes from 0 to 1; times are seconds since 1970."""

    id: str
    library: str
    document: str
    status: Status
    progress: float
    reason: str
    bytes: int
    created: float
    changed: float


class Uploads(BaseModel):
    uploads: list[UploadBody]


class Deleted(BaseModel):
    id: str
    deleted: Literal[True] = True
