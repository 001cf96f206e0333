"""Prevents a process from writing after its file is gone or another release has migrated the schema."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine

from queue_middleware.errors import Outdated, QueueError

from .file_watch import FileWatch
from .sql.schema import check_schema
from .transaction import SQLiteQueueCounters


class WriteGuard:
    """Checks each write transaction. `on_outdated` is called once, in the event loop, when the schema is of another release."""

    def __init__(self, watched: FileWatch, on_outdated: Callable[[], Coroutine[None, None, None]]) -> None:
        self._watched = watched
        self._on_outdated = on_outdated
        self._loop = asyncio.get_running_loop()
        self._leaving: asyncio.Task[None] | None = None
        self._outdated: Outdated | None = None

    @property
    def error(self) -> QueueError | None:
        """Why nothing can be stored, as of the last check; None while storing works. Does no I/O."""
        return self._watched.error or self._outdated

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise an error if a transaction must not be written. For transactions that do not use `SQLiteQueueCounters`."""
        self._watched.check()
        try:
            check_schema(connection)
        except Outdated as outdated:
            self._notice(outdated)
            raise

    def refresh_and_check(self, counters: SQLiteQueueCounters, connection: sqlite3.Connection) -> bool:
        """Refresh the counters; raise an error if the schema is of another release."""
        try:
            return counters.refresh(connection)
        except Outdated as outdated:
            self._notice(outdated)
            raise

    def _notice(self, outdated: Outdated) -> None:
        """Start `on_outdated` in the event loop. Called in the threads that write."""
        if self._outdated is None:
            self._outdated = outdated
            with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._start_leaving)

    def _start_leaving(self) -> None:
        self._leaving = self._loop.create_task(self._on_outdated(), name="queue-store-leaving")

    async def close(self) -> None:
        """Wait for `on_outdated` if it was called."""
        if self._leaving is not None:
            await asyncio.wait((self._leaving,))
