"""An external service: it accepts a job, responds at once, and calls back when the work is done.

    uvicorn examples.fastapi_app.retoucher:app --port 8002

Real services (fal, Replicate, …) work in the same way.
"""

from __future__ import annotations

import asyncio
import secrets

import httpx
from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel, HttpUrl

PASSES = ("dust", "scratches", "contrast")
PASS_SECONDS = 0.5
"""Time for one pass."""

app = FastAPI(title="Retoucher")


class Job(BaseModel):
    """The body of a POST to /jobs."""

    photograph: str
    webhook: HttpUrl


@app.post("/jobs", status_code=202)
async def accept(job: Job, background: BackgroundTasks) -> dict[str, str]:
    """Accept the job; the work begins after the response."""
    number = secrets.token_hex(4)
    background.add_task(work, number, job)
    return {"job": number, "status": "accepted"}


async def work(number: str, job: Job) -> None:
    """Report every pass, as Replicate does; only the final result completes the awaiting request."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for name in PASSES:
            await client.post(str(job.webhook), json=_event(number, job, "processing", name))
            await asyncio.sleep(PASS_SECONDS)
        await client.post(str(job.webhook), json=_event(number, job, "succeeded", None))


def _event(number: str, job: Job, status: str, current_pass: str | None) -> dict[str, object]:
    return {
        "id": number,
        "created_at": "2025-06-01T10:00:00Z",
        "input": {"photograph": job.photograph},
        "status": status,
        "logs": current_pass,
        "output": {"photograph": job.photograph, "removed": PASSES[:2]} if status == "succeeded" else None,
    }
