"""A receiver without a line of async: the same verification, called `verify_sync`."""

from __future__ import annotations

import os
from typing import Any

from a2wsgi import WSGIMiddleware
from flask import Flask, Response, abort, jsonify, request

from queue_middleware.errors import VerificationError
from queue_middleware.verify import WebhookVerifier

verifier = WebhookVerifier(os.environ["JWKS_URL"])

site = Flask(__name__)
accepted: dict[str, dict[str, Any]] = {}
refused: list[str] = []


@site.post("/webhook")
def webhook() -> Response:
    """Verify the raw bytes first, read them afterwards."""
    try:
        verified = verifier.verify_sync(request.headers, request.get_data())
    except VerificationError as error:
        refused.append(str(error))
        abort(error.status, str(error))  # 401, or 503 when the keys could not be fetched
    accepted[verified.request_id] = verified.json()
    return jsonify(received=verified.request_id)


@site.get("/webhooks")
def webhooks() -> Response:
    """What arrived so far."""
    return jsonify(accepted=list(accepted.values()), refused=refused)


# Any WSGI server would do; the demonstration has uvicorn at hand.
app = WSGIMiddleware(site)  # type: ignore[arg-type]  # a2wsgi's environ is a TypedDict, Flask's a dict
