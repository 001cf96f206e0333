"""Flask through a2wsgi: WSGI, in threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from a2wsgi import WSGIMiddleware
from flask import Flask, Response, abort, jsonify, make_response, redirect, request, send_file, url_for
from werkzeug.wrappers import Response as AnyResponse

from . import ALPHABET, CHUNKS, ETAG, LARGE, REPEATED, TEXT, described, digest, log_here, pairs

flask = Flask(__name__)


@flask.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
@flask.route("/echo/<path:rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def echo(rest: str = "") -> Any:
    body = request.get_data()
    args = pairs(request.args.items(multi=True))
    return described(request.environ["asgi.scope"], body, url=request.url, args=args, rest=rest)


@flask.post("/form")
def form() -> AnyResponse:
    return jsonify(pairs(request.form.items(multi=True)))


@flask.post("/upload")
def upload() -> AnyResponse:
    files = [
        [name, file.filename, file.content_type, digest(file.read())]
        for name, file in request.files.items(multi=True)
    ]  # fmt: skip
    return jsonify(fields=pairs(request.form.items(multi=True)), files=files)


@flask.route("/mirror", methods=["POST", "PUT"])
def mirror() -> AnyResponse:
    return Response(request.get_data(), content_type=request.headers.get("content-type"))


@flask.get("/cookies")
def cookies() -> AnyResponse:
    response = make_response(dict(request.cookies))
    response.set_cookie("session", "a b", httponly=True)
    response.set_cookie("theme", "dark", samesite="strict")
    response.delete_cookie("old")
    return response


@flask.get("/redirect")
def redirected() -> AnyResponse:
    return redirect("/echo?from=redirect", 307)


@flask.post("/redirect")
def redirect_after_post() -> AnyResponse:
    return redirect(url_for("text", _external=True), 303)


@flask.get("/file")
def file() -> AnyResponse:
    return send_file(ALPHABET)


@flask.get("/conditional")
def conditional() -> AnyResponse:
    response = make_response("fresh")
    response.headers["etag"] = ETAG
    return response.make_conditional(request)


@flask.get("/stream")
def stream() -> AnyResponse:
    return Response(iter(CHUNKS), content_type="application/octet-stream")


@flask.get("/events")
def events() -> AnyResponse:
    def lines() -> Iterator[str]:
        for number in range(5):
            yield f"data: {number}\n\n"

    return Response(lines(), content_type="text/event-stream")


@flask.route("/status/<int:code>", methods=["GET", "DELETE"])
def status(code: int) -> AnyResponse:
    return Response(status=code)


@flask.get("/refused")
def refused() -> AnyResponse:
    abort(418)


@flask.get("/boom")
def boom() -> AnyResponse:
    raise RuntimeError("secret detail")


@flask.post("/json")
def json() -> Any:
    return {"square": int(request.get_json()["number"]) ** 2}


@flask.get("/text")
def text() -> AnyResponse:
    return Response(TEXT, content_type="text/plain; charset=utf-8")


@flask.get("/headers")
def headers() -> AnyResponse:
    response = make_response(b"ok")
    for name, value in REPEATED:
        response.headers.add(name, value)
    return response


@flask.get("/empty")
def empty() -> str:
    return ""


@flask.get("/large")
def large() -> AnyResponse:
    return Response(LARGE, content_type="application/octet-stream")


@flask.get("/log")
def log() -> str:
    log_here()
    return ""


def make() -> Any:
    return WSGIMiddleware(flask)
