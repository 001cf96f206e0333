"""Tidies up: takes over from lost workers, fails what came too late, deletes what is old enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from .background import aside, rest
from .errors import QueueError
from .events import Announce, Finished, Rescued, Trouble, Warned
from .lifecycle import OVERDUE, UNANSWERED
from .store import Store
from .waitingroom import WaitingRoom

TICK = 1.0
"""Seconds between two looks for lost workers and passed deadlines; a look that finds nothing only reads."""
_PRUNE_EVERY = 60
"""Ticks."""
_BATCH = 500


class Janitor:
    """`run` is its life; it ends soon after `stop`."""

    def __init__(
        self,
        store: Store,
        tasks: WaitingRoom,
        announce: Announce,
        warnings: Callable[[], Collection[str]] = lambda: (),
        running: Callable[[], Collection[int]] = lambda: (),
        complaint: Callable[[], QueueError | None] = lambda: None,
    ) -> None:
        """`warnings`: what the operator should know at the moment, in sentences that stay the same. Blocking.

        `running`: the tokens of what this process works on. `complaint`: why nothing can be stored at the moment.
        """
        self._store = store
        self._tasks = tasks
        self._warnings = warnings
        self._running = running
        self._complaint = complaint
        self._complained = ""
        self._database = Trouble("database", announce)
        self._warned: set[str] = set()
        self._announce = announce
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Look after things until `stop`."""
        ticks = 0
        trouble = Trouble("janitor", self._announce)
        while not self._stopping.is_set():
            self.complain()
            error = await self._look(prunes=ticks % _PRUNE_EVERY == 0)
            if error is not None:
                trouble.met(error, TICK)
            else:
                trouble.over()
            ticks += 1
            await rest(self._stopping, TICK)

    async def _look(self, *, prunes: bool) -> Exception | None:
        """Do each duty, whatever became of the others: on a full disk pruning alone makes the room that they need."""
        failure: Exception | None = None
        for duty in (self.rescue, self.expire, self.time_out, *((self.warn, self.prune) if prunes else ())):
            try:
                await duty()
            except Exception as error:
                failure = failure or error
        return failure

    def stop(self) -> None:
        """End. Repeatable."""
        self._stopping.set()

    def complain(self) -> None:
        """Tell why nothing can be stored, once for as long as it is so, also where nothing wants to be stored. Repeatable."""
        complaint = self._complaint()
        if complaint is None:
            self._complained = ""
            self._database.over()
        elif complaint.detail != self._complained:
            self._complained = complaint.detail
            self._database.met(complaint, TICK)

    async def warn(self) -> None:
        """Tell what the operator should know, each once for as long as it is so. Repeatable."""
        warnings = await aside(self._warnings)
        for message in warnings:
            if message not in self._warned:
                self._announce(Warned(message))
        self._warned = set(warnings)

    async def rescue(self) -> None:
        """Take over from those who died or whose lease ran out."""
        for rescue in await self._store.rescue(running=self._running()):
            self._announce(Rescued(rescue.request_id, rescue.state))
            if rescue.outcome is not None:
                self._announce(Finished(rescue.request_id, rescue.attempt, rescue.outcome, 0.0))

    async def expire(self) -> None:
        """Fail what did not start before its deadline, in batches that leave room for others."""
        while not self._stopping.is_set() and (expired := await self._store.expire()):
            for rescue in expired:
                self._announce(Finished(rescue.request_id, 0, OVERDUE, 0.0))

    async def time_out(self) -> None:
        """Fail what has waited for somebody outside for too long, in batches as well."""
        while not self._stopping.is_set() and (late := await self._tasks.time_out()):
            for rescue in late:
                self._announce(Finished(rescue.request_id, 0, UNANSWERED, 0.0))

    async def prune(self) -> None:
        """Delete what is past its retention, step by step; half of the time is left to others."""
        while not self._stopping.is_set():
            began = time.monotonic()
            if not await self._store.prune(_BATCH):
                return
            await rest(self._stopping, time.monotonic() - began)
