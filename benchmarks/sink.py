"""A receiver that accepts everything, as a process of its own: `python -m benchmarks.sink PORT`. As fast as one core can be.

`GET` returns how many POSTs it has received.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import uvloop

from .servers import python, serving


class _Sink(asyncio.Protocol):
    received = 0
    """POSTs over all connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if head.startswith(b"post"):
                start = head.index(b"content-length: ") + 16
                length = int(head[start:].split(b"\r\n", 1)[0])
                if len(self._buffer) < end + 4 + length:
                    return
                _Sink.received += 1
            self._buffer = self._buffer[end + 4 + length :]
            body = b"%d" % _Sink.received
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


@dataclass(frozen=True)
class Receiver:
    """A sink that is running."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def received(self) -> int:
        """How many POSTs it has received."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            return int(await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])))
        finally:
            writer.close()


@contextmanager
def sink() -> Iterator[Receiver]:
    """Start one."""
    with serving(lambda port: python("-m", "benchmarks.sink", str(port))) as server:
        yield Receiver(server.port)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
