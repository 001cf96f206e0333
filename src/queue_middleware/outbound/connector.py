"""Makes connections to those whom we call: a name is looked up once, and only addresses that the guard allows are used."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

import httpx

from queue_middleware.background import run_in_thread
from queue_middleware.errors import OutboundShortage, OutboundUnreached
from queue_middleware.jobs.struct import Struct

from .guard import Guard
from .http11 import Connection

CONNECT_TIMEOUT = 5.0
_READING = threading.Lock()
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN})
"""What a connection fails with for want of something here, whatever the other side is like."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → all its addresses, in the order in which they are to be tried. Raises `OSError`."""


class Origin(Struct, frozen=True):
    """Where a connection leads. With `tls` it is encrypted, and the certificate is that of `host`."""

    tls: bool
    host: str
    port: int


Connect = Callable[[str, Origin, ssl.SSLContext | None], Awaitable[Connection]]
"""A connection to an address that was found good. Raises `OSError`."""


async def connect(address: str, origin: Origin, context: ssl.SSLContext | None) -> Connection:
    """By the event loop, over TCP."""
    name = origin.host if context is not None else None
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, address, origin.port, ssl=context, server_hostname=name
    )
    return connection


@cache
def _public_trust() -> ssl.SSLContext:
    """The public authorities, and nothing of the environment."""
    return httpx.create_ssl_context(trust_env=False)


def default_ssl_context() -> ssl.SSLContext:
    """Whom we trust without a context of one's own. Blocking the first time, for the tenth of a second that reading takes."""
    with _READING:  # several may be the first, and one reading is enough
        return _public_trust()


class Connector:
    """`timeout` is seconds for finding and reaching a host, where that is less than `CONNECT_TIMEOUT`.

    Without a `context`, `public_trust` is asked when the first connection needs it: a queue that calls nobody starts without.
    """

    def __init__(
        self, guard: Guard, resolver: Resolver, connect: Connect, context: ssl.SSLContext | None, timeout: float
    ) -> None:
        self._guard = guard
        self._resolve = resolver
        self._connect_to = connect
        self._context = context
        self._timeout = min(CONNECT_TIMEOUT, timeout)
        self._loop = asyncio.get_running_loop()

    async def connect(self, origin: Origin) -> Connection:
        """Resolve once, check every address, connect to a checked one.

        Raises `OutboundUnreached`, `OutboundRefused`, and `OutboundBusy` where it is not for the other side to do better.
        """
        trouble = f"the name {origin.host} was not resolved in time"
        try:
            async with asyncio.timeout(self._timeout) as limit:
                addresses = await self._checked(origin.host, origin.port)
                trouble = "no connection was made in time"
                return await self._connect_to_one(addresses, origin, limit.when() or 0.0)
        except TimeoutError:
            raise OutboundUnreached(trouble) from None
        except OSError as error:
            if _is_ours(error):
                raise OutboundShortage(f"no connection can be made from here: {_reason(error)}") from error
            raise OutboundUnreached(f"no connection: {_reason(error)}") from error

    async def _connect_to_one(self, addresses: Sequence[str], origin: Origin, deadline: float) -> Connection:
        context = await self._trust() if origin.tls else None
        for left in range(len(addresses), 0, -1):
            now = self._loop.time()
            try:
                # Each gets its share of what is left, so one that never answers does not use it all up.
                async with asyncio.timeout_at(now + max(deadline - now, 0.0) / left):
                    return await self._connect_to(addresses[-left], origin, context)
            except OSError as error:
                if _has_no_port(error, addresses[-left]):
                    raise OutboundShortage(f"no connection can be made from here: {_reason(error)}") from error
                # An address that speaks TLS was the right one; and what is lacking here is lacking for the next, too.
                if left == 1 or isinstance(error, ssl.SSLError) or _is_ours(error):
                    raise
        raise OutboundUnreached(f"the name {origin.host} cannot be resolved")

    async def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = await run_in_thread(default_ssl_context)
            except RuntimeError:
                raise OutboundShortage("there is no thread to read the certificate authorities") from None
        return self._context

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = [host] if _is_literal(host) else await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and _is_ours(error):
                raise
            raise OutboundUnreached(f"the name {host} cannot be resolved") from None
        for address in addresses:
            self._guard.check_address(host, address)
        return addresses


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_ours(error: OSError) -> bool:
    return error.errno in _OURS and not isinstance(error, ssl.SSLError | socket.gaierror)


def _has_no_port(error: OSError, address: str) -> bool:
    """Whether all ports are taken. Of IPv6 the same error says that this machine does not have it, and that does not pass."""
    return error.errno == errno.EADDRNOTAVAIL and ":" not in address


def _reason(error: OSError) -> str:
    """The system's words for it, or TLS's; asyncio's own repeat the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not good: {error.verify_message}; attempts go on, because certificates are renewed"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    return os.strerror(error.errno) if error.errno else "the other side cannot be reached"
