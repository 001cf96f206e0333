"""A provider on a free loopback port: it takes calls, keeps them, and answers as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import h11

from tests.support.http_request import hear


@dataclass
class Asked:
    """One call as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Told:
    """What it is answered. `cut`: the connection ends after so many bytes of the body."""

    status: int = 200
    body: bytes = b'{"id": "p1", "status": "starting"}'
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    cut: int | None = None


Answer = Callable[[Asked], Told | Awaitable[Told]]


@dataclass
class Provider:
    url: str
    answer: Answer
    calls: list[Asked] = field(default_factory=list)
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one call."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self.serving.add(task)
        connection = h11.Connection(h11.SERVER)
        try:
            if (heard := await hear(connection, reader)) is not None:
                asked = Asked(heard.method, heard.target, heard.headers, heard.body)
                self.calls.append(asked)
                told = self.answer(asked)
                await _tell(connection, writer, await told if isinstance(told, Awaitable) else told)
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # whoever called was stopped in the middle: that is what some tests do
        finally:
            self.serving.discard(task)
            writer.close()


async def _tell(connection: h11.Connection, writer: asyncio.StreamWriter, told: Told) -> None:
    headers = [*told.headers, ("content-length", str(len(told.body))), ("connection", "close")]
    writer.write(connection.send(h11.Response(status_code=told.status, headers=headers)) or b"")
    if told.cut is not None:
        writer.write(told.body[: told.cut])
    else:
        writer.write((connection.send(h11.Data(told.body)) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()


@asynccontextmanager
async def providing(answer: Answer = lambda asked: Told()) -> AsyncIterator[Provider]:
    """A provider for as long as the block lasts."""
    provider = Provider("", answer)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=1024)
    async with server:
        provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield provider
        finally:
            # From Python 3.12 on a server waits for its connections, and some answers never come.
            for task in provider.serving:
                task.cancel()
