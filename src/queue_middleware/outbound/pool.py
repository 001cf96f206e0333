"""Keeps HTTP connections that may be used again, for a few seconds and by origin."""

from __future__ import annotations

import asyncio

from .connector import Origin
from .http11 import Connection

_IDLE_TIMEOUT = 5.0
"""Seconds for which an idle connection is kept."""
_MAX_IDLE = 64
"""Idle connections to all origins together."""


class ConnectionPool:
    """Idle connections of one event loop, by scheme, host and port."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Origin, list[tuple[Connection, float]]] = {}
        """With the time at which each is closed."""
        self._count = 0
        self._is_closed = False
        self._sweeping: asyncio.TimerHandle | None = None

    def take(self, origin: Origin) -> Connection | None:
        """The connection that was used last, if it can still be used."""
        idle = self._idle.pop(origin, [])
        while idle:
            connection, until = idle.pop()
            self._count -= 1
            if connection.is_open and until > self._loop.time():
                if idle:
                    self._idle[origin] = idle
                return connection
            connection.abort()
        return None

    def give_back(self, connection: Connection, origin: Origin) -> None:
        """Keep a connection after its exchange if it can be used again, otherwise close it."""
        if not connection.reset() or self._is_closed or self._count >= _MAX_IDLE:
            connection.abort()
            return
        if self._sweeping is None:
            self._sweep_later()
        self._count += 1
        self._idle.setdefault(origin, []).append((connection, self._loop.time() + _IDLE_TIMEOUT))

    def close(self) -> None:
        """Close all idle connections, and from now on those that are given back."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for idle in self._idle.values():
            for connection, _until in idle:
                connection.abort()
        self._idle.clear()

    def _sweep(self) -> None:
        """Close the connections that have been idle for too long, and forget those that the other side closed."""
        self._sweeping = None
        now = self._loop.time()
        for origin, idle in list(self._idle.items()):
            kept = [(connection, until) for connection, until in idle if connection.is_open and until > now]
            for connection, until in idle:
                if not connection.is_open or until <= now:
                    connection.abort()
                    self._count -= 1
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        if self._count:
            self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweeping = self._loop.call_later(_IDLE_TIMEOUT, self._sweep)
