"""A load generator on one core: raw HTTP/1.1 over a few connections, each of which has one request at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast


@dataclass
class Tally:
    """The responses so far."""

    wanted: int
    sent: int = 0
    answered: int = 0
    failed: int = 0


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, tally: Tally, done: asyncio.Future[None]) -> None:
        self._request = request
        self._tally = tally
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self.latencies: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._next()

    def _next(self) -> None:
        if self._tally.sent < self._tally.wanted:
            self._tally.sent += 1
            self._sent_at = time.perf_counter()
            self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.index(b"content-length: ") + 16
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = self._buffer[end + 4 + length :]
        self.latencies.append(time.perf_counter() - self._sent_at)
        self._tally.answered += 1
        self._tally.failed += not head.startswith(b"http/1.1 200")
        if self._tally.answered == self._tally.wanted:
            self._done.set_result(None)
        else:
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed a connection"))


def post(path: str, body: bytes) -> bytes:
    """The bytes of one request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass(frozen=True)
class Run:
    """The result of a run."""

    count: int
    seconds: float
    latencies: list[float]
    """Latencies in seconds, sorted."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.count / self.seconds

    def percentile(self, share: float) -> float:
        """The latency in seconds below which this share of the responses arrived."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


async def hammer(port: int, request: bytes, count: int, connections: int = 64) -> Run:
    """Send `count` requests over `connections`. Raises `RuntimeError` if a response is not 200."""
    loop = asyncio.get_running_loop()
    tally, done = Tally(count), loop.create_future()
    clients = []
    began = time.perf_counter()
    for _ in range(min(connections, count)):
        _, client = await loop.create_connection(lambda: _Client(request, tally, done), "127.0.0.1", port)
        clients.append(client)
    async with asyncio.timeout(120):
        await done
    seconds = time.perf_counter() - began
    for client in clients:
        client.transport.close()
    if tally.failed:
        raise RuntimeError(f"{tally.failed} of {count} answers were not 200")
    return Run(count, seconds, sorted(latency for client in clients for latency in client.latencies))
