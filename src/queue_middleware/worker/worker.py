"""Runs jobs: claims while slots are free, runs each claim in a task, ends revoked and overdue attempts, drains at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from queue_middleware.asgi.replay import App
from queue_middleware.background import LONGEST_WAIT, OUTAGE_PAUSE
from queue_middleware.events import Emit
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.instrumentation import Instruments
from queue_middleware.jobs.models import Claim, NewJob
from queue_middleware.jobs.processes import Usage
from queue_middleware.jobs.routes import RouteTemplates
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.settings import Settings
from queue_middleware.tasks.store import TaskStore
from queue_middleware.tasks.target import TargetResolver

from .completer import JobCompleter
from .context import WorkerContext
from .early_end import CANCEL_GRACE, DISCONNECT_GRACE, AbortReason
from .executor import JobExecutor
from .instrumented import InstrumentedExecutor
from .log_buffer import LogBufferContext
from .slots import JobSlots
from .starts import Startable, StartQueue


class Worker:
    """At most `settings.concurrency` attempts at once in this process.

    `run` works until `stop`, then drains. `reserve`, `hold` and `release`, in this order, are for the submission of a job that
    is claimed in the same transaction; `starts.Submission` calls the last two.
    """

    def __init__(
        self,
        app: App,
        store: JobStore,
        tasks: TaskStore,
        targets: TargetResolver,
        settings: Settings,
        emit: Emit,
        *,
        routes: RouteTemplates | None = None,
        clock: Callable[[], float] = time.time,
        instruments: Instruments | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        logs = LogBufferContext(store, emit, self._loop, settings.max_logs, clock=clock, meter=meter)
        self._context = WorkerContext(
            app, store, tasks, settings, emit, self._loop, logs, targets, routes or RouteTemplates(), clock=clock, meter=meter
        )
        self._completer = JobCompleter(self._context)
        self._new_attempt: Callable[[Claim, WorkerContext, JobCompleter, JobSlots[JobExecutor]], JobExecutor] = JobExecutor
        if instruments is not None:
            self._new_attempt = partial(InstrumentedExecutor, instruments=instruments)
        self._slots: JobSlots[JobExecutor] = JobSlots(settings.concurrency, self._on_free_slot)
        self._starts = StartQueue(self._loop, copy_context())
        self._store = store
        self._settings = settings
        self._emit = emit
        self._is_stopping = False
        self._is_hurried = False
        self._may_have_work = True
        self._wake = asyncio.Event()
        self._revoked = asyncio.Event()
        self._vacant = asyncio.Event()
        self.handed_back = 0
        """How many jobs the end of the worker has handed back."""
        store.subscribe(Topic.WORK, self._on_work)
        store.subscribe(Topic.CANCEL, self._revoked.set)

    def set_app_context(self, state: Mapping[str, Any] | None, variables: Context) -> None:
        """Take over what the application prepared at its start: the lifespan's state and its context variables."""
        self._context.state = state
        self._starts.variables = variables

    async def run(self) -> None:
        """Claim and run until `stop`, then drain, then hand back what is left."""
        self._context.worker_task = asyncio.current_task()
        watching = [self._loop.create_task(watch()) for watch in (self._watch_revocations, self._watch_deadlines)]
        try:
            await self._claim_until_stopped()
            await self._drain()
        finally:
            for task in watching:
                task.cancel()
            for attempt in (*self._slots.running.values(), *self._slots.overstaying):
                attempt.abandon()

    def tokens(self) -> list[int]:
        """The tokens of the running attempts; may be called from another thread."""
        return self._slots.tokens()

    def usage(self) -> Usage:
        """How many slots are in use; may be called from another thread."""
        running = list(self._slots.running.values())
        ended = sum(attempt.is_settled and attempt.abort_reason is not None for attempt in running)
        return Usage(len(running), ended + len(self._slots.overstaying))

    def stop(self) -> None:
        """Claim nothing more. Idempotent."""
        self._is_stopping = True
        self._wake.set()

    def wake(self) -> None:
        """Claim what is due now: the clock may have moved."""
        self._on_work()

    def hurry(self) -> None:
        """Stop waiting for running attempts while draining: hand them back. Idempotent."""
        self._is_hurried = True
        self._vacant.set()

    # --- attempts

    def reserve(self, job: NewJob) -> bool:
        """Reserve a slot for a job that is being submitted. After True, call `hold`."""
        return not self._is_stopping and self._slots.reserve(job)

    def hold(self, claim: Claim | None) -> JobExecutor | None:
        """Occupy the reserved slot with the claim, whose attempt begins after `let_begin`; without a claim, free the slot."""
        self._slots.unreserve()
        if claim is None:
            self._on_free_slot()
            return None
        attempt = self._take(claim)
        self._starts.hold(attempt)
        return attempt

    def let_begin(self, attempt: Startable) -> None:
        """Let the attempt begin. Idempotent."""
        self._starts.let_begin(attempt)

    def _take(self, claim: Claim) -> JobExecutor:
        attempt = self._new_attempt(claim, self._context, self._completer, self._slots)
        self._slots.occupy(attempt)
        if self._is_stopping:
            attempt.abort(AbortReason.SHUTDOWN)
        return attempt

    def _on_free_slot(self) -> None:
        if self._may_have_work:
            self._wake.set()
        if self._slots.are_empty:
            self._vacant.set()

    # --- claiming

    def _on_work(self) -> None:
        self._may_have_work = True
        self._wake.set()

    async def _claim_until_stopped(self) -> None:
        trouble = ErrorStreak("claim", self._emit)
        while not self._is_stopping:
            self._wake.clear()
            try:
                due = await self._claim()
            except Exception as error:
                trouble.met(error, OUTAGE_PAUSE)
                due = OUTAGE_PAUSE
            else:
                trouble.over()
            timer = None if due is None else self._timer(due)
            await self._wake.wait()
            if timer:
                timer.cancel()

    def _timer(self, due: float) -> asyncio.TimerHandle:
        """Claim when a delayed job is due. A long wait is divided, because the clock may be set meanwhile."""
        if due > LONGEST_WAIT:
            return self._loop.call_later(LONGEST_WAIT, self._wake.set)
        return self._loop.call_later(due, self._on_work)

    async def _claim(self) -> float | None:
        """Fill the free slots; return the seconds until a delayed job is due."""
        while self._may_have_work and not self._is_stopping:
            reserved = self._slots.reserve_for_queue()
            if not reserved:
                return None
            self._may_have_work = False
            try:
                claims = await self._store.claim(reserved)
            except BaseException:
                self._may_have_work = True
                raise
            finally:
                self._slots.unreserve(reserved)
            self._may_have_work |= len(claims) == reserved
            for claim in claims:
                # Started like a claim of a submission, because it may be the claim of a job that was committed a moment ago.
                self._starts.enqueue(self._take(claim))
        return await self._store.next_due(Topic.WORK)

    # --- revocations and deadlines

    # Each step is a function of its own: a variable of a loop that waits would keep an attempt that is over.

    async def _watch_revocations(self) -> None:
        trouble = ErrorStreak("revocations", self._emit)
        while True:
            await self._revoked.wait()
            self._revoked.clear()
            try:
                await self._abort_revoked()
            except Exception as error:
                trouble.met(error, OUTAGE_PAUSE)
                self._loop.call_later(OUTAGE_PAUSE, self._revoked.set)
            else:
                trouble.over()

    async def _abort_revoked(self) -> None:
        """Abort the attempts that are to be cancelled, and those whose claim is no longer held."""
        before = list(self._slots.running.values())
        held = await self._store.running_claims() if before else {}
        for attempt in before:
            cancelling = held.get((attempt.claim.key, attempt.claim.token))
            if cancelling is None:
                attempt.abort(AbortReason.LOST)
            elif cancelling:
                attempt.abort(AbortReason.CANCELLED)

    async def _watch_deadlines(self) -> None:
        """One clock for all attempts: a timer for each would cost more than many handlers do."""
        tick = min(0.25, self._settings.request_timeout / 4)
        trouble = ErrorStreak("deadlines", self._emit)
        while True:
            await asyncio.sleep(tick)
            try:
                self._check_deadlines(self._loop.time())
            except Exception as error:
                trouble.met(error, tick)
            else:
                trouble.over()

    def _check_deadlines(self, now: float) -> None:
        self._starts.let_overdue_begin(now)
        for attempt in list(self._slots.running.values()):
            attempt.check_deadline(now)

    # --- ending

    async def _drain(self) -> None:
        """Wait for the running attempts; then abort them, and hand back the jobs of those that do not end."""
        if await self._vacated(self._settings.shutdown_timeout):
            return
        self.handed_back = sum(not attempt.is_settled for attempt in self._slots.running.values())
        for attempt in list(self._slots.running.values()):
            attempt.abort(AbortReason.SHUTDOWN)
        if self.handed_back and not await self._vacated(DISCONNECT_GRACE + CANCEL_GRACE):
            settling = [attempt.settle_aborted() for attempt in self._slots.running.values()]
            if pending := [task for task in settling if task is not None]:
                await asyncio.wait(pending, timeout=CANCEL_GRACE)

    async def _vacated(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while not self._slots.are_empty and not self._is_hurried:
                    self._vacant.clear()
                    await self._vacant.wait()
        except TimeoutError:
            return False
        return self._slots.are_empty
