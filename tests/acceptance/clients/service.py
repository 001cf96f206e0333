"""The service that the clients of fal call: a small FastAPI studio with a queue, on a real server.

A picture is finished when its gate, a file, exists; the client under test opens it when it has seen enough.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from queue_middleware import QueueMiddleware, current_job
from tests.acceptance.service import DIRECTORY, lifespan, record

log = logging.getLogger("studio")
log.setLevel(logging.INFO)
studio = FastAPI(lifespan=lifespan)


class Order(BaseModel):
    """The picture to paint, and the gate to wait for."""

    picture: str
    gate: str | None = None


@studio.post("/paint")
async def paint(order: Order) -> dict[str, Any]:
    """Two stages and two log lines, with the gate between them."""
    record("painting", str(current_job.id))
    current_job.report_progress(0.25, "sketching")
    log.info("sketching %s", order.picture)
    try:
        while order.gate and not (DIRECTORY / "gates" / order.gate).exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        record("stopped", str(current_job.id))
        raise
    current_job.report_progress(0.75, "colouring")
    log.warning("colouring %s", order.picture)
    return {"picture": order.picture.upper()}


@studio.post("/")
@studio.post("/echo")
async def echo(request: Request) -> dict[str, Any]:
    """Return what arrived, so that the test can compare it with what was sent."""
    body = await request.body()
    return {
        "path": request.url.path,
        "query": dict(request.query_params),
        "body": json.loads(body) if body else None,
        "request_id": request.headers.get("x-fal-request-id"),
        "authorization": request.headers.get("authorization"),
    }


@studio.post("/broken")
async def broken() -> None:
    """Raises; FastAPI responds with a plain 500."""
    raise RuntimeError("the easel fell over")


@studio.post("/words")
async def words() -> StreamingResponse:
    """A streamed response."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"words": ', b'["one", ', '"zwölf"'.encode(), b"]}"):
            yield piece
            await asyncio.sleep(0)

    return StreamingResponse(pieces(), media_type="application/json")


@studio.get("/health")
async def health() -> PlainTextResponse:
    return PlainTextResponse("well")


async def front(scope: Scope, receive: Receive, send: Send) -> None:
    """Outside the studio, where exceptions are not converted to responses."""
    if scope["type"] == "http" and scope["path"] == "/fallen":
        raise RuntimeError("the roof came down")
    await studio(scope, receive, send)


app = QueueMiddleware(front)
