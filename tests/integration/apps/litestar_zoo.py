"""Litestar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from litestar import Litestar, MediaType, Request, Response, delete, get, post, route
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException, ValidationException
from litestar.response import File, Redirect, Stream

from . import ALPHABET, CHUNKS, ETAG, LARGE, REPEATED, TEXT, described, digest, hang_here, log_here, pairs


async def _described(request: Request[Any, Any, Any]) -> dict[str, Any]:
    args = pairs(request.query_params.multi_items())
    return described(request.scope, await request.body(), url=str(request.url), args=args)


@route("/echo", http_method=["GET", "POST", "PUT", "PATCH", "DELETE"], status_code=200)
async def echo(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return await _described(request)


@route("/echo/{rest:path}", http_method=["GET", "POST", "PUT", "PATCH", "DELETE"], status_code=200)
async def echo_path(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {**await _described(request), "rest": str(request.path_params["rest"])}


@post("/form", status_code=200)
async def form(request: Request[Any, Any, Any]) -> list[list[str]]:
    return pairs((await request.form()).multi_items())


@post("/upload", status_code=200)
async def upload(request: Request[Any, Any, Any]) -> list[Any]:
    return [
        [name, value] if isinstance(value, str) else [name, value.filename, value.content_type, digest(await value.read())]
        for name, value in (await request.form()).multi_items()
    ]


@route("/mirror", http_method=["POST", "PUT"], status_code=200)
async def mirror(request: Request[Any, Any, Any]) -> Response[bytes]:
    return Response(await request.body(), media_type=request.headers.get("content-type", "application/octet-stream"))


@get("/cookies")
async def cookies(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    response = Response(dict(request.cookies), cookies=[Cookie("session", "a b", httponly=True)])
    response.set_cookie("theme", "dark", max_age=60, samesite="strict")
    response.delete_cookie("old")
    return response


@get("/redirect", status_code=307)
async def redirect() -> Redirect:
    return Redirect("/echo?from=redirect", status_code=307)


@post("/redirect", status_code=303)
async def redirect_after_post() -> Redirect:
    return Redirect("/text", status_code=303)


@get("/file", media_type=MediaType.TEXT)
async def file() -> File:
    return File(ALPHABET, filename="alphabet.txt")


@get("/conditional")
async def conditional(request: Request[Any, Any, Any]) -> Response[Any]:
    if request.headers.get("if-none-match") == ETAG:
        return Response(None, status_code=304, headers={"etag": ETAG})
    return Response("fresh", media_type=MediaType.TEXT, headers={"etag": ETAG})


@get("/stream")
async def stream() -> Stream:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in CHUNKS:
            await anyio.lowlevel.checkpoint()
            yield chunk

    return Stream(chunks(), media_type="application/octet-stream")


@get("/events")
async def events() -> Stream:
    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            await anyio.lowlevel.checkpoint()
            yield f"data: {number}\n\n"

    return Stream(lines(), media_type="text/event-stream")


@get("/status/{code:int}")
async def status(request: Request[Any, Any, Any]) -> Response[None]:
    return Response(None, status_code=request.path_params["code"])


@delete("/status/{code:int}")
async def status_after_delete(request: Request[Any, Any, Any]) -> Response[None]:
    return Response(None, status_code=request.path_params["code"])


@get("/refused")
async def refused() -> None:
    raise HTTPException("short and stout", status_code=418, headers={"x-teapot": "yes"})


@get("/boom", sync_to_thread=True)
def boom() -> None:
    raise RuntimeError("secret detail")


@post("/json", status_code=200)
async def json(request: Request[Any, Any, Any]) -> dict[str, int]:
    try:
        return {"square": int((await request.json())["number"]) ** 2}
    except ValueError:
        raise ValidationException("number: not a number") from None


@get("/text", media_type=MediaType.TEXT)
async def text() -> str:
    return TEXT


@get("/headers")
async def headers() -> Response[bytes]:
    return Response(b"ok", media_type="application/octet-stream", headers=dict(REPEATED))


@get("/empty", status_code=200)
async def empty() -> None:
    return None


@get("/large", media_type="application/octet-stream")
async def large() -> bytes:
    return LARGE


@get("/log")
async def log() -> None:
    log_here()


@get("/hang")
async def hang() -> None:
    await hang_here()


def make() -> Litestar:
    handlers = [
        echo, echo_path, form, upload, mirror, cookies, redirect, redirect_after_post, file, conditional, stream, events,
        status, status_after_delete, refused, boom, json, text, headers, empty, large, log, hang,
    ]  # fmt: skip
    return Litestar(handlers, openapi_config=None, request_max_body_size=None, logging_config=None)
