"""Background duties of a running queue: renewing leases, rescuing lost jobs, expiring late ones, retention, and warnings."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Collection

from msgspec.structs import astuple

from queue_middleware.background import run_in_thread, wait_for
from queue_middleware.errors import QueueError
from queue_middleware.events import DeliveryDead, Emit, Event, Finished, Operated, OperatorWarning, Rescued
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.jobs.audit import QUEUE, Action
from queue_middleware.jobs.control_store import ControlStore
from queue_middleware.jobs.outcomes import OVERDUE, WAIT_TIMED_OUT
from queue_middleware.jobs.processes import Usage
from queue_middleware.jobs.rescues import GivenUpDelivery
from queue_middleware.jobs.store import JobStore
from queue_middleware.tasks.store import TaskStore

TICK = 1.0
"""Seconds between two checks for lost workers and passed deadlines; a check that finds nothing only reads."""
_PRUNE_EVERY = 60
"""Ticks."""
_PRUNE_BATCH = 500
"""Jobs in one step of retention."""

_RENEWALS_PER_LEASE = 4
_RETRIES_PER_LEASE = 16
"""Renewals in one lease while the database fails: a late renewal has to come before other processes judge this one as lost."""
_JOIN_TIMEOUT = 5.0
"""Seconds that `stop` waits for a renewal in progress."""


class Maintenance:
    """Rescues, expires, prunes and warns. `run` works until soon after `stop`.

    `warnings` returns what the operator should know at the moment, as sentences that stay the same while they apply; it may
    block. `running` returns the tokens of what this process works on. `storage_error` returns why nothing can be stored at the
    moment. `others` are duties of other parts, done at every tick; they may fail.
    """

    def __init__(
        self,
        store: JobStore,
        tasks: TaskStore,
        operations: ControlStore,
        emit: Emit,
        warnings: Callable[[], Collection[str]] = lambda: (),
        running: Callable[[], Collection[int]] = lambda: (),
        storage_error: Callable[[], QueueError | None] = lambda: None,
        others: Collection[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._operations = operations
        self._emit = emit
        self._warnings = warnings
        self._running = running
        self._storage_error = storage_error
        self._frequent = (self.rescue, self.expire, self.time_out, self.end_pauses, *others)
        self._database_errors = ErrorStreak("database", emit)
        self._reported_error = ""
        self._reported_warnings: set[str] = set()
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._ticks_to_prune = 0

    async def run(self) -> None:
        """Work until `stop`."""
        errors = ErrorStreak("maintenance", self._emit)
        while not self._stopping.is_set():
            self._wake.clear()
            self.report_storage_error()
            error = await self._tick()
            if error is not None:
                errors.met(error, TICK)
            else:
                errors.over()
            if not self._stopping.is_set():
                await wait_for(self._wake, TICK)

    def stop(self) -> None:
        """End. Idempotent."""
        self._stopping.set()
        self._wake.set()

    def wake(self) -> None:
        """Do all duties now, retention included: the clock may have moved."""
        self._ticks_to_prune = 0
        self._wake.set()

    async def _tick(self) -> Exception | None:
        """Do each duty, even if another one failed: on a full disk, pruning alone makes the room that the others need."""
        prunes = self._ticks_to_prune <= 0
        self._ticks_to_prune = _PRUNE_EVERY - 1 if prunes else self._ticks_to_prune - 1
        first_error: Exception | None = None
        rarely = (self.warn, self.prune, self._operations.forget_processes) if prunes else ()
        for duty in (*self._frequent, *rarely):
            try:
                await duty()
            except Exception as error:
                first_error = first_error or error
        return first_error

    def report_storage_error(self) -> None:
        """Report why nothing can be stored, once for as long as that is so, even if nothing is being stored. Idempotent."""
        error = self._storage_error()
        if error is None:
            self._reported_error = ""
            self._database_errors.over()
        elif error.detail != self._reported_error:
            self._reported_error = error.detail
            self._database_errors.met(error, TICK)

    async def warn(self) -> None:
        """Report each warning once for as long as it applies. Idempotent."""
        warnings = await run_in_thread(self._warnings)
        for message in warnings:
            if message not in self._reported_warnings:
                self._emit(OperatorWarning(message))
        self._reported_warnings = set(warnings)

    async def rescue(self) -> None:
        """Take over the work of processes that died or whose lease ran out."""
        for rescue in await self._store.rescue(running=self._running()):
            if isinstance(rescue, GivenUpDelivery):
                self._emit(DeliveryDead(*astuple(rescue)))
                continue
            self._emit(Rescued(rescue.request_id, rescue.state, rescue.route))
            if rescue.outcome is not None:
                self._emit(Finished.of(rescue.request_id, rescue.attempt, rescue.outcome, 0.0))

    async def expire(self) -> None:
        """Fail the jobs that did not start before their deadline, in batches that leave room for other writes."""
        while not self._stopping.is_set() and (expired := await self._store.expire()):
            for rescue in expired:
                self._emit(Finished.of(rescue.request_id, 0, OVERDUE, 0.0))

    async def time_out(self) -> None:
        """Fail the jobs that have waited too long for an external service, in batches as well."""
        while not self._stopping.is_set() and (late := await self._tasks.time_out()):
            for rescue in late:
                self._emit(Finished.of(rescue.request_id, 0, WAIT_TIMED_OUT, 0.0))

    async def end_pauses(self) -> None:
        """Delete the pauses whose time is over. Their jobs can start already."""
        for pause in await self._operations.end_pauses():
            self._emit(Operated(QUEUE, Action.RESUME, pause.route, 1))

    async def prune(self) -> None:
        """Delete what is past its retention, step by step, using at most half of the time."""
        while not self._stopping.is_set():
            began = time.monotonic()
            if not await self._store.prune(_PRUNE_BATCH):
                return
            await wait_for(self._stopping, time.monotonic() - began)


class LeaseRenewer:
    """Renews leases from a thread, from `start` to `stop`: a handler that blocks the event loop must not lose its job.

    `held` returns the tokens to renew, and `usage` what the process is busy with, which the list of processes shows; both are
    called in the thread. Only these leases are renewed: a job that was claimed and then forgotten by a defect is rescued after
    one lease. The thread also runs when there is nothing to renew; `leases.DatabaseUptime` explains why.
    """

    def __init__(
        self,
        store: JobStore,
        lease: float,
        emit: Emit,
        held: Callable[[], Collection[int]],
        usage: Callable[[], Usage | None] = lambda: None,
    ) -> None:
        """`lease` in seconds."""
        self._store = store
        self._lease = lease
        self._emit = emit
        self._held = held
        self._usage = usage
        self._quit = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="queue-leases", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """End, and wait a bounded time for a renewal in progress."""
        self._quit.set()
        await run_in_thread(self._thread.join, _JOIN_TIMEOUT)

    def _run(self) -> None:
        pause, errors = self._lease / _RENEWALS_PER_LEASE, ErrorStreak("leases", self._emit_from_thread)
        while not self._quit.wait(pause) and not self._loop.is_closed():
            try:
                self._store.renew(self._held(), self._usage())
            except Exception as error:
                pause = self._lease / _RETRIES_PER_LEASE
                errors.met(error, pause)
            else:
                pause = self._lease / _RENEWALS_PER_LEASE
                errors.over()

    def _emit_from_thread(self, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._emit, event)
