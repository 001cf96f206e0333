"""Connects to hosts: resolves a name once and uses only addresses that the guard allows."""

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
_LOADING = threading.Lock()
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN})
"""Errors that show a shortage in this process or on this machine, whatever the other side is like."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → all addresses of the host, in the order in which they are tried. Raises `OSError`."""


class Origin(Struct, frozen=True):
    """Where a connection leads. With `tls` it is encrypted, and the certificate must be that of `host`."""

    tls: bool
    host: str
    port: int


Connect = Callable[[str, Origin, ssl.SSLContext | None], Awaitable[Connection]]
"""Address, origin and TLS context → a connection to an address that the guard has allowed. Raises `OSError`."""


async def connect(address: str, origin: Origin, context: ssl.SSLContext | None) -> Connection:
    """Connect over TCP with the running event loop."""
    name = origin.host if context is not None else None
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, address, origin.port, ssl=context, server_hostname=name
    )
    return connection


@cache
def _public_authorities() -> ssl.SSLContext:
    """The public certificate authorities, without settings from the environment."""
    return httpx.create_ssl_context(trust_env=False)


def default_ssl_context() -> ssl.SSLContext:
    """The TLS context with the public certificate authorities. The first call blocks for a tenth of a second to read them."""
    with _LOADING:  # several threads may call first, and reading once is enough
        return _public_authorities()


class Connector:
    """Makes connections. `timeout` is in seconds and covers resolving and connecting; at most `CONNECT_TIMEOUT`.

    Without a `context`, `default_ssl_context` is loaded when the first connection needs it, so that a queue that calls no host
    starts without it.
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

        Raises `OutboundUnreached`, `OutboundRefused`, and `OutboundBusy` if this process is the reason.
        """
        failure = f"the name {origin.host} was not resolved in time"
        try:
            async with asyncio.timeout(self._timeout) as limit:
                addresses = await self._resolve_checked(origin.host, origin.port)
                failure = "no connection was made in time"
                return await self._connect_to_one(addresses, origin, limit.when() or 0.0)
        except TimeoutError:
            raise OutboundUnreached(failure) from None
        except OSError as error:
            if _is_shortage(error):
                raise OutboundShortage(f"no connection can be made from here: {_reason(error)}") from error
            raise OutboundUnreached(f"no connection: {_reason(error)}") from error

    async def _connect_to_one(self, addresses: Sequence[str], origin: Origin, deadline: float) -> Connection:
        context = await self._load_context() if origin.tls else None
        for left in range(len(addresses), 0, -1):
            now = self._loop.time()
            try:
                # Each address gets its share of the remaining time, so one that never responds does not use up all of it.
                async with asyncio.timeout_at(now + max(deadline - now, 0.0) / left):
                    return await self._connect_to(addresses[-left], origin, context)
            except OSError as error:
                if _is_out_of_ports(error, addresses[-left]):
                    raise OutboundShortage(f"no connection can be made from here: {_reason(error)}") from error
                # A TLS error means that the address was reached; and a shortage here would affect the next address, too.
                if left == 1 or isinstance(error, ssl.SSLError) or _is_shortage(error):
                    raise
        raise OutboundUnreached(f"the name {origin.host} cannot be resolved")

    async def _load_context(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = await run_in_thread(default_ssl_context)
            except RuntimeError:
                raise OutboundShortage("no thread can be started to read the certificate authorities") from None
        return self._context

    async def _resolve_checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = [host] if _is_literal(host) else await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and _is_shortage(error):
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


def _is_shortage(error: OSError) -> bool:
    return error.errno in _SHORTAGES and not isinstance(error, ssl.SSLError | socket.gaierror)


def _is_out_of_ports(error: OSError, address: str) -> bool:
    """Whether all local ports are in use. For IPv6 the same error means that this machine has no IPv6, which is permanent."""
    return error.errno == errno.EADDRNOTAVAIL and ":" not in address


def _reason(error: OSError) -> str:
    """The text of the operating system or of TLS; asyncio's own texts repeat the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}; attempts continue, because certificates are renewed"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    return os.strerror(error.errno) if error.errno else "the other side cannot be reached"
