"""Maintenance for all processes on a file: takes over lost work, expires jobs, frees space."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from queue_middleware.background import run_in_thread
from queue_middleware.jobs.models import RescuedJob
from queue_middleware.settings import Settings
from queue_middleware.stores.common import future_times, job_queries, jobs, returns
from queue_middleware.stores.common.leases import Lost
from queue_middleware.stores.common.pruning import Pruning

from .clocks import Clocks
from .disk import free_bytes
from .disk_reserve import DiskReserve
from .file_watch import FileWatch
from .leases import Leases
from .locks import dead_owners

_LOST_BESIDES = 3
"""Attempts at a delivery that may be lost with their process, over and above those of the schedule."""


class Maintenance:
    """Of one store. `write` and `read` are the store's; what is looked for first is only read."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        write: Callable[..., Awaitable[Any]],
        read: Callable[[Callable[[Any], Any]], Awaitable[Any]],
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
        self.reserve = DiskReserve(path, wanted=settings.min_free_disk != 0)

    async def rescue(self, owner: str, running: Collection[int]) -> list[RescuedJob]:
        """Take over the jobs of lost workers, in the name of `owner`."""
        dead = await self._read(lambda queries: dead_owners(self._path, owner, job_queries.owners(queries)))
        ended_by = self._leases.ended_by(self._clocks.boot())
        if not dead and not await self._read(lambda queries: job_queries.leases_ran_out(queries, ended_by)):
            return []
        most = len(self._schedule) + 1 + _LOST_BESIDES
        rescued: list[RescuedJob] = await self._write(returns.rescue, (Lost(dead, running, self._leases), most))
        return rescued

    async def expire(self) -> list[RescuedJob]:
        """Fail jobs whose start deadline has passed."""
        if not await self._read(lambda queries: job_queries.anything_overdue(queries, self._clocks.wall())):
            return []
        expired: list[RescuedJob] = await self._write(jobs.expire, None)
        return expired

    async def prune(self, limit: int) -> int:
        """Delete expired data, and repair times that a wrong clock has set."""
        # First, because on a full disk nothing else can be written before it has made room.
        count = await self._pruning.step(limit)
        now = self._clocks.wall()
        put_off: future_times.Ahead = await self._read(lambda queries: future_times.ahead(queries, now, self._schedule))
        if put_off.is_any:
            await self._write(future_times.bring_back, put_off)
        if not count:
            self._watched.spare = await self._read(free_bytes)
            await run_in_thread(self.reserve.keep)
        return count
