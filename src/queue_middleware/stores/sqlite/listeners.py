"""Who wants to hear of what, and how this process hears of what others commit."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable

from queue_middleware.errors import QueueError
from queue_middleware.store import Topic

from .bells import Bells
from .connection import Connection

_log = logging.getLogger("queue_middleware")

_WATCH = 0.05
"""Seconds between two looks for the commits of other processes."""
_LINGER = 5.0
"""Seconds for which our bell goes on hanging when the last listener to `Topic.STATUS` has gone: the next one soon comes."""


class Listeners:
    """All in the event loop, but for `status_is_wanted`."""

    def __init__(self, bells: Bells) -> None:
        self._bells = bells
        self._listeners: dict[Topic, list[Callable[[], None]]] = {topic: [] for topic in Topic}

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """See `store.Store.subscribe`."""
        self._listeners[topic].append(listener)
        if topic is Topic.STATUS:
            self._bells.hang(lambda: self.tell((Topic.STATUS,)))
        return lambda: self._unsubscribe(topic, listener)

    def _unsubscribe(self, topic: Topic, listener: Callable[[], None]) -> None:
        self._listeners[topic].remove(listener)
        if topic is Topic.STATUS:
            asyncio.get_running_loop().call_later(_LINGER, self._want_quiet)

    def _want_quiet(self) -> None:
        if not self.status_is_wanted:
            self._bells.take_down()

    @property
    def status_is_wanted(self) -> bool:
        """Whether anybody listens to `Topic.STATUS`."""
        return bool(self._listeners[Topic.STATUS])

    def tell(self, topics: Iterable[Topic]) -> None:
        """Call all that listen; one with a defect keeps no other from hearing."""
        for topic in topics:
            for listener in tuple(self._listeners[topic]):
                try:
                    listener()
                except Exception:
                    _log.exception("a listener to %s failed", topic)

    async def watch(self, connection: Connection, is_idle: Callable[[], bool]) -> None:
        """Notice what other processes commit: `PRAGMA data_version` changes with their writes and not with our own.

        `connection` is the one that writes, `is_idle` whether it does not just now; then its transaction looks for itself.
        Whoever listens to `STATUS` hears of it sooner, by a bell.
        """
        seen = None
        while True:
            await asyncio.sleep(_WATCH)
            if not is_idle():
                continue
            try:
                version = await connection.call(_data_version)
            except QueueError:
                continue
            if version != seen:
                seen = version
                self.tell(Topic)


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
