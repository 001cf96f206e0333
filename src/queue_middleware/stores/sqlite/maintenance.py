"""Maintenance of a file for all of its processes: takes over lost work, expires jobs, frees space."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from queue_middleware.background import run_in_thread
from queue_middleware.jobs.models import RescuedJob
from queue_middleware.jobs.rescues import GivenUpDelivery
from queue_middleware.settings import Settings
from queue_middleware.stores.common import future_times, job_queries, jobs, requeueing
from queue_middleware.stores.common.lost_claims import LostCriteria
from queue_middleware.stores.common.pruning import Pruning

from .clocks import Clocks
from .disk import free_bytes
from .disk_reserve import DiskReserve
from .file_watch import FileWatch
from .lease_connection import LeaseConnection
from .locks import dead_owners

_EXTRA_LOST_ATTEMPTS = 3
"""Attempts of a delivery that may be lost with their process, in addition to those of the schedule."""


class FileMaintenance:
    """The maintenance of one store. Each method reads first, and writes only if there is something to do."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        write: Callable[..., Awaitable[Any]],
        read: Callable[[Callable[[Any], Any]], Awaitable[Any]],
        clocks: Clocks,
        leases: LeaseConnection,
        watched: FileWatch,
    ) -> None:
        self._path = path
        self._schedule = settings.webhook_schedule
        self._write = write
        self._read = read
        self._clocks = clocks
        self._leases = leases
        self._watched = watched
        self._pruning = Pruning(write, read, clocks.trusted_now, round(settings.retention * 1000))
        self.reserve = DiskReserve(path, wanted=settings.min_free_disk != 0)

    async def rescue(self, owner: str, running: Collection[int]) -> list[RescuedJob | GivenUpDelivery]:
        """Take over the work of lost processes. `owner` is the present process."""
        dead = await self._read(lambda queries: dead_owners(self._path, owner, job_queries.owners(queries)))
        ended_by = self._leases.ended_by(self._clocks.boot())
        if not dead and not await self._read(lambda queries: job_queries.has_expired_leases(queries, ended_by)):
            return []
        max_attempts = len(self._schedule) + 1 + _EXTRA_LOST_ATTEMPTS
        rescued: list[RescuedJob | GivenUpDelivery] = await self._write(
            requeueing.rescue, (LostCriteria(dead, running, self._leases), max_attempts)
        )
        return rescued

    async def expire(self) -> list[RescuedJob]:
        """Fail jobs whose start deadline has passed."""
        if not await self._read(lambda queries: job_queries.has_overdue_jobs(queries, self._clocks.wall())):
            return []
        expired: list[RescuedJob] = await self._write(jobs.expire, None)
        return expired

    async def prune(self, limit: int) -> int:
        """Delete expired data, and correct times that were stored while the clock was wrong."""
        # Pruning comes first, because on a full disk nothing else can be written before space is freed.
        count = await self._pruning.step(limit)
        now = self._clocks.wall()
        found: future_times.FutureTimes = await self._read(
            lambda queries: future_times.find_future_times(queries, now, self._schedule)
        )
        if found.found_any:
            await self._write(future_times.correct, found)
        if not count:
            self._watched.spare = await self._read(free_bytes)
            await run_in_thread(self.reserve.create)
        return count
