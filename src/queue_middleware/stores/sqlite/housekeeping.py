"""What a store does for all processes on its file: it takes over lost work, ends what came too late, and frees space."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from queue_middleware.background import aside
from queue_middleware.models import Rescue
from queue_middleware.settings import Settings

from . import ahead, jobs, reading, returns
from .clocks import Clocks
from .filewatch import FileWatch
from .leases import Leases, Lost
from .locks import dead_owners
from .pruning import Pruning
from .reserve import Reserve

_LOST_BESIDES = 3
"""Attempts at a delivery that may be lost with their process, over and above those of the schedule."""


class Housekeeping:
    """Of one store. `write` and `read` are the store's; what is looked for first is only read."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        write: Callable[..., Awaitable[Any]],
        read: Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]],
        clocks: Clocks,
        leases: Leases,
        watched: FileWatch,
    ) -> None:
        self._path = path
        self._schedule = settings.webhook_schedule
        self._write = write
        self._read = read
        self._clocks = clocks
        self._leases = leases
        self._watched = watched
        self._pruning = Pruning(write, read, clocks.believed, round(settings.retention * 1000))
        self.reserve = Reserve(path, wanted=settings.min_free_disk != 0)

    async def rescue(self, owner: str, running: Collection[int]) -> list[Rescue]:
        """See `store.Store`; `owner` is the one that asks."""
        dead = await self._read(lambda connection: dead_owners(self._path, owner, reading.owners(connection)))
        ended_by = self._leases.ended_by(self._clocks.boot())
        if not dead and not await self._read(lambda connection: reading.leases_ran_out(connection, ended_by)):
            return []
        most = len(self._schedule) + 1 + _LOST_BESIDES
        rescued: list[Rescue] = await self._write(returns.rescue, (Lost(dead, running, self._leases), most))
        return rescued

    async def expire(self) -> list[Rescue]:
        """See `store.Store`."""
        if not await self._read(lambda connection: reading.anything_overdue(connection, self._clocks.wall())):
            return []
        expired: list[Rescue] = await self._write(jobs.expire, None)
        return expired

    async def prune(self, limit: int) -> int:
        """See `store.Store`."""
        # First, because on a full disk nothing else can be written before it has made room.
        count = await self._pruning.step(limit)
        now = self._clocks.wall()
        put_off: ahead.Ahead = await self._read(lambda connection: ahead.ahead(connection, now, self._schedule))
        if put_off.is_any:
            await self._write(ahead.bring_back, put_off)
        if not count:
            self._watched.spare = await self._read(reading.spare)
            await aside(self.reserve.keep)
        return count
