"""A fake provider on a free loopback port. It keeps the calls that it receives and gives the responses of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import h11

from tests.support.http_request import read_request


@dataclass
class Call:
    """A received call."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """A response. `cut`: the connection ends after this many bytes of the body."""

    status: int = 200
    body: bytes = b'{"id": "p1", "status": "starting"}'
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    cut: int | None = None


Respond = Callable[[Call], Reply | Awaitable[Reply]]


@dataclass
class FakeProvider:
    url: str
    respond: Respond
    calls: list[Call] = field(default_factory=list)
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection with one call."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self.serving.add(task)
        connection = h11.Connection(h11.SERVER)
        try:
            if (request := await read_request(connection, reader)) is not None:
                call = Call(request.method, request.target, request.headers, request.body)
                self.calls.append(call)
                reply = self.respond(call)
                await _send(connection, writer, await reply if isinstance(reply, Awaitable) else reply)
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # some tests stop the caller
        finally:
            self.serving.discard(task)
            writer.close()


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, reply: Reply) -> None:
    headers = [*reply.headers, ("content-length", str(len(reply.body))), ("connection", "close")]
    writer.write(connection.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
    if reply.cut is not None:
        writer.write(reply.body[: reply.cut])
    else:
        writer.write((connection.send(h11.Data(reply.body)) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()


@asynccontextmanager
async def providing(respond: Respond = lambda call: Reply()) -> AsyncIterator[FakeProvider]:
    """Serve a fake provider inside the block."""
    provider = FakeProvider("", respond)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=1024)
    async with server:
        provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield provider
        finally:
            # From Python 3.12 on a server waits for its connections, and some tests never respond.
            for task in provider.serving:
                task.cancel()
