"""Starlette, behind GZipMiddleware and a BaseHTTPMiddleware."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from . import ALPHABET, CHUNKS, ETAG, LARGE, REPEATED, TEXT, described, digest, hang_here, log_here, pairs


class Stamp(BaseHTTPMiddleware):
    """A typical third-party middleware."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-stamp"] = request.method
        return response


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(described(request.scope, body, url=str(request.url), args=pairs(request.query_params.multi_items())))


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return JSONResponse(pairs(fields.multi_items()))


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        seen = []
        for name, value in fields.multi_items():
            if isinstance(value, str):
                seen.append([name, value])
            else:
                seen.append([name, value.filename, value.content_type, digest(await value.read())])
        return JSONResponse(seen)


async def mirror(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers.get("content-type"))


async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("session", "a b", httponly=True)
    response.set_cookie("theme", "dark", max_age=60, samesite="strict")
    response.delete_cookie("old")
    return response


async def redirect(request: Request) -> Response:
    if request.method == "POST":
        return RedirectResponse(request.url_for("echo"), 303)
    return RedirectResponse("/echo?from=redirect", 307)


async def file(request: Request) -> Response:
    return FileResponse(ALPHABET)


async def conditional(request: Request) -> Response:
    if request.headers.get("if-none-match") == ETAG:
        return Response(status_code=304, headers={"etag": ETAG})
    return PlainTextResponse("fresh", headers={"etag": ETAG})


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            await anyio.lowlevel.checkpoint()
            yield chunk

    return StreamingResponse(chunks(), media_type="application/octet-stream")


async def events(request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            await anyio.lowlevel.checkpoint()
            yield f"data: {number}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def status(request: Request) -> Response:
    return Response(status_code=request.path_params["code"])


async def refused(request: Request) -> Response:
    raise HTTPException(418, "short and stout", {"x-teapot": "yes"})


async def boom(request: Request) -> Response:
    raise RuntimeError("secret detail")


async def json(request: Request) -> Response:
    try:
        number = int((await request.json())["number"])
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"detail": [{"loc": ["body", "number"], "msg": "not a number", "type": "int"}]}, 422)
    return JSONResponse({"square": number * number})


async def text(request: Request) -> Response:
    return PlainTextResponse(TEXT)


async def headers(request: Request) -> Response:
    response = Response(b"ok", headers={"x-mixed": "1"})
    response.raw_headers.extend((name.encode(), value.encode("latin-1")) for name, value in REPEATED)
    return response


async def empty(request: Request) -> Response:
    return Response()


async def large(request: Request) -> Response:
    return Response(LARGE, media_type="application/octet-stream")


async def log(request: Request) -> Response:
    log_here()
    return Response()


async def hang(request: Request) -> Response:
    await hang_here()
    return Response()


ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]

routes = [
    Route("/echo", echo, methods=ANY),
    Route("/echo/{rest:path}", echo, methods=ANY),
    Route("/form", form, methods=["POST"]),
    Route("/upload", upload, methods=["POST"]),
    Route("/mirror", mirror, methods=["POST", "PUT"]),
    Route("/cookies", cookies),
    Route("/redirect", redirect, methods=["GET", "POST"]),
    Route("/file", file),
    Route("/conditional", conditional),
    Route("/stream", stream),
    Route("/events", events),
    Route("/status/{code:int}", status, methods=ANY),
    Route("/refused", refused),
    Route("/boom", boom),
    Route("/json", json, methods=["POST"]),
    Route("/text", text),
    Route("/headers", headers),
    Route("/empty", empty),
    Route("/large", large),
    Route("/log", log),
    Route("/hang", hang),
]


def make() -> Starlette:
    return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware, minimum_size=1), Middleware(Stamp)])
