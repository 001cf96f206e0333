"""A receiver without a line of async: a decorator verifies what the view is told."""

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
    """Called for what was verified: the service that we know has signed these bytes, just now."""
    accepted[verified.webhook_id] = verified.json()
    return jsonify(received=verified.request_id)


@site.errorhandler(HTTPException)
def note(error: HTTPException) -> HTTPException:
    """Strangers get their 401 (or 503 when the keys could not be fetched), and the owner hears of it."""
    if request.path == "/webhook":
        refused.append(str(error.description))
    return error


@site.get("/webhooks")
def webhooks() -> Response:
    """What arrived so far."""
    return jsonify(accepted=list(accepted.values()), refused=refused)


# Any WSGI server would do; the demonstration has uvicorn at hand.
app = WSGIMiddleware(site)  # type: ignore[arg-type]  # a2wsgi's environ is a TypedDict, Flask's a dict
