"""A client of the status stream, in process, message by message: `httpx` would wait for the end of the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from tests.support.queue_client import DEADLINE
from tests.support.raw_asgi import App, Message, http_scope


def data_of(write: bytes) -> bytes:
    """The data of one event."""
    return write.removeprefix(b"data: ").partition(b"\n")[0]


class Listener:
    """What was heard so far."""

    def __init__(self) -> None:
        self.start: Message | None = None
        self.writes: list[bytes] = []
        self.ended = False
        self._hung_up = anyio.Event()
        self._news = anyio.Event()
        self._read = 0

    @property
    def headers(self) -> dict[str, str]:
        assert self.start is not None
        return {name.decode(): value.decode() for name, value in self.start["headers"]}

    @property
    def events(self) -> list[dict[str, Any]]:
        """The statuses that were told."""
        return [json.loads(data_of(write)) for write in self.writes if write.startswith(b"data: ")]

    @property
    def ids(self) -> list[bytes]:
        """The ids of the events that have one."""
        return [write.partition(b"\nid: ")[2].strip() for write in self.writes if b"\nid: " in write]

    async def next(self) -> bytes:
        """The next write; `b""` for the end of the answer."""
        with anyio.fail_after(DEADLINE):
            while self._read == len(self.writes):
                if self.ended:
                    return b""
                self._news = anyio.Event()
                await self._news.wait()
        self._read += 1
        return self.writes[self._read - 1]

    async def event(self) -> dict[str, Any]:
        """The next status."""
        write = await self.next()
        assert write.startswith(b"data: {"), write
        assert write.endswith(b"}\n\n")
        assert write.count(b"\n") == 2
        return json.loads(write.removeprefix(b"data: "))

    async def until(self, status: str) -> dict[str, Any]:
        """The first status of this kind that comes."""
        while (event := await self.event())["status"] != status:
            pass
        return event

    def hang_up(self) -> None:
        """Close the connection."""
        self._hung_up.set()

    # --- the server's half

    async def run(self, app: App, scope: Message) -> None:
        """Make the call; returns when it does."""
        try:
            await app(scope, self._receive, self._send)
        finally:
            self.ended = True
            self._news.set()

    async def _receive(self) -> Message:
        await self._hung_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message.get("body"):
            self.writes.append(message["body"])
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.ended = True
        self._news.set()


@asynccontextmanager
async def listening(
    app: App, request_id: str, query: bytes = b"", path: str = "/fal/queue/requests", headers: object = ()
) -> AsyncIterator[Listener]:
    """Listen to a request until the end of the block, and see the call return after it."""
    listener = Listener()
    scope = http_scope("GET", f"{path}/{request_id}/status/stream".encode(), query=query, headers=headers)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.run, app, scope)
        try:
            yield listener
        finally:
            listener.hang_up()
            with anyio.fail_after(DEADLINE, shield=True):
                while not listener.ended:
                    listener._news = anyio.Event()
                    await listener._news.wait()
