"""A Flask service with a queue: a2wsgi makes it an ASGI application, which QueueMiddleware wraps.

    uvicorn examples.flask_via_a2wsgi.service:app

The README beside this file describes the limits of threads.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from pathlib import Path

from a2wsgi import WSGIMiddleware
from flask import Flask, Response, abort, jsonify, request, send_from_directory

from examples import darkroom
from queue_middleware import QueueMiddleware, current_job

PICTURES = Path(os.environ.get("DARKROOM_PICTURES", Path(tempfile.gettempdir()) / "darkroom-pictures"))

logging.getLogger("examples").setLevel(logging.INFO)  # the status of a request contains what was logged while it ran

site = Flask(__name__)
counts = Counter[str](started=0, finished=0)


@site.post("/enlarge")
def enlarge() -> Response:
    """A normal Flask view."""
    order = request.get_json()
    scale, rounds = order.get("scale", 2), order.get("rounds", 30)
    if scale not in (2, 3, 4) or rounds not in range(1, 201):
        abort(422, "scale must be 2, 3 or 4, and rounds 1 to 200")
    counts["started"] += 1
    # a2wsgi runs the view in a thread with the caller's context, so `current_job` works here; it does nothing in a direct call.
    result = darkroom.enlarge(darkroom.load("astronaut"), scale, rounds, current_job.report_progress)
    name = darkroom.save(result.picture, PICTURES)
    counts["finished"] += 1
    return jsonify(picture=f"/pictures/{name}", width=result.picture.width, height=result.picture.height)


@site.get("/counts")
def count() -> Response:
    """The numbers of enlargements that were started and finished."""
    return jsonify(counts)


@site.get("/pictures/<name>")
def picture(name: str) -> Response:
    """Serve a finished picture."""
    return send_from_directory(PICTURES, name)


@site.errorhandler(422)
def validation_error(error: Exception) -> tuple[Response, int]:
    """Return JSON instead of Flask's HTML page, so that the webhook can contain it."""
    return jsonify(detail=getattr(error, "description", str(error))), 422


# Two of the six threads at most run replays; the other four stay free for direct calls.
bridge = WSGIMiddleware(site, workers=6)  # type: ignore[arg-type]  # a2wsgi's environ is a TypedDict, Flask's a dict
app = QueueMiddleware(bridge, concurrency=2)
