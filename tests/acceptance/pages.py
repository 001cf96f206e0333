"""A service with pages, for the tests with a real browser. It records each request with the browser's headers about it."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from tests.acceptance.service import lifespan, record

HOME = """<!doctype html><title>home</title><body><script>
const received = [], done = (words) => { document.body.textContent = words };
fetch("/fal/queue/submit/hello", {method: "POST", body: "{}"}).then((answer) => answer.json()).then((submitted) => {
  const events = new EventSource(new URL(submitted.status_url).pathname + "/stream?logs=1");
  events.onmessage = (event) => {
    const status = JSON.parse(event.data);
    received.push(...status.logs.map((line) => line.message));
    if (status.status === "COMPLETED") received.push("id " + event.lastEventId);
  };
  events.onerror = () => { if (events.readyState === 2) done("received: " + received.join(", ")) };
});
</script>"""
"""A page of the service itself: it submits, and reads the status stream to its end."""

RESULT = """<!doctype html><title>result</title><body>a result<script>document.body.dataset.ran = "the script ran"</script>"""


async def home(request: Request) -> Response:
    return HTMLResponse(HOME)


async def hello(request: Request) -> Response:
    current_job.log("hello")
    return JSONResponse({})


async def result(request: Request) -> Response:
    response = HTMLResponse(RESULT)
    response.set_cookie("session", "theirs")
    return response


async def health(request: Request) -> Response:
    return Response("well")


class RequestLog:
    """Around the service: one line for each response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = {name: value.decode() for name, value in scope["headers"]}
                parts = (scope["method"], scope["path"], headers.get(b"sec-fetch-site"), headers.get(b"sec-fetch-dest"))
                cookie = "cookie" if b"cookie" in headers else "-"
                record("requests", " ".join(map(str, (*parts, cookie, message["status"]))))
            await send(message)

        await self._app(scope, receive, noting if scope["type"] == "http" else send)


METHODS = ["GET", "POST"]
routes = [
    Route("/", home),
    Route("/hello", hello, methods=METHODS),
    Route("/result", result, methods=METHODS),
    Route("/health", health),
]
app = RequestLog(QueueMiddleware(Starlette(routes=routes, lifespan=lifespan)))
