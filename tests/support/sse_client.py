"""A client of the status stream, in process. It reads message by message; `httpx` would wait for the end of the response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from tests.support.queue_client import DEADLINE
from tests.support.raw_asgi import App, Headers, Message, http_scope


def data_of(write: bytes) -> bytes:
    """The data of one event."""
    return write.removeprefix(b"data: ").partition(b"\n")[0]


class SSEClient:
    """What the stream has sent so far."""

    def __init__(self) -> None:
        self.start: Message | None = None
        self.writes: list[bytes] = []
        self.ended = False
        self._disconnected = anyio.Event()
        self._changed = anyio.Event()
        self._read = 0

    @property
    def headers(self) -> dict[str, str]:
        assert self.start is not None
        return {name.decode(): value.decode() for name, value in self.start["headers"]}

    @property
    def events(self) -> list[dict[str, Any]]:
        """The statuses of all events so far."""
        return [json.loads(data_of(write)) for write in self.writes if write.startswith(b"data: ")]

    @property
    def ids(self) -> list[bytes]:
        """The ids of the events that have one."""
        return [write.partition(b"\nid: ")[2].strip() for write in self.writes if b"\nid: " in write]

    async def next(self) -> bytes:
        """The next write; `b""` at the end of the response."""
        with anyio.fail_after(DEADLINE):
            while self._read == len(self.writes):
                if self.ended:
                    return b""
                self._changed = anyio.Event()
                await self._changed.wait()
        self._read += 1
        return self.writes[self._read - 1]

    async def event(self) -> dict[str, Any]:
        """The next status."""
        write = await self.next()
        assert write.startswith(b"data: {"), write
        assert write.endswith(b"}\n\n")
        assert write.count(b"\n") == 2
        event: dict[str, Any] = json.loads(write.removeprefix(b"data: "))
        return event

    async def until(self, status: str) -> dict[str, Any]:
        """Read events until one has this status."""
        while (event := await self.event())["status"] != status:
            pass
        return event

    def disconnect(self) -> None:
        """Close the connection."""
        self._disconnected.set()

    # --- the server's side of the call

    async def run(self, app: App, scope: Message) -> None:
        """Call the application and wait until the call returns."""
        try:
            await app(scope, self._receive, self._send)
        finally:
            self.ended = True
            self._changed.set()

    async def _receive(self) -> Message:
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message.get("body"):
            self.writes.append(message["body"])
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.ended = True
        self._changed.set()


@asynccontextmanager
async def open_stream(
    app: App, request_id: str, query: bytes = b"", path: str = "/fal/queue/requests", headers: Headers = ()
) -> AsyncIterator[SSEClient]:
    """Read the stream of a request inside the block. After the block the client disconnects and the call must return."""
    client = SSEClient()
    scope = http_scope("GET", f"{path}/{request_id}/status/stream".encode(), query=query, headers=headers)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run, app, scope)
        try:
            yield client
        finally:
            client.disconnect()
            with anyio.fail_after(DEADLINE, shield=True):
                while not client.ended:
                    client._changed = anyio.Event()
                    await client._changed.wait()
