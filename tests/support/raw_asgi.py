"""Raw ASGI: what `httpx` would tidy up on the way (paths with `..`, endless bodies, messages one by one)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass
class Answer:
    """A response as it was sent."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return next(message["status"] for message in self.messages if message["type"] == "http.response.start")

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(next(message["headers"] for message in self.messages if message["type"] == "http.response.start"))

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages if message["type"] == "http.response.body")


def http_only(handle: App) -> App:
    """An application that knows nothing of lifespans."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handle(scope, receive, send)

    return app


async def answer(send: Send, body: bytes = b"ok", status: int = 200, headers: object = ()) -> None:
    """A whole response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def http_scope(method: str, raw_path: bytes, *, path: str | None = None, query: bytes = b"", headers: object = ()) -> Message:
    """A scope as uvicorn makes it. `path` is decoded from `raw_path` unless given."""
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


async def call(app: App, scope: Message, receive: Receive | None = None) -> Answer:
    """Send one request, whose body is empty unless `receive` says otherwise, and keep what was answered."""
    answer, ended = Answer(), anyio.Event()
    opening: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive_nothing() -> Message:
        if opening:
            return opening.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answer.messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            ended.set()

    await app(scope, receive or receive_nothing, send)
    return answer


class Lifespan:
    """The server's half of the lifespan protocol, message by message, so that a refusal can be looked at."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.said: list[Message] = []
        self.error: BaseException | None = None
        self._orders, self._inbox = anyio.create_memory_object_stream[Message](2)
        self._news = anyio.Event()

    async def run(self) -> None:
        """To be started in a task group; ends when the application's lifespan call returns."""
        with self._orders, self._inbox:
            scope: Message = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
            try:
                await self.app(scope, self._inbox.receive, self._send)
            except Exception as error:  # a server looks at it only as long as nothing was said
                self.error = error
            self._news.set()

    async def startup(self) -> Message | None:
        """What the application said to `lifespan.startup`; None when its call ended without a word."""
        return await self._order("lifespan.startup")

    async def shutdown(self) -> Message | None:
        """What the application said to `lifespan.shutdown`."""
        return await self._order("lifespan.shutdown")

    async def _order(self, kind: str) -> Message | None:
        heard, self._news = len(self.said), anyio.Event()
        await self._orders.send({"type": kind})
        with anyio.fail_after(10):
            await self._news.wait()
        return self.said[-1] if len(self.said) > heard else None

    async def _send(self, message: Message) -> None:
        self.said.append(message)
        self._news.set()
