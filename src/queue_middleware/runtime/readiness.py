"""Whether this process can serve requests, for health checks of load balancers and orchestrators."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum

from queue_middleware.errors import DiskFull, NotRunning, QueueError
from queue_middleware.events import Emit
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.stores import Database

from .lifecycle import Lifecycle
from .supervisor import Supervisor

Ready = Callable[[], Awaitable[bool]]
"""The option `ready`: whether the application itself is ready."""

_LIMIT = 2.0
"""Seconds for the write to the database, and for `ready`; what takes longer is not ready."""
_GRACE = 0.5
"""Seconds for `ready` to end after its cancellation. Callers do not wait for one that goes on."""


class Reason(StrEnum):
    """Why a process is not ready. The words are documented; a response has nothing else."""

    STOPPING = "stopping"
    NOT_RUNNING = "not_running"
    STORE = "store"
    """Nothing can be written to the database."""
    DISK = "disk"
    """Free disk space is below the floor (option `min_free_disk`)."""
    APPLICATION = "application"
    """`ready` of the application says no, fails, or takes too long."""


class Readiness:
    """Checks one queue. Callers at the same time share one check, because anyone may call it as often as they like."""

    def __init__(self, lifecycle: Lifecycle, ready: Ready | None, emit: Emit) -> None:
        self._lifecycle = lifecycle
        self._ready = ready
        self._errors = ErrorStreak("ready", emit)
        self._checking: asyncio.Task[list[Reason]] | None = None

    async def reasons(self) -> list[Reason]:
        """Why this process is not ready; empty if it is."""
        try:
            self._lifecycle.check_running()
            services = self._lifecycle.services
        except NotRunning:
            return [Reason.STOPPING if self._lifecycle.is_stopping else Reason.NOT_RUNNING]
        loop, checking = asyncio.get_running_loop(), self._checking
        if checking is None or checking.done() or checking.get_loop() is not loop:  # started again in another event loop
            self._checking = checking = loop.create_task(self._check(services), name="queue-readiness")
        await asyncio.wait((checking,), timeout=_LIMIT + _GRACE)
        return checking.result() if checking.done() else [Reason.APPLICATION]

    async def _check(self, services: Supervisor) -> list[Reason]:
        store, is_ready = await asyncio.gather(_storage_reason(services.stores.database), self._is_application_ready())
        reasons = [Reason.STOPPING] if services.status_feed.stopped else []
        reasons += [store] if store is not None else []
        return reasons if is_ready else [*reasons, Reason.APPLICATION]

    async def _is_application_ready(self) -> bool:
        if self._ready is None:
            return True
        try:
            async with asyncio.timeout(_LIMIT):
                is_ready = bool(await self._ready())
        except (Exception, asyncio.CancelledError) as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # A cancellation comes from within: `ready` waits for something that was cancelled.
            self._errors.met(error, 0)
            return False
        self._errors.over()
        return is_ready


async def _storage_reason(database: Database) -> Reason | None:
    if database.storage_error() is not None:
        return Reason.STORE
    if database.disk_is_low:
        return Reason.DISK
    try:
        async with asyncio.timeout(_LIMIT):
            await database.check_writable()
    except DiskFull:
        return Reason.DISK
    except (QueueError, TimeoutError):
        return Reason.STORE
    return None
