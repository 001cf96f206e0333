"""A darkroom: a FastAPI service whose work takes seconds. One line, the last, gives it a queue.

    uvicorn examples.fastapi_app.service:app

A handler does not know whether a client waits for it (POST /enlarge) or has queued the call (POST /fal/queue/submit/enlarge).
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from pathlib import Path

import httpx
from anyio import to_thread
from fastapi import FastAPI, HTTPException
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydantic import BaseModel, Field

from examples import darkroom
from queue_middleware import QueueMiddleware, current_job

PICTURES = Path(os.environ.get("DARKROOM_PICTURES", Path(tempfile.gettempdir()) / "darkroom-pictures"))
PICTURES.mkdir(parents=True, exist_ok=True)

# Nothing else is needed to see, in a request's status, what was logged while it ran; by default Python keeps INFO back.
log = logging.getLogger("examples")
log.setLevel(logging.INFO)

RETOUCHER = os.environ.get("RETOUCHER", "http://127.0.0.1:8002")

api = FastAPI(title="Darkroom")
api.mount("/pictures", StaticFiles(directory=PICTURES))
sheets = Counter[str](finished=0, stopped=0)


class Enlarge(BaseModel):
    """What FastAPI validates: a body outside these bounds is its 422, by webhook too."""

    photograph: str = Field("astronaut", pattern="^[a-z]+$")
    scale: int = Field(2, ge=2, le=4)
    rounds: int = Field(30, ge=1, le=200)


class ContactSheet(BaseModel):
    """A series of exposures on one sheet."""

    photograph: str = Field("astronaut", pattern="^[a-z]+$")
    frames: int = Field(12, ge=1, le=200)


class Retouch(BaseModel):
    """Work for an external service."""

    photograph: str = Field("astronaut", pattern="^[a-z]+$")


@api.post("/enlarge")
def enlarge(order: Enlarge) -> dict[str, object]:
    """A plain function: FastAPI runs it in a thread, and it reports progress from there. A direct call shows none."""
    log.info("%s, %d times as large", order.photograph, order.scale)
    result = darkroom.enlarge(_load(order.photograph), order.scale, order.rounds, current_job.report_progress)
    name = darkroom.save(result.picture, PICTURES)
    return {
        "picture": f"/pictures/{name}",
        "width": result.picture.width,
        "height": result.picture.height,
        "error": {"before": result.error_before, "after": result.error_after},
    }


@api.post("/contact-sheet")
async def contact_sheet(order: ContactSheet) -> dict[str, object]:
    """An async function can really be cancelled: between two frames it stops, and the frames that are left are never made."""
    photograph = _load(order.photograph)
    frames: list[Image.Image] = []
    outcome = "stopped"
    try:
        for number in range(order.frames):
            current_job.report_progress(number / order.frames, f"frame {number + 1}/{order.frames}")
            exposure = 0.5 + number / order.frames
            # The CPU's work goes to a thread, so that the event loop stays free for other requests.
            frames.append(await to_thread.run_sync(darkroom.develop, photograph, exposure))
        name = await to_thread.run_sync(_save_sheet, frames)
        outcome = "finished"
    finally:  # runs when the request is cancelled, too: the place to give back what was taken
        sheets[outcome] += 1
        log.info("sheet %s after %d frames", outcome, len(frames))
    return {"picture": f"/pictures/{name}", "frames": len(frames)}


@api.post("/retouch", status_code=202)
async def retouch(order: Retouch) -> dict[str, str]:
    """An external service does the work; this handler returns at once. What the service sends back is the request's result."""
    if not current_job:
        raise HTTPException(409, "submit this call to the queue: a direct call cannot wait for the retoucher")
    current_job.report_progress(0.5, "waiting for the retoucher")
    job = {"photograph": order.photograph, "webhook": current_job.callback_url}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{RETOUCHER}/jobs", json=job)
    answer.raise_for_status()
    return dict(answer.json())


@api.get("/sheets")
async def count_sheets() -> dict[str, int]:
    """How many contact sheets were finished, and how many were stopped on the way."""
    return dict(sheets)


def _load(name: str) -> Image.Image:
    try:
        return darkroom.load(name)
    except FileNotFoundError:
        raise HTTPException(404, f"no photograph is called {name!r}") from None


def _save_sheet(frames: list[Image.Image]) -> str:
    return darkroom.save(darkroom.paste_up(frames), PICTURES)


# Two at once: one per core of a small machine. The database and all else come from the environment (QUEUE_DATABASE, …).
app = QueueMiddleware(api, concurrency=2)
