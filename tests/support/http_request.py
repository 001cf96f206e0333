"""Read one HTTP request from a connection, for the fake servers on loopback."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import h11


@dataclass
class HTTPRequest:
    """A received request with its unchanged body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


async def read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> HTTPRequest | None:
    """The complete request, or None if the connection ends before it is complete."""
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
    if isinstance(event, h11.ConnectionClosed):
        return None
    headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
    return HTTPRequest(request.method.decode(), request.target.decode(), headers, bytes(body))
