"""Somebody's server that is told by webhook when a request is done. It trusts nothing that it has not verified.

JWKS_URL=http://127.0.0.1:8000/fal/queue/.well-known/jwks.json uvicorn examples.fastapi_app.receiver:app --port 8001
"""

from __future__ import annotations

import json
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
    body = await request.body()
    try:
        await verifier.verify(request.headers, body)
    except VerificationError as error:
        refused.append(str(error))
        raise HTTPException(401, str(error)) from error
    message = json.loads(body)
    accepted[message["request_id"]] = message
    return {"received": message["request_id"]}


@app.get("/webhooks")
async def webhooks() -> dict[str, object]:
    """What arrived so far."""
    return {"accepted": list(accepted.values()), "refused": refused}
