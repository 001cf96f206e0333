"""A receiver of webhooks on a free loopback port. It keeps every delivery attempt with its unchanged body."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import h11

from tests.support.http_request import read_request


@dataclass
class Webhook:
    """One delivery attempt as it arrived."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def request_id(self) -> str:
        return self.headers["x-fal-webhook-request-id"]

    @cached_property
    def content(self) -> dict[str, Any]:
        """fal's envelope: `request_id`, `status`, `payload`, `error`."""
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass
class Receiver:
    """What arrived so far, by request id, in order.

    `respond` returns the status of the response, which is sent after `pause` seconds. With `permits`, each response takes one.
    """

    url: str
    respond: Callable[[Webhook], int]
    pause: float = 0.0
    permits: asyncio.Semaphore | None = None
    arrived: dict[str, list[Webhook]] = field(default_factory=dict)

    def webhooks_for(self, request_id: str) -> list[Webhook]:
        """The delivery attempts for one request."""
        return self.arrived.get(request_id, [])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection with one request."""
        connection = h11.Connection(h11.SERVER)
        try:
            if (request := await read_request(connection, reader)) is not None:
                webhook = Webhook(request.target, request.headers, request.body)
                self.arrived.setdefault(webhook.request_id, []).append(webhook)
                await asyncio.sleep(self.pause)
                if self.permits is not None:
                    await self.permits.acquire()
                headers = [("content-length", "0"), ("connection", "close")]
                response = h11.Response(status_code=self.respond(webhook), headers=headers)
                writer.write((connection.send(response) or b"") + (connection.send(h11.EndOfMessage()) or b""))
                await writer.drain()
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # some tests kill the sender
        finally:
            writer.close()


@asynccontextmanager
async def receiving(respond: Callable[[Webhook], int] = lambda webhook: 200, pause: float = 0.0) -> AsyncIterator[Receiver]:
    """Serve a receiver inside the block."""
    receiver = Receiver("", respond, pause)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, backlog=1024)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield receiver
