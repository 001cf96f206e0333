"""A Flask receiver without async code: a decorator verifies webhooks before the view is called."""

from __future__ import annotations

import os
from typing import Any

from a2wsgi import WSGIMiddleware
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from queue_middleware.receivers.flask import verified_webhook
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier

verifier = WebhookVerifier(os.environ["JWKS_URL"])

site = Flask(__name__)
accepted: dict[str, dict[str, Any]] = {}
refused: list[str] = []


@site.post("/webhook")
@verified_webhook(verifier)
def webhook(verified: VerifiedWebhook) -> Response:
    """Called only for verified webhooks: the trusted service has signed these bytes a short time ago."""
    accepted[verified.webhook_id] = verified.json()
    return jsonify(received=verified.request_id)


@site.errorhandler(HTTPException)
def record_refusal(error: HTTPException) -> HTTPException:
    """Record a refusal: 401 for an unverified webhook, or 503 when the keys could not be fetched."""
    if request.path == "/webhook":
        refused.append(str(error.description))
    return error


@site.get("/webhooks")
def webhooks() -> Response:
    """The webhooks received so far, and the reasons of refusals."""
    return jsonify(accepted=list(accepted.values()), refused=refused)


# Any WSGI server works; the demo uses uvicorn, which needs an ASGI application.
app = WSGIMiddleware(site)  # type: ignore[arg-type]  # a2wsgi's environ is a TypedDict, Flask's a dict
