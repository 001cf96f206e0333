"""Runs jobs: takes claims while slots are free, gives each a task, watches over leases, and drains at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from typing import Any

from .attempt import GRACE, POLITE, Abort, Attempt
from .background import LOOK_AGAIN, OUTAGE_PAUSE
from .events import Announce, Trouble
from .logbook import Shelf
from .models import Claim
from .replay import App
from .settings import Settings
from .starts import Startable, Starts
from .store import Store, Topic
from .surroundings import Surroundings
from .target import Targets
from .waitingroom import WaitingRoom


class Worker:
    """At most `settings.concurrency` attempts at once in this process.

    `run` is the life of the worker: it ends some time after `stop`. `reserve`, `hold` and `release` are for the submission of a
    job that is claimed with it; see `starts.Submission`.
    """

    def __init__(
        self,
        app: App,
        store: Store,
        tasks: WaitingRoom,
        targets: Targets,
        settings: Settings,
        announce: Announce,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        shelf = Shelf(store, announce, self._loop, settings.max_logs)
        self._around = Surroundings(app, store, tasks, settings, announce, self._loop, shelf, targets, clock=clock)
        self._store = store
        self._settings = settings
        self._announce = announce
        self._starts = Starts(self._loop, copy_context())
        self._running: dict[int, Attempt] = {}
        self._overstaying: set[Attempt] = set()
        self._reserved = 0
        self._stopping = False
        self._hurried = False
        self._work_may_wait = True
        self._wake = asyncio.Event()
        self._revoked = asyncio.Event()
        self._vacant = asyncio.Event()
        self.handed_back = 0
        store.subscribe(Topic.WORK, self._on_work)
        store.subscribe(Topic.CANCEL, self._revoked.set)

    def adopt(self, state: Mapping[str, Any] | None, context: Context) -> None:
        """Take over what the application prepared at its start: the lifespan's state and its context variables."""
        self._around.state = state
        self._starts.context = context

    async def run(self) -> None:
        """Claim and run until `stop`, then drain, then hand back what is left."""
        self._around.host = asyncio.current_task()
        watching = [self._loop.create_task(watch()) for watch in (self._watch_revocations, self._watch_deadlines)]
        try:
            await self._claim_until_stopped()
            await self._drain()
        finally:
            for task in watching:
                task.cancel()
            for attempt in (*self._running.values(), *self._overstaying):
                attempt.abandon()

    def tokens(self) -> list[int]:
        """Of the attempts on their way; called from another thread."""
        return list(self._running)

    def stop(self) -> None:
        """Claim nothing more. Repeatable."""
        self._stopping = True
        self._wake.set()

    def wake(self) -> None:
        """Claim what is due now: the clock may have moved."""
        self._on_work()

    def hurry(self) -> None:
        """Wait for nothing any more when draining: what runs is handed back. Repeatable."""
        self._hurried = True
        self._vacant.set()

    # --- slots

    def reserve(self) -> bool:
        """Keep a slot for a job that is being submitted. True obliges to call `hold`."""
        if self._stopping or self._free() <= 0:
            return False
        self._reserved += 1
        return True

    def hold(self, claim: Claim | None) -> Attempt | None:
        """See `starts.Slots`."""
        self._reserved -= 1
        if claim is None:
            self._on_vacancy()
            return None
        attempt = self._take(claim)
        self._starts.hold(attempt)
        return attempt

    def release(self, attempt: Startable) -> None:
        """See `starts.Slots`."""
        self._starts.release(attempt)

    def _free(self) -> int:
        return self._settings.concurrency - len(self._running) - self._reserved

    def _take(self, claim: Claim) -> Attempt:
        """Its slot is taken, and its lease renewed, from now on."""
        attempt = self._running[claim.token] = Attempt(claim, self._around, self._vacate)
        if self._stopping:
            attempt.abort(Abort.SHUTDOWN)
        return attempt

    def _vacate(self, attempt: Attempt, *, still_running: bool = False) -> None:
        """Give a slot back. One that still runs is kept by us all the same: the event loop holds its tasks weakly."""
        if still_running:
            self._overstaying.add(attempt)
        else:
            self._overstaying.discard(attempt)
        if self._running.pop(attempt.claim.token, None) is not None:
            self._on_vacancy()

    def _on_vacancy(self) -> None:
        if self._work_may_wait:
            self._wake.set()
        if not self._running and not self._reserved:
            self._vacant.set()

    # --- claiming

    def _on_work(self) -> None:
        self._work_may_wait = True
        self._wake.set()

    async def _claim_until_stopped(self) -> None:
        trouble = Trouble("claim", self._announce)
        while not self._stopping:
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
        """At that time a delayed job is due; before that we only look again when it is, because the clock may be set."""
        if due > LOOK_AGAIN:
            return self._loop.call_later(LOOK_AGAIN, self._wake.set)
        return self._loop.call_later(due, self._on_work)

    async def _claim(self) -> float | None:
        """Fill the free slots; then the seconds until a delayed job is due."""
        while self._work_may_wait and not self._stopping:
            free = self._free()
            if free <= 0:
                return None
            # Not all of them: what is submitted meanwhile could then not begin at once, would wait, and so on for ever.
            free = (free + 1) // 2
            self._work_may_wait = False
            self._reserved += free
            try:
                claims = await self._store.claim(free)
            except BaseException:
                self._work_may_wait = True
                raise
            finally:
                self._reserved -= free
            self._work_may_wait |= len(claims) == free
            for claim in claims:
                # Like what was claimed with its submission: it may be the claim of a job that was committed a moment ago.
                self._starts.soon(self._take(claim))
        return await self._store.next_due(Topic.WORK)

    # --- watching

    # What they look at are steps of their own: a variable of one that waits would keep an attempt that is long over.

    async def _watch_revocations(self) -> None:
        trouble = Trouble("revocations", self._announce)
        while True:
            await self._revoked.wait()
            self._revoked.clear()
            try:
                await self._look_for_revocations()
            except Exception as error:
                trouble.met(error, OUTAGE_PAUSE)
                self._loop.call_later(OUTAGE_PAUSE, self._revoked.set)
            else:
                trouble.over()

    async def _look_for_revocations(self) -> None:
        """Cancel what is to be cancelled, and stop what is no longer ours."""
        before = list(self._running.values())
        held = await self._store.held() if before else {}
        for attempt in before:
            cancelling = held.get((attempt.claim.key, attempt.claim.token))
            if cancelling is None:
                attempt.abort(Abort.LOST)
            elif cancelling:
                attempt.abort(Abort.CANCELLED)

    async def _watch_deadlines(self) -> None:
        """One clock for all attempts: a timer for each would cost more than many a handler."""
        tick = min(0.25, self._settings.request_timeout / 4)
        while True:
            await asyncio.sleep(tick)
            self._check_deadlines(self._loop.time())

    def _check_deadlines(self, now: float) -> None:
        self._starts.release_late(now)
        for attempt in list(self._running.values()):
            attempt.check_deadline(now)

    # --- ending

    async def _drain(self) -> None:
        """Wait for the running attempts; then tell them to stop, and hand back the jobs of those that do not."""
        if await self._vacated(self._settings.shutdown_timeout):
            return
        self.handed_back = sum(not attempt.is_settled for attempt in self._running.values())
        for attempt in list(self._running.values()):
            attempt.abort(Abort.SHUTDOWN)
        if self.handed_back and not await self._vacated(POLITE + GRACE):
            settling = [attempt.settle_abort() for attempt in self._running.values()]
            if pending := [task for task in settling if task is not None]:
                await asyncio.wait(pending, timeout=GRACE)

    async def _vacated(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while (self._running or self._reserved) and not self._hurried:
                    self._vacant.clear()
                    await self._vacant.wait()
        except TimeoutError:
            return False
        return not self._running and not self._reserved
