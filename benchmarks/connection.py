"""One HTTP/1.1 connection on which one request follows the other, and streams of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .load import post


class Connection:
    """Make it with `Connection.open`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Connection]:
        """Connect to a port of this machine."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def request(self, method: str, path: str, body: bytes = b"", headers: str = "") -> Any:
        """The JSON of the response. `headers` are whole lines. Raises `RuntimeError` for a status of 300 or above."""
        self._writer.write(post(path, body, headers, method))
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        content = await self._reader.readexactly(length)
        if not head.startswith(b"http/1.1 2"):
            raise RuntimeError(f"{method} {path}: {content[:200]!r}")
        return json.loads(content)

    async def events(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """The data of each server-sent event, until the server ends the stream. The connection cannot be used afterwards."""
        self._writer.write(post(path, b"", method="GET"))
        async for line in self._reader:
            if line.startswith(b"data: "):
                event: dict[str, Any] = json.loads(line[6:])
                yield event
                if event["status"] == "COMPLETED":
                    return
