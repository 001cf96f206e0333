"""HTTP client for URLs that clients supply. It cannot be made to reach private networks.

The guard checks the text of each URL and, when a connection is made, every address that the name resolves to at that moment;
the client then connects to one of exactly these addresses. It follows no redirects and reads no proxy settings from the
environment. So neither a name whose address changes in between, nor a redirect, nor a proxy bypasses the guard.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self, TypeVar

from queue_middleware.errors import InvalidWebhook, OutboundError, OutboundRefused, OutboundShortage, OutboundTimeout
from queue_middleware.jobs.models import Headers
from queue_middleware.syntax.urls import encode_url, request_target, split_plain

from .connector import Connect, Connector, Origin, Resolver, connect
from .guard import WEBHOOK, Guard, parse_url
from .http11 import Connection, ConnectionClosed, ResponseBody, StreamBody
from .http_head import Request
from .pool import ConnectionPool
from .resolver import ThreadedResolver

T = TypeVar("T")

_REST_TIMEOUT = 1.0
"""Seconds for the rest of a response after its status: the operator sees it, and the connection can be used again."""
_SHORTAGE_INTERVAL = 30.0
"""Seconds between two reports of a shortage: each of several hundred calls may meet it."""

OnShortage = Callable[[OutboundShortage, float], None]
"""Called with a shortage of this process, e.g. of file descriptors, and the seconds until the next report at the earliest."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response.

    `body` is its first KiB, for the operator only: shown to a submitter, it would disclose what this network can reach.
    """

    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamingResponse:
    """A response that is still arriving. `chunks` raises `OutboundError` if the body ends early."""

    status: int
    headers: Headers = field(repr=False)
    chunks: AsyncIterator[bytes]


class HTTPClient:
    """`async with HTTPClient(guard, timeout) as client:`, then `post` or `stream`.

    `timeout` is in seconds and covers a whole call, at most `CONNECT_TIMEOUT` of it resolving and connecting. Connections to
    the same scheme, host and port are used again for a few seconds. The caller limits how many calls run at once. `resolver`
    and `connect` are for tests, `ssl_context` is for a private certificate authority.
    """

    def __init__(
        self,
        guard: Guard,
        timeout: float = 15.0,
        *,
        resolver: Resolver | None = None,
        connect: Connect = connect,
        ssl_context: ssl.SSLContext | None = None,
        on_shortage: OnShortage = lambda error, interval: None,
    ) -> None:
        self._on_shortage = on_shortage
        self._next_report = 0.0
        self._guard = guard
        self._timeout = timeout
        self._resolver = resolver
        self._connect_to = connect
        self._ssl_context = ssl_context
        self._pool: ConnectionPool | None = None
        # The same few hosts come again and again. One that is refused is not cached.
        self._plain_origin = lru_cache(maxsize=512)(self._parse_origin)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._pool = ConnectionPool()
        resolver = self._resolver or ThreadedResolver().resolve
        self._connector = Connector(self._guard, resolver, self._connect_to, self._ssl_context, self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    async def post(self, url: str, headers: Headers, body: bytes | StreamBody) -> Response:
        """Send a POST and return the response whatever its status is, a redirect included.

        Raises `OutboundRefused` if the guard refuses the URL, `OutboundUnreached` if no connection was made, `OutboundBusy` if
        this process is the reason, and `OutboundError` if no response arrived in time.
        """
        pool = self._open_pool()
        origin, host, target = self._target(url, WEBHOOK)
        length = len(body) if isinstance(body, bytes) else body.length
        request = Request(b"POST", target, ((b"host", host), (b"content-length", b"%d" % length), *headers))
        with _translate_errors(self._timeout):
            async with asyncio.timeout(self._timeout) as limit:
                connection, (status, received) = await self._exchange(pool, origin, lambda over: over.send(request, body))
        if not connection.is_complete:
            await self._wait_for_rest(connection, limit.when() or 0.0)
        response = Response(status, received, bytes(connection.body_prefix))
        pool.give_back(connection, origin)
        return response

    def _open_pool(self) -> ConnectionPool:
        if self._pool is None:
            raise OutboundError("the HTTP client is not open")
        return self._pool

    async def _wait_for_rest(self, connection: Connection, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + _REST_TIMEOUT)):
                await connection.wait_complete()
        except TimeoutError:
            return  # the status is what counts
        except BaseException:
            connection.abort()
            raise

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, headers: Headers, body: bytes, timeout: float, field: str = "the URL"
    ) -> AsyncIterator[StreamingResponse]:
        """Send a request and yield the response while it arrives. The caller limits how much it reads, and for how long.

        `timeout` is in seconds until the headers have arrived. Raises `OutboundRefused` and `OutboundError` as `post` does;
        their messages name the URL by `field`.
        """
        pool = self._open_pool()
        origin, host, target = self._target(url, field)
        has_body = bool(body) or method in ("POST", "PUT", "PATCH")
        own = (b"host", host), *([(b"content-length", b"%d" % len(body))] if has_body else ())
        request = Request(method.encode("ascii"), target, (*own, *headers))

        async def send(over: Connection) -> tuple[ResponseBody, int, Headers]:
            return over.stream_response(), *await over.send(request, body)

        with _translate_errors(timeout):
            async with asyncio.timeout(timeout):
                connection, (received, status, response_headers) = await self._exchange(pool, origin, send)
        try:
            yield StreamingResponse(status, response_headers, _chunks(received))
        except BaseException:
            connection.abort()
            raise
        if received.is_complete:
            pool.give_back(connection, origin)
        else:
            connection.abort()

    def _target(self, url: str, field: str) -> tuple[Origin, bytes, bytes]:
        """The origin to connect to, the `Host` header and the request target. Raises `OutboundRefused`."""
        plain = split_plain(url)
        if plain is not None:
            return *self._plain_origin(plain[0], field), plain[1].encode("ascii")
        return *self._parse_origin(url, field), request_target(encode_url(url, field))

    def _parse_origin(self, url: str, field: str) -> tuple[Origin, bytes]:
        try:
            self._guard.check_url(url, field)
            parsed = parse_url(url, field)
        except InvalidWebhook as error:
            raise OutboundRefused(error.detail, is_final=True) from None
        tls = parsed.scheme == "https"
        origin = Origin(tls, parsed.raw_host.decode("ascii"), parsed.port or (443 if tls else 80))
        return origin, parsed.netloc

    async def _exchange(
        self, pool: ConnectionPool, origin: Origin, send: Callable[[Connection], Awaitable[T]]
    ) -> tuple[Connection, T]:
        """Send over an idle connection; over another one if the other side had closed it before it received the request."""
        while True:
            connection = pool.take(origin) or await self._connect(origin)
            try:
                return connection, await send(connection)
            except ConnectionClosed as broken:
                connection.abort()
                if connection.exchanges == 1 or not broken.untouched:
                    raise
            except BaseException:
                connection.abort()
                raise

    async def _connect(self, origin: Origin) -> Connection:
        try:
            return await self._connector.connect(origin)
        except OutboundShortage as shortage:
            now = self._loop.time()
            if now >= self._next_report:
                self._next_report = now + _SHORTAGE_INTERVAL
                self._on_shortage(shortage, _SHORTAGE_INTERVAL)
            raise


async def _chunks(body: ResponseBody) -> AsyncIterator[bytes]:
    try:
        async for chunk in body.chunks():
            yield chunk
    except ConnectionClosed:
        raise OutboundError("the connection ended in the middle of the response") from None


@contextmanager
def _translate_errors(timeout: float) -> Iterator[None]:
    """Raise errors with own texts: those of the library quote what the other side sent."""
    try:
        yield
    except TimeoutError:
        raise OutboundTimeout(f"no response within {timeout:g} s") from None
    except ConnectionClosed as broken:
        raise OutboundError(str(broken)) from broken
