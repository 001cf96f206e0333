"""Somebody's server that is told by webhook when a request is done. It trusts nothing that it has not verified.

JWKS_URL=http://127.0.0.1:8000/fal/queue/.well-known/jwks.json uvicorn examples.fastapi_app.receiver:app --port 8001
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from queue_middleware.errors import VerificationError
from queue_middleware.verify import WebhookVerifier

# The keys are fetched from an address that we know, never from one that the webhook names.
verifier = WebhookVerifier(os.environ["JWKS_URL"])

app = FastAPI(title="Receiver")
accepted: dict[str, dict[str, Any]] = {}  # by request id: a webhook may come twice ("at least once") and must count once
refused: list[str] = []


@app.post("/webhook")
async def webhook(request: Request) -> dict[str, str]:
    """Verify the raw bytes first, read them afterwards."""
    try:
        verified = await verifier.verify(request.headers, await request.body())
    except VerificationError as error:
        refused.append(str(error))
        raise HTTPException(error.status, str(error)) from error  # 401, or 503 when the keys could not be fetched
    accepted[verified.request_id] = verified.json()
    return {"received": verified.request_id}


@app.get("/webhooks")
async def webhooks() -> dict[str, object]:
    """What arrived so far."""
    return {"accepted": list(accepted.values()), "refused": refused}
