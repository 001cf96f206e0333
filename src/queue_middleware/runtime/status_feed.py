"""Feed of job states for status streams: after a commit, one read of the database serves all followed requests.

A slow subscriber never delays others: it sees the latest state, not a backlog of older ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from queue_middleware.events import Emit, ErrorStreak
from queue_middleware.jobs.models import JobSnapshot
from queue_middleware.jobs.states import FINAL, IN_QUEUE
from queue_middleware.jobs.store import JobStore, Topic

_PAUSE = 0.02
"""Seconds between two reads, however much is committed meanwhile."""
_PAUSE_EACH = 0.0001
"""Seconds added for each followed request: a thousand of them are read ten times a second."""
_POSITIONS_PAUSE = 0.1
"""Seconds between two reads of queue positions. One change moves all positions behind it, so they cost more than the rest."""
_POSITIONS_PAUSE_EACH = 0.001
"""Seconds for each queued request, which bounds the position events per second of all streams together."""
_READ_BATCH = 64
"""Requests in one read of the database; between two reads, other reads get their turn."""
_OUTAGE_PAUSE = 1.0
"""Seconds between two reads while the database fails."""


class _Followed:
    """A followed request and its subscriptions."""

    __slots__ = ("snapshot", "subscriptions")

    def __init__(self) -> None:
        self.snapshot: JobSnapshot | None = None
        self.subscriptions: set[Subscription] = set()

    def update(self, snapshot: JobSnapshot) -> None:
        """Keep the new state, and wake the subscriptions for which it is a change."""
        known = self.snapshot
        if known is not None and snapshot.job.position is None and snapshot.job.state in IN_QUEUE:
            snapshot = snapshot.replace(job=snapshot.job.replace(position=known.job.position))
        self.snapshot = snapshot
        changed = known is None or known.job != snapshot.job
        has_new_lines = known is None or known.last_line != snapshot.last_line
        for subscription in self.subscriptions:
            if changed or (has_new_lines and subscription.lines):
                subscription.wake()


class Subscription:
    """One subscription to a request. `lines`: whether new log lines count as a change."""

    __slots__ = ("_changed", "_followed", "ended", "lines")

    def __init__(self, followed: _Followed, *, lines: bool) -> None:
        self.lines = lines
        self.ended = False
        """Whether there will be no more changes."""
        self._followed = followed
        self._changed = asyncio.Event()

    @property
    def snapshot(self) -> JobSnapshot:
        """The latest known state of the request."""
        assert self._followed.snapshot is not None, "followed before the request was found"  # noqa: S101
        return self._followed.snapshot

    async def wait(self, timeout: float) -> bool:
        """Wait for a change, at most `timeout` seconds. Returns whether there was one; the end counts as a change."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def mark_seen(self) -> None:
        """Mark the current `snapshot` as seen."""
        self._changed.clear()

    def wake(self) -> None:
        """Report a change."""
        self._changed.set()

    def end(self) -> None:
        """End the subscription. Idempotent."""
        self.ended = True
        self._changed.set()


class StatusFeed:
    """Keeps subscriptions up to date while `run` runs. `stop` ends every subscription at once. Idle without subscriptions."""

    def __init__(self, store: JobStore, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._followed: dict[str, _Followed] = {}
        self._changed = asyncio.Event()
        self._changes = 0
        self._unsubscribe: Callable[[], None] | None = None
        self._positions_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.stopped = False

    async def run(self) -> None:
        """Read the database after commits, until `stop`."""
        errors = ErrorStreak("status feed", self._emit)
        while not self.stopped:
            await self._changed.wait()
            self._changed.clear()
            pause = max(_PAUSE, _PAUSE_EACH * len(self._followed))
            try:
                await self._refresh()
            except Exception as error:
                pause = _OUTAGE_PAUSE
                errors.met(error, pause)
                self._changed.set()
            else:
                errors.over()
            if not self.stopped:
                await asyncio.sleep(pause)

    def stop(self) -> None:
        """End, with every subscription. Idempotent."""
        self.stopped = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        for followed in self._followed.values():
            for subscription in followed.subscriptions:
                subscription.end()

    @asynccontextmanager
    async def follow(self, request_id: str, *, lines: bool = False) -> AsyncIterator[Subscription]:
        """Subscribe to a request, and with `lines` to its log lines. Raises `UnknownRequest`, `BadRequest`."""
        name = request_id.lower()
        followed = self._followed.setdefault(name, _Followed())
        subscription = Subscription(followed, lines=lines)
        followed.subscriptions.add(subscription)
        # Subscribed before reading, so that no commit after the read is missed.
        if self._unsubscribe is None:
            self._unsubscribe = self._store.subscribe(Topic.STATUS, self._on_change)
        changes = self._changes
        try:
            job = await self._store.job(request_id)
            followed.update(JobSnapshot(job, followed.snapshot.last_line if followed.snapshot else 0))
            subscription.mark_seen()
            if changes != self._changes:
                self._changed.set()
            if self.stopped:
                subscription.end()
            yield subscription
        finally:
            followed.subscriptions.discard(subscription)
            if not followed.subscriptions:
                del self._followed[name]
            if not self._followed:
                self._unsubscribe()
                self._unsubscribe = None

    def _on_change(self) -> None:
        self._changes += 1
        self._changed.set()

    # --- reading

    async def _refresh(self) -> None:
        queued: list[_Followed] = []
        others: list[_Followed] = []
        for followed in self._followed.values():
            if followed.snapshot is not None and followed.snapshot.job.state not in FINAL:
                (queued if followed.snapshot.job.state in IN_QUEUE else others).append(followed)
        # A request that has just been queued again has no known position; there are few of those.
        await self._read(others, positions=True)
        await self._read(queued, positions=self._positions_are_due(len(queued)))

    def _positions_are_due(self, queued: int) -> bool:
        now = self._loop.time()
        if now >= self._positions_due:
            self._positions_due = now + max(_POSITIONS_PAUSE, _POSITIONS_PAUSE_EACH * queued)
            return True
        if queued and self._timer is None:
            self._timer = self._loop.call_at(self._positions_due, self._on_time)
        return False

    def _on_time(self) -> None:
        self._timer = None
        self._changed.set()

    async def _read(self, requests: Sequence[_Followed], *, positions: bool) -> None:
        for start in range(0, len(requests), _READ_BATCH):
            by_key = {
                followed.snapshot.job.key: followed for followed in requests[start : start + _READ_BATCH] if followed.snapshot
            }
            for snapshot in await self._store.snapshots(list(by_key), positions=positions):
                by_key.pop(snapshot.job.key).update(snapshot)
            for gone in by_key.values():
                for subscription in gone.subscriptions:
                    subscription.end()
