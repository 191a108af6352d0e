"""`/health`, `/ready`, `/metrics`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel
from starlette.responses import PlainTextResponse

from longreach.serve.access import overseer
from longreach.serve.bodies.embeddings import ERRORS
from longreach.serve.keys import Key
from longreach.serve.refusals import Refusal
from longreach.serve.routes.common import Here

router = APIRouter(tags=["Health"])


class Health(BaseModel):
    status: str


@router.get("/health")
async def health() -> Health:
    """Whether the process lives. Needs no key."""
    return Health(status="alive")


@router.get("/ready", responses={503: ERRORS[503]})
async def ready(service: Here) -> Health:
    """Whether requests are let in. Needs no key."""
    if service.state != "ready":
        wait = 2 if service.state == "starting" else 10
        raise Refusal(503, f"the server is not ready: {service.state}", code=service.state, wait=wait)
    return Health(status="ready")


@router.get("/metrics", response_class=PlainTextResponse, responses=ERRORS)
def metrics(service: Here, _: Annotated[Key, Depends(overseer)]) -> Response:
    """For Prometheus. Needs a key for all libraries, where there are keys."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
