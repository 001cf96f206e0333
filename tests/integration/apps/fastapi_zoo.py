"""FastAPI: half of the endpoints are sync functions, which run in its thread pool."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import anyio
from fastapi import Cookie, FastAPI, File, Form, Header, HTTPException, Request, Response, UploadFile
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel

from . import ALPHABET, CHUNKS, ETAG, LARGE, REPEATED, TEXT, described, digest, hang_here, log_here, pairs

Uploaded = Annotated[UploadFile, File()]


class Number(BaseModel):
    number: int


app = FastAPI()


@app.api_route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
@app.api_route("/echo/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def echo(request: Request, rest: str = "") -> dict[str, Any]:
    args = pairs(request.query_params.multi_items())
    return described(request.scope, await request.body(), url=str(request.url), args=args, rest=rest)


@app.post("/form")
async def form(request: Request) -> list[list[str]]:
    async with request.form() as fields:
        return pairs(fields.multi_items())


@app.post("/upload")
def upload(first: Uploaded, second: Uploaded, note: Annotated[str, Form()]) -> Any:
    files = [[file.filename, file.content_type, digest(file.file.read())] for file in (first, second)]
    return {"note": note, "files": files}


@app.api_route("/mirror", methods=["POST", "PUT"])
async def mirror(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


@app.get("/cookies")
def cookies(response: Response, one: Annotated[str, Cookie()] = "", two: Annotated[str, Cookie()] = "") -> dict[str, str]:
    response.set_cookie("session", "a b", httponly=True)
    response.set_cookie("theme", "dark", max_age=60, samesite="strict")
    response.delete_cookie("old")
    return {"one": one, "two": two}


@app.get("/redirect")
def redirect() -> Response:
    return RedirectResponse("/echo?from=redirect", 307)


@app.post("/redirect")
def redirect_after_post(request: Request) -> Response:
    return RedirectResponse(request.url_for("text"), 303)


@app.get("/file")
async def file() -> Response:
    return FileResponse(ALPHABET)


@app.get("/conditional")
async def conditional(if_none_match: Annotated[str, Header()] = "") -> Response:
    if if_none_match == ETAG:
        return Response(status_code=304, headers={"etag": ETAG})
    return PlainTextResponse("fresh", headers={"etag": ETAG})


@app.get("/stream")
async def stream() -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            await anyio.lowlevel.checkpoint()
            yield chunk

    return StreamingResponse(chunks(), media_type="application/octet-stream")


@app.get("/events")
def events() -> Response:
    def lines() -> Iterator[str]:
        for number in range(5):
            time.sleep(0.001)
            yield f"data: {number}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.api_route("/status/{code}", methods=["GET", "DELETE"])
async def status(code: int) -> Response:
    return Response(status_code=code)


@app.get("/refused")
async def refused() -> None:
    raise HTTPException(418, {"why": "short and stout"}, {"x-teapot": "yes"})


@app.get("/boom")
def boom() -> None:
    raise RuntimeError("secret detail")


@app.post("/json")
async def json(body: Number) -> dict[str, int]:
    return {"square": body.number**2}


@app.get("/text")
async def text() -> Response:
    return PlainTextResponse(TEXT)


@app.get("/headers")
async def headers() -> Response:
    response = Response(b"ok", headers={"x-mixed": "1"})
    response.raw_headers.extend((name.encode(), value.encode("latin-1")) for name, value in REPEATED)
    return response


@app.get("/empty")
async def empty() -> Response:
    return Response()


@app.get("/large")
async def large() -> Response:
    return Response(LARGE, media_type="application/octet-stream")


@app.get("/log")
async def log() -> None:
    log_here()


@app.get("/log/thread")
def log_in_thread() -> None:
    log_here()


@app.get("/hang")
async def hang() -> None:
    await hang_here()


def make() -> FastAPI:
    return app
