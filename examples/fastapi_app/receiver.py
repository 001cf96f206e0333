"""A FastAPI server that receives a webhook when a request is done, and accepts only verified webhooks.

JWKS_URL=http://127.0.0.1:8000/fal/queue/.well-known/jwks.json uvicorn examples.fastapi_app.receiver:app --port 8001
"""

from __future__ import annotations

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException

from queue_middleware.receivers.fastapi import verified_webhook
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier

# The keys are fetched from a configured URL, never from one that the webhook names.
verifier = WebhookVerifier(os.environ["JWKS_URL"])
Webhook = Annotated[VerifiedWebhook, Depends(verified_webhook(verifier))]

app = FastAPI(title="Receiver")
accepted: dict[str, dict[str, Any]] = {}  # by webhook id: a webhook may arrive twice ("at least once") and must count once
refused: list[str] = []


@app.post("/webhook")
async def webhook(verified: Webhook) -> dict[str, str]:
    """Called only for verified webhooks: the trusted service has signed these bytes a short time ago."""
    accepted[verified.webhook_id] = verified.json()
    return {"received": verified.request_id}


@app.exception_handler(HTTPException)
async def record_refusal(request: Request, error: HTTPException) -> Response:
    """Record a refusal: 401 for an unverified webhook, or 503 when the keys could not be fetched."""
    if request.url.path == "/webhook":
        refused.append(str(error.detail))
    return await http_exception_handler(request, error)


@app.get("/webhooks")
async def webhooks() -> dict[str, object]:
    """The webhooks received so far, and the reasons of refusals."""
    return {"accepted": list(accepted.values()), "refused": refused}
