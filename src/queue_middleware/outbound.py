"""The guarded HTTP client: everything we send to hosts that a submitter named goes through here.

The guard is asked twice: about the text of the URL, and, when the connection is made, about every address the name has at that
moment; then one of exactly these is connected to. So neither a name that changes its address in between, nor a redirect (none
is followed), nor a proxy of the environment (none is read) leads around it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Self

import anyio
import httpcore

from .errors import InvalidWebhook, OutboundError, OutboundRefused
from .guard import WEBHOOK, Guard, parse_url
from .models import Headers

CONNECT_TIMEOUT = 5.0
MAX_READ = 64 * 1024
MAX_KEPT = 1024

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → all its addresses, in the order in which they are to be tried. Raises `OSError`."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects for httpcore: resolve once, check every address, connect to a checked one. TLS keeps the host's name."""

    def __init__(self, guard: Guard, resolver: Resolver, inner: httpcore.AsyncNetworkBackend) -> None:
        self._guard = guard
        self._resolver = resolver
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        deadline = time.monotonic() + (CONNECT_TIMEOUT if timeout is None else timeout)
        addresses = await self._checked(host, port, deadline)
        for number, address in enumerate(addresses, start=1):
            # Each gets its share of what is left, so one that never answers does not use it all up.
            share = max(deadline - time.monotonic(), 0.0) / (len(addresses) - number + 1)
            try:
                return await self._inner.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError("the name has no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise OutboundRefused("unix sockets are not called")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def _checked(self, host: str, port: int, deadline: float) -> Sequence[str]:
        try:
            with anyio.fail_after(deadline - time.monotonic()):
                addresses = await self._resolver(host, port)
        except TimeoutError:
            raise OutboundError(f"the name {host} was not resolved in time") from None
        except (OSError, UnicodeError):
            raise OutboundError(f"the name {host} cannot be resolved") from None
        for address in addresses:
            self._guard.check_address(host, address)
        return addresses


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side answered.

    `body` is its first KiB, for the operator only: shown to a submitter it would let him read what our network can reach.
    """

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that is still arriving. `chunks` raises `OutboundError` where it breaks off."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]


class Outbound:
    """`async with Outbound(guard, timeout) as outbound:`, then `post`.

    `timeout` is seconds for one call in all, of which at most `CONNECT_TIMEOUT` for each of the two halves of connecting, the
    address and TLS. Connections are kept for a few seconds for the same scheme, host and port. The caller bounds how many calls
    run at once. `resolver` and `backend` are for tests, `ssl_context` is for a certificate authority of one's own.
    """

    def __init__(
        self,
        guard: Guard,
        timeout: float = 15.0,
        *,
        resolver: Resolver = resolve,
        backend: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._timeout = timeout
        self._backend = _GuardedBackend(guard, resolver, backend or httpcore.AnyIOBackend())
        self._ssl_context = ssl_context
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def __aenter__(self) -> Self:
        self._pool = httpcore.AsyncConnectionPool(
            # Made once: httpcore would otherwise read the certificates anew for every connection.
            ssl_context=self._ssl_context or httpcore.default_ssl_context(),
            max_connections=None,
            max_keepalive_connections=16,
            keepalive_expiry=5.0,
            network_backend=self._backend,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def post(self, url: str, headers: Headers, body: bytes) -> Answer:
        """Send, and read the answer whatever its status is; a redirect is an answer too.

        Raises `OutboundRefused` where the guard says no, and `OutboundError` where no answer came in time.
        """
        if self._pool is None:
            raise OutboundError("the HTTP client is not open")
        request = self._request(url, headers, body)
        with _told(self._timeout), anyio.fail_after(self._timeout) as scope:
            response = await self._pool.handle_async_request(request)
        kept = bytearray()
        try:
            # The status has decided. The rest is for the operator, and leaves the connection fit to be used again.
            with anyio.CancelScope(deadline=scope.deadline):
                await _read(response, kept)
        finally:
            await response.aclose()
        return Answer(response.status, _lower(response.headers), bytes(kept))

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Headers, body: bytes, timeout: float, noun: str = "the URL"
    ) -> AsyncIterator[Opened]:
        """Send, and hand out the answer while it arrives; whoever reads it bounds how much he reads, and for how long.

        `timeout` is seconds until its head has come. Raises `OutboundRefused` and `OutboundError` as `post` does.
        """
        if self._pool is None:
            raise OutboundError("the HTTP client is not open")
        request = self._request(url, headers, body, method, noun)
        with _told(timeout), anyio.fail_after(timeout):
            response = await self._pool.handle_async_request(request)
        try:
            yield Opened(response.status, _lower(response.headers), _chunks(response))
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _request(self, url: str, headers: Headers, body: bytes, method: str = "POST", noun: str = WEBHOOK) -> httpcore.Request:
        try:
            self._guard.check_url(url, noun)
            parsed = parse_url(url, noun)
        except InvalidWebhook as error:
            raise OutboundRefused(error.detail) from None
        return httpcore.Request(
            method,
            httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path),
            headers=[(b"host", parsed.netloc), (b"content-length", b"%d" % len(body)), *headers],
            content=body,
            extensions={"timeout": {"connect": min(CONNECT_TIMEOUT, self._timeout)}},
        )


async def _chunks(response: httpcore.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_stream():
            yield chunk
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        raise OutboundError("the connection ended in the middle of the answer") from None


async def _read(response: httpcore.Response, kept: bytearray) -> None:
    """Put the first `MAX_KEPT` bytes into `kept`, and stop at `MAX_READ`. A body that breaks off is no error."""
    seen = 0
    try:
        async for chunk in response.aiter_stream():
            kept += chunk[: MAX_KEPT - len(kept)]
            seen += len(chunk)
            if seen >= MAX_READ:
                break
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        return


def _lower(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.lower(), value) for name, value in headers)


@contextmanager
def _told(timeout: float) -> Iterator[None]:
    """Say what failed in our own words: the library's repeat what the other side sent."""
    try:
        yield
    except httpcore.ConnectTimeout as error:
        raise OutboundError("no connection was made in time") from error
    except (TimeoutError, httpcore.TimeoutException) as error:
        raise OutboundError(f"no answer within {timeout:g} s") from error
    except httpcore.ConnectError as error:
        raise OutboundError(f"no connection: {_reason(error)}") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise OutboundError("the connection ended without an HTTP answer") from error


def _reason(error: BaseException) -> str:
    """The system's words for it, or TLS's, from the chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not good: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)  # asyncio's own words repeat the address
        cause = cause.__cause__ or cause.__context__
    return "the other side cannot be reached"
