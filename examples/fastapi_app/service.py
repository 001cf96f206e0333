"""A FastAPI service with a queue: first the service of the README, then endpoints whose work takes seconds.

    uvicorn examples.fastapi_app.service:app

An endpoint runs in the same way for a direct call (`POST /enlarge`) and for a queued one (`POST /fal/queue/submit/enlarge`).
"""

from __future__ import annotations

import asyncio
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

api = FastAPI(title="Darkroom")


@api.post("/generate")
async def generate(order: dict[str, str]) -> dict[str, str]:
    """The endpoint of the README."""
    current_job.report_progress(0.5, "painting")  # shown in the status; does nothing when called directly
    await asyncio.sleep(1)
    return {"picture": f"a picture of {order['prompt']}"}


# Two queued requests run at once: one for each core of a small machine.
# All other options come from the environment (QUEUE_DATABASE, …).
app = QueueMiddleware(api, concurrency=2)


# --- The rest is the demo: endpoints with real work. They are added to `api`, so the queue runs them too.

PICTURES = Path(os.environ.get("DARKROOM_PICTURES", Path(tempfile.gettempdir()) / "darkroom-pictures"))
PICTURES.mkdir(parents=True, exist_ok=True)

RETOUCHER = os.environ.get("RETOUCHER", "http://127.0.0.1:8002")

# The status of a request contains what was logged while it ran. Python's default level suppresses INFO, so it is lowered here.
log = logging.getLogger("examples")
log.setLevel(logging.INFO)

api.mount("/pictures", StaticFiles(directory=PICTURES))
sheets = Counter[str](finished=0, stopped=0)


class Enlarge(BaseModel):
    """An enlargement. FastAPI validates it: a body outside these bounds gets a 422, which the webhook reports too."""

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
    """A sync endpoint: FastAPI runs it in a thread, where progress reports work too. In a direct call they do nothing."""
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
    """An async endpoint: cancelling its request stops it between two frames, and the remaining frames are not made."""
    photograph = _load(order.photograph)
    frames: list[Image.Image] = []
    outcome = "stopped"
    try:
        for number in range(order.frames):
            current_job.report_progress(number / order.frames, f"frame {number + 1}/{order.frames}")
            exposure = 0.5 + number / order.frames
            # The computation runs in a thread, so that the event loop stays free for other requests.
            frames.append(await to_thread.run_sync(darkroom.develop, photograph, exposure))
        name = await to_thread.run_sync(_save_sheet, frames)
        outcome = "finished"
    finally:  # also runs when the request is cancelled: release resources here
        sheets[outcome] += 1
        log.info("sheet %s after %d frames", outcome, len(frames))
    return {"picture": f"/pictures/{name}", "frames": len(frames)}


@api.post("/retouch", status_code=202)
async def retouch(order: Retouch) -> dict[str, str]:
    """Hand the work to an external service and return at once. The body of its callback becomes the request's result."""
    if not current_job:
        raise HTTPException(409, "submit this call to the queue: a direct call cannot wait for the retoucher")
    current_job.report_progress(0.5, "waiting for the retoucher")
    job = {"photograph": order.photograph, "webhook": current_job.callback_url}
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(f"{RETOUCHER}/jobs", json=job)
    response.raise_for_status()
    return dict(response.json())


@api.get("/sheets")
async def count_sheets() -> dict[str, int]:
    """The numbers of contact sheets that were finished and that were stopped."""
    return dict(sheets)


def _load(name: str) -> Image.Image:
    try:
        return darkroom.load(name)
    except FileNotFoundError:
        raise HTTPException(404, f"there is no photograph {name!r}") from None


def _save_sheet(frames: list[Image.Image]) -> str:
    return darkroom.save(darkroom.paste_up(frames), PICTURES)
