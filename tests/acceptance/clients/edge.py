"""The edge of a network, on loopback: https with its own certificate in front of a server that speaks http.

The clients of fal require https and port 443, so a test needs both without changing the clients. There are two servers:

* `terminator`: TLS, and what a proxy in front of a service does: it sets `X-Forwarded-Proto: https` and forwards everything.
* `proxy`: an ordinary `CONNECT` proxy, which clients use through `HTTPS_PROXY`. Every name under `SERVICE` leads to the
  terminator, whatever the port, and nothing else can be reached: no client can connect to the internet.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trustme

SERVICE = "service.example.com"
NAMES = (SERVICE, f"*.{SERVICE}", f"*.gateway.{SERVICE}", "localhost")
"""The names in the certificate: all that the recipes of docs/how-to/fal-clients.md need."""

_LENGTH = re.compile(rb"^content-length: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)
_CHUNKED = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
_TUNNEL = re.compile(rb"CONNECT ([\w.-]+):\d+ ")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Edge:
    """Both servers, and the requests that passed through them."""

    upstream: int
    """The port of the server behind the edge."""
    authority: Path
    """The certificate that clients have to trust, for `SSL_CERT_FILE` and `NODE_EXTRA_CA_CERTS`."""
    terminator: int = 0
    proxy: int = 0
    seen: list[str] = field(default_factory=list)
    """Method and target of every request, in order of arrival."""
    lost: int = 0
    """How many of the next responses do not reach the client: its connection is closed instead."""

    async def terminate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one client connection to one server connection: requests in order, responses as they arrive."""
        behind, ahead = await asyncio.open_connection("127.0.0.1", self.upstream)
        responses = asyncio.create_task(relay(behind, writer, self._is_lost))
        try:
            while head := await request_head(reader):
                self.seen.append(b" ".join(head.split(b" ")[:2]).decode("latin-1"))
                if _CHUNKED.search(head):
                    raise ConnectionError("no client of fal sends chunked bodies; this edge would have to learn it")
                length = _LENGTH.search(head)
                ahead.write(head.removesuffix(b"\r\n") + b"X-Forwarded-Proto: https\r\n\r\n")
                ahead.write(await reader.readexactly(int(length[1]) if length else 0))
                await ahead.drain()
        finally:
            ahead.close()
            await asyncio.wait([responses])

    def _is_lost(self) -> bool:
        if not self.lost:
            return False
        self.lost -= 1
        return True

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one `CONNECT`, then forward bytes in both directions."""
        wanted = _TUNNEL.match(await request_head(reader))
        name = wanted[1].decode() if wanted else ""
        if not f".{name}".endswith(f".{SERVICE}"):
            writer.write(b"HTTP/1.1 502 Not Here\r\nContent-Length: 0\r\n\r\n")
            return
        behind, ahead = await asyncio.open_connection("127.0.0.1", self.terminator)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(relay(behind, writer), relay(reader, ahead))


async def request_head(reader: asyncio.StreamReader) -> bytes:
    """Read the request line and the headers; empty at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def relay(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, is_lost: Callable[[], bool] = lambda: False
) -> None:
    """Forward bytes as they arrive, and the end of the stream, which comes early if `is_lost`."""
    with suppress(ConnectionError, ssl.SSLError):
        while (piece := await source.read(65536)) and not is_lost():
            target.write(piece)
            await target.drain()
    target.close()


@asynccontextmanager
async def listening(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on a free loopback port and yield the port. All connections are closed at the end."""
    visitors: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        visitors.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass  # a client that disconnects, as terminated processes do
        finally:
            visitors.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(visitors):
            task.cancel()
        await asyncio.gather(*visitors, return_exceptions=True)


@asynccontextmanager
async def edge(upstream: int, folder: Path) -> AsyncIterator[Edge]:
    """The edge in front of a server on a loopback port. Its certificate authority exists only for the test."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(context)
    made = Edge(upstream, folder / "authority.pem")
    async with listening(made.terminate, context) as made.terminator, listening(made.tunnel) as made.proxy:
        yield made
