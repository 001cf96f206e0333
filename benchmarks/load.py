"""A load generator on one core: raw HTTP/1.1 over a few connections, the next request as soon as the response is there."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

RESPONSE_SECONDS = 120


@dataclass
class _Tally:
    """The requests of one run, shared by its connections."""

    requests: Sequence[bytes]
    wanted: int
    sent: int = 0
    received: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)

    def next(self) -> bytes | None:
        if self.sent == self.wanted:
            return None
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]


class _Client(asyncio.Protocol):
    def __init__(self, tally: _Tally, done: asyncio.Future[None]) -> None:
        self._tally = tally
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._next()

    def _next(self) -> None:
        request = self._tally.next()
        if request is not None:
            self._sent_at = time.perf_counter()
            self.transport.write(request)

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
        self._response(head.startswith(b"http/1.1 200"))

    def _response(self, succeeded: bool) -> None:
        tally = self._tally
        tally.latencies.append(time.perf_counter() - self._sent_at)
        tally.received += 1
        tally.failed += not succeeded
        if tally.received == tally.wanted:
            self._done.set_result(None)
        else:
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed a connection"))


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    count: int
    seconds: float
    latencies: list[float]
    """Seconds, sorted."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.count / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the responses came."""
        return percentile(self.latencies, share)

    def metrics(self) -> dict[str, float]:
        """Median and tail, in milliseconds."""
        return {"p50": self.percentile(0.5) * 1000, "p99": self.percentile(0.99) * 1000}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of sorted values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def post(path: str, body: bytes, headers: str = "", method: str = "POST") -> bytes:
    """The bytes of one request. `headers` are whole lines."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{headers}\r\n".encode() + body


def traced(path: str, body: bytes, count: int) -> list[bytes]:
    """Requests that differ in their headers, as behind a proxy that traces: each has a trace id and a request id of its own.

    They are made before the run, so that the generator's own time is that of identical requests.
    """
    return [post(path, body, _trace_headers()) for _ in range(count)]


def _trace_headers() -> str:
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return f"traceparent: 00-{trace}-{span}-01\r\nx-request-id: {trace}\r\n"


async def hammer(ports: int | Sequence[int], requests: bytes | Sequence[bytes], count: int, connections: int = 64) -> Run:
    """Send `count` requests over `connections`, shared evenly by the ports. Raises `RuntimeError` if a response is not 200."""
    loop = asyncio.get_running_loop()
    ports = [ports] if isinstance(ports, int) else ports
    tally, done = _Tally([requests] if isinstance(requests, bytes) else requests, count), loop.create_future()
    clients: list[_Client] = []
    began = time.perf_counter()
    try:
        for number in range(min(connections, count)):
            port = ports[number % len(ports)]
            _, client = await loop.create_connection(lambda: _Client(tally, done), "127.0.0.1", port)
            clients.append(client)
        async with asyncio.timeout(RESPONSE_SECONDS):
            await done
        seconds = time.perf_counter() - began
    finally:
        done.cancel()
        for client in clients:
            client.transport.close()
    if tally.failed:
        raise RuntimeError(f"{tally.failed} of {count} responses were not 200")
    return Run(count, seconds, sorted(tally.latencies))
