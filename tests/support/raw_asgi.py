"""Raw ASGI calls, for what `httpx` normalizes or hides: paths with `..`, endless bodies, single messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass
class RawResponse:
    """A response as it was sent."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return next(int(message["status"]) for message in self.messages if message["type"] == "http.response.start")

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(next(message["headers"] for message in self.messages if message["type"] == "http.response.start"))

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages if message["type"] == "http.response.body")


def http_only(handle: App) -> App:
    """An application that supports HTTP scopes only."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handle(scope, receive, send)

    return app


async def respond(send: Send, body: bytes = b"ok", status: int = 200, headers: Headers = ()) -> None:
    """Send a complete response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def http_scope(method: str, raw_path: bytes, *, path: str | None = None, query: bytes = b"", headers: Headers = ()) -> Message:
    """A scope as uvicorn builds it. `path` is decoded from `raw_path` unless given."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path.decode("latin-1")) if path is None else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"service.test"), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }


async def call(app: App, scope: Message, receive: Receive | None = None) -> RawResponse:
    """Send one request and return the response. The body is empty unless `receive` provides one."""
    response, ended = RawResponse(), anyio.Event()
    body: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive_empty_body() -> Message:
        if body:
            return body.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        response.messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            ended.set()

    await app(scope, receive or receive_empty_body, send)
    return response


class Lifespan:
    """The server's side of the lifespan protocol, message by message, so that tests can inspect a failed startup."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self._to_app, self._app_inbox = anyio.create_memory_object_stream[Message](2)
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Call the application. Start this in a task group; it returns when the call does."""
        with self._to_app, self._app_inbox:
            scope: Message = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
            try:
                await self.app(scope, self._app_inbox.receive, self._send)
            except Exception as error:  # a server reports it only if the application has sent nothing
                self.error = error
            self._changed.set()

    async def startup(self) -> Message | None:
        """The application's reply to `lifespan.startup`; None if its call ended without one."""
        return await self._request("lifespan.startup")

    async def shutdown(self) -> Message | None:
        """The application's reply to `lifespan.shutdown`."""
        return await self._request("lifespan.shutdown")

    async def _request(self, kind: str) -> Message | None:
        before, self._changed = len(self.sent), anyio.Event()
        await self._to_app.send({"type": kind})
        with anyio.fail_after(10):
            await self._changed.wait()
        return self.sent[-1] if len(self.sent) > before else None

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self._changed.set()
