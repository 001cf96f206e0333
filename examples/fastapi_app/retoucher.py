"""An external service: it accepts a job, responds at once, and calls back when the work is done.

    uvicorn examples.fastapi_app.retoucher:app --port 8002

The real ones (fal, Replicate, …) do the same with better models.
"""

from __future__ import annotations

import asyncio
import secrets

import httpx
from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel, HttpUrl

PASSES = ("dust", "scratches", "contrast")
PACE = 0.5
"""Seconds for one pass."""

app = FastAPI(title="Retoucher")


class Job(BaseModel):
    """The body of a job."""

    photograph: str
    webhook: HttpUrl


@app.post("/jobs", status_code=202)
async def take(job: Job, later: BackgroundTasks) -> dict[str, str]:
    """Say yes; the work begins afterwards."""
    number = secrets.token_hex(4)
    later.add_task(work, number, job)
    return {"job": number, "status": "accepted"}


async def work(number: str, job: Job) -> None:
    """Report every pass, as Replicate does; only the final result completes the request that waits."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for name in PASSES:
            await client.post(str(job.webhook), json=_event(number, job, "processing", name))
            await asyncio.sleep(PACE)
        await client.post(str(job.webhook), json=_event(number, job, "succeeded", None))


def _event(number: str, job: Job, status: str, doing: str | None) -> dict[str, object]:
    return {
        "id": number,
        "created_at": "2025-06-01T10:00:00Z",
        "input": {"photograph": job.photograph},
        "status": status,
        "logs": doing,
        "output": {"photograph": job.photograph, "removed": PASSES[:2]} if status == "succeeded" else None,
    }
