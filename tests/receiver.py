"""A receiver of webhooks on a free loopback port. It keeps what came, byte for byte, to be judged later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11


@dataclass(frozen=True)
class Webhook:
    """One delivery attempt as it arrived."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        return self.payload["request_id"]


@dataclass
class Receiver:
    """What arrived so far. `answer` says with which status an attempt is met."""

    url: str
    answer: Callable[[Webhook], int]
    arrived: list[Webhook] = field(default_factory=list)

    def of(self, request_id: str) -> list[Webhook]:
        """The attempts for one request, in order."""
        return [webhook for webhook in self.arrived if webhook.request_id == request_id]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        connection, body = h11.Connection(h11.SERVER), b""
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
            if isinstance(event, h11.EndOfMessage):
                headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
                webhook = Webhook(request.target.decode(), headers, body)
                self.arrived.append(webhook)
                headers = [("content-length", "0"), ("connection", "close")]
                response = h11.Response(status_code=self.answer(webhook), headers=headers)
                writer.write((connection.send(response) or b"") + (connection.send(h11.EndOfMessage()) or b""))
                await writer.drain()
        except (ConnectionError, h11.RemoteProtocolError):
            pass  # the sender was killed in the middle: that is what some tests do
        finally:
            writer.close()


@asynccontextmanager
async def receiving(answer: Callable[[Webhook], int] = lambda webhook: 200) -> AsyncIterator[Receiver]:
    """A receiver for as long as the block lasts."""
    receiver = Receiver("", answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, backlog=1024)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield receiver
