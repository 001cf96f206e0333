"""The guarded HTTP client: everything we send to hosts that a submitter named goes through here.

The guard is asked twice: about the text of the URL, and, when the connection is made, about every address the name has at that
moment; then one of exactly these is connected to. So neither a name that changes its address in between, nor a redirect (none
is followed), nor a proxy of the environment (none is read) leads around it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self, TypeVar

import h11

from queue_middleware.errors import InvalidWebhook, OutboundError, OutboundRefused, OutboundShortage
from queue_middleware.events import Emit, ServiceError
from queue_middleware.jobs.models import Headers
from queue_middleware.syntax.urls import encode_url, request_target

from .connector import Connect, Dialler, Origin, Resolver, connect
from .guard import WEBHOOK, Guard, parse_url
from .http11 import Arrivals, Broken, Connection, Stream
from .resolver import Names

T = TypeVar("T")

_REST = 1.0
"""Seconds for the rest of an answer after its status: it is for the operator, and leaves the connection fit for another."""
_KEPT_FOR = 5.0
"""Seconds for which a connection is kept that nobody uses."""
_MOST_KEPT = 64
_QUIET = 30.0
"""Seconds in which one kind of shortage is announced once: each of some hundred calls may meet it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side answered.

    `body` is its first KiB, for the operator only: shown to a submitter it would let him read what our network can reach.
    """

    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that is still arriving. `chunks` raises `OutboundError` where it breaks off."""

    status: int
    headers: Headers = field(repr=False)
    chunks: AsyncIterator[bytes]


class Outbound:
    """`async with Outbound(guard, timeout) as outbound:`, then `post`.

    `timeout` is seconds for one call in all, of which at most `CONNECT_TIMEOUT` for finding and reaching the host. Connections
    are kept for a few seconds for the same scheme, host and port. The caller bounds how many calls run at once. `emit` is
    told when this process lacks what calls take. `resolver` and `connect` are for tests, `ssl_context` is for a certificate
    authority of one's own.
    """

    def __init__(
        self,
        guard: Guard,
        timeout: float = 15.0,
        *,
        resolver: Resolver | None = None,
        connect: Connect = connect,
        ssl_context: ssl.SSLContext | None = None,
        emit: Emit = lambda event: None,
    ) -> None:
        self._emit = emit
        self._lacking_since: float | None = None
        self._guard = guard
        self._timeout = timeout
        self._resolver = resolver
        self._connect_to = connect
        self._ssl_context = ssl_context
        self._kept: dict[Origin, list[tuple[Connection, float]]] | None = None
        self._count = 0
        self._sweeping: asyncio.TimerHandle | None = None
        # Nearly always the same few; a text that was refused is not remembered.
        self._target = lru_cache(maxsize=512)(self._read_target)

    async def __aenter__(self) -> Self:
        self._kept, self._count = {}, 0
        self._loop = asyncio.get_running_loop()
        resolver = self._resolver or Names().resolve
        self._dialler = Dialler(self._guard, resolver, self._connect_to, self._ssl_context, self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        kept, self._kept = self._kept, None
        if self._sweeping is not None:
            self._sweeping.cancel()
        for waiting in (kept or {}).values():
            for connection, _until in waiting:
                connection.abort()

    async def post(self, url: str, headers: Headers, body: bytes | Stream) -> Answer:
        """Send, and read the answer whatever its status is; a redirect is an answer too.

        Raises `OutboundRefused` where the guard says no, `OutboundUnreached` where no connection was made, `OutboundBusy` where
        that is not for the other side to mend, and `OutboundError` where no answer came in time.
        """
        if self._kept is None:
            raise OutboundError("the HTTP client is not open")
        origin, host, target = self._target(url, WEBHOOK)
        length = len(body) if isinstance(body, bytes) else body.length
        own = (b"host", host), (b"content-length", b"%d" % length)
        request = h11.Request(method=b"POST", target=target, headers=[*own, *headers])
        with _told(self._timeout):
            async with asyncio.timeout(self._timeout) as limit:
                connection, (status, answered) = await self._exchange(origin, lambda kept: kept.send(request, body))
        if not connection.is_over:
            await self._wait_for_the_rest(connection, limit.when() or 0.0)
        answer = Answer(status, answered, bytes(connection.kept))
        if connection.recycle():
            self._keep(connection, origin)
        else:
            connection.abort()
        return answer

    async def _wait_for_the_rest(self, connection: Connection, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + _REST)):
                await connection.over()
        except TimeoutError:
            return  # the status counts
        except BaseException:
            connection.abort()
            raise

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Headers, body: bytes, timeout: float, noun: str = "the URL"
    ) -> AsyncIterator[Opened]:
        """Send, and hand out the answer while it arrives; whoever reads it bounds how much he reads, and for how long.

        `timeout` is seconds until its head has come. Raises `OutboundRefused` and `OutboundError` as `post` does; they call the
        URL `noun`.
        """
        if self._kept is None:
            raise OutboundError("the HTTP client is not open")
        origin, host, target = self._target(url, noun)
        has_body = bool(body) or method in ("POST", "PUT", "PATCH")
        own = (b"host", host), *([(b"content-length", b"%d" % len(body))] if has_body else ())
        request = h11.Request(method=method, target=target, headers=[*own, *headers])

        async def send(kept: Connection) -> tuple[Arrivals, int, Headers]:
            return kept.fetch_all(), *await kept.send(request, body)

        with _told(timeout):
            async with asyncio.timeout(timeout):
                connection, (arrivals, status, answered) = await self._exchange(origin, send)
        try:
            yield Opened(status, answered, _chunks(arrivals))
        except BaseException:
            connection.abort()
            raise
        if arrivals.is_whole and connection.recycle():
            self._keep(connection, origin)
        else:
            connection.abort()

    def _read_target(self, url: str, noun: str) -> tuple[Origin, bytes, bytes]:
        """Where it goes, how it names the host, and what it asks for. Raises `OutboundRefused`."""
        try:
            self._guard.check_url(url, noun)
            parsed = parse_url(url, noun)
        except InvalidWebhook as error:
            raise OutboundRefused(error.detail, is_final=True) from None
        tls = parsed.scheme == "https"
        origin = Origin(tls, parsed.raw_host.decode("ascii"), parsed.port or (443 if tls else 80))
        return origin, parsed.netloc, request_target(encode_url(url, noun))

    async def _exchange(self, origin: Origin, send: Callable[[Connection], Awaitable[T]]) -> tuple[Connection, T]:
        """Send over a connection that was kept; should it have been closed by then, over another."""
        while True:
            connection = self._take(origin) or await self._dial(origin)
            try:
                return connection, await send(connection)
            except Broken as broken:
                connection.abort()
                if connection.used == 1 or not broken.untouched:
                    raise
            except BaseException:
                connection.abort()
                raise

    async def _dial(self, origin: Origin) -> Connection:
        try:
            return await self._dialler.dial(origin)
        except OutboundShortage as lacking:
            now = self._loop.time()
            if self._lacking_since is None or now >= self._lacking_since + _QUIET:
                self._lacking_since = now
                self._emit(ServiceError("outbound", lacking, _QUIET))
            raise

    # --- connections that are kept

    def _take(self, origin: Origin) -> Connection | None:
        """The one that was used last, if it is still good."""
        assert self._kept is not None  # noqa: S101
        waiting = self._kept.get(origin)
        while waiting:
            connection, until = waiting.pop()
            self._count -= 1
            if connection.is_open and until > self._loop.time():
                return connection
            connection.abort()
        return None

    def _keep(self, connection: Connection, origin: Origin) -> None:
        if self._kept is None or self._count >= _MOST_KEPT:
            connection.abort()
            return
        if not self._count:
            self._sweep_later()
        self._count += 1
        self._kept.setdefault(origin, []).append((connection, self._loop.time() + _KEPT_FOR))

    def _sweep(self) -> None:
        """Let go of those that nobody has used for a while, or that were closed by the other side."""
        kept = self._kept or {}
        now = self._loop.time()
        for origin, waiting in list(kept.items()):
            kept[origin] = [(connection, until) for connection, until in waiting if connection.is_open and until > now]
            for connection, until in waiting:
                if not connection.is_open or until <= now:
                    connection.abort()
                    self._count -= 1
            if not kept[origin]:
                del kept[origin]
        if self._count:
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._sweeping = self._loop.call_later(_KEPT_FOR, self._sweep)


async def _chunks(arrivals: Arrivals) -> AsyncIterator[bytes]:
    try:
        async for chunk in arrivals.chunks():
            yield chunk
    except Broken:
        raise OutboundError("the connection ended in the middle of the answer") from None


@contextmanager
def _told(timeout: float) -> Iterator[None]:
    """Say what failed in our own words: the library's repeat what the other side sent."""
    try:
        yield
    except TimeoutError:
        raise OutboundError(f"no answer within {timeout:g} s") from None
    except Broken as broken:
        raise OutboundError(str(broken)) from broken
