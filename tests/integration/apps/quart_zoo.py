"""Quart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from quart import Quart, Response, abort, jsonify, make_response, redirect, request, send_file, url_for
from werkzeug.wrappers import Response as AnyResponse

from . import ALPHABET, CHUNKS, ETAG, LARGE, REPEATED, TEXT, described, digest, hang_here, log_here, pairs

app = Quart(__name__)
app.config["MAX_CONTENT_LENGTH"] = None
app.config["SEND_FILE_MAX_AGE_DEFAULT"] = None  # it would send `expires`, which changes every second


@app.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
@app.route("/echo/<path:rest>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def echo(rest: str = "") -> Any:
    args = pairs(request.args.items(multi=True))
    return described(request.scope, await request.get_data(), url=request.url, args=args, rest=rest)


@app.post("/form")
async def form() -> Response:
    return jsonify(pairs((await request.form).items(multi=True)))


@app.post("/upload")
async def upload() -> Response:
    files = [
        [name, file.filename, file.content_type, digest(file.read())]
        for name, file in (await request.files).items(multi=True)
    ]  # fmt: skip
    return jsonify(fields=pairs((await request.form).items(multi=True)), files=files)


@app.route("/mirror", methods=["POST", "PUT"])
async def mirror() -> Response:
    return Response(await request.get_data(), content_type=request.headers.get("content-type"))


@app.get("/cookies")
async def cookies() -> Any:
    response = await make_response(dict(request.cookies))
    response.set_cookie("session", "a b", httponly=True)
    response.set_cookie("theme", "dark", samesite="strict")
    response.delete_cookie("old")
    return response


@app.get("/redirect")
async def redirected() -> AnyResponse:
    return redirect("/echo?from=redirect", 307)


@app.post("/redirect")
async def redirect_after_post() -> AnyResponse:
    return redirect(url_for("text", _external=True), 303)


@app.get("/file")
async def file() -> Response:
    return await send_file(ALPHABET, conditional=True)


@app.get("/conditional")
async def conditional() -> Any:
    response = await make_response("fresh")
    response.headers["etag"] = ETAG
    return await response.make_conditional(request)


@app.get("/stream")
async def stream() -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            yield chunk

    return Response(chunks(), content_type="application/octet-stream")


@app.get("/events")
async def events() -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            yield f"data: {number}\n\n"

    return Response(lines(), content_type="text/event-stream")


@app.route("/status/<int:code>", methods=["GET", "DELETE"])
async def status(code: int) -> Response:
    return Response(b"", status=code)


@app.get("/refused")
async def refused() -> Response:
    abort(418)


@app.get("/boom")
def boom() -> Response:
    raise RuntimeError("secret detail")


@app.post("/json")
async def json() -> Any:
    return {"square": int((await request.get_json())["number"]) ** 2}


@app.get("/text")
async def text() -> Response:
    return Response(TEXT, content_type="text/plain; charset=utf-8")


@app.get("/headers")
async def headers() -> Any:
    response = await make_response(b"ok")
    for name, value in REPEATED:
        response.headers.add(name, value)
    return response


@app.get("/empty")
async def empty() -> str:
    return ""


@app.get("/large")
async def large() -> Response:
    return Response(LARGE, content_type="application/octet-stream")


@app.get("/log")
async def log() -> str:
    log_here()
    return ""


@app.get("/log/thread")
def log_in_thread() -> str:
    log_here()
    return ""


@app.get("/hang")
async def hang() -> str:
    await hang_here()
    return ""


def make() -> Quart:
    return app
