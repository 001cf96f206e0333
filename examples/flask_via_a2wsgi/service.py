"""A darkroom in Flask. a2wsgi makes it an ASGI application, and QueueMiddleware gives that one a queue.

    uvicorn examples.flask_via_a2wsgi.service:app

The README beside this file says what cannot be had with threads.
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

logging.getLogger("examples").setLevel(logging.INFO)  # what is logged while a request runs is shown in its status

site = Flask(__name__)
counts = Counter[str](begun=0, finished=0)


@site.post("/enlarge")
def enlarge() -> Response:
    """An ordinary Flask view."""
    order = request.get_json()
    scale, rounds = order.get("scale", 2), order.get("rounds", 30)
    if scale not in (2, 3, 4) or rounds not in range(1, 201):
        abort(422, "scale is 2, 3 or 4, and rounds 1 to 200")
    counts["begun"] += 1
    # a2wsgi runs the view in a thread with the caller's context, so the job is known here; in a direct call, it does nothing.
    result = darkroom.enlarge(darkroom.load("astronaut"), scale, rounds, current_job.report_progress)
    name = darkroom.save(result.picture, PICTURES)
    counts["finished"] += 1
    return jsonify(picture=f"/pictures/{name}", width=result.picture.width, height=result.picture.height)


@site.get("/counts")
def count() -> Response:
    """How many enlargements were begun and finished."""
    return jsonify(counts)


@site.get("/pictures/<name>")
def picture(name: str) -> Response:
    """A finished picture."""
    return send_from_directory(PICTURES, name)


@site.errorhandler(422)
def refused(error: Exception) -> tuple[Response, int]:
    """JSON instead of Flask's page, so that the webhook can carry it."""
    return jsonify(detail=getattr(error, "description", str(error))), 422


# Fewer replays at once than threads: the other four stay free for callers who wait for their answer.
bridge = WSGIMiddleware(site, workers=6)  # type: ignore[arg-type]  # a2wsgi's environ is a TypedDict, Flask's a dict
app = QueueMiddleware(bridge, concurrency=2)
