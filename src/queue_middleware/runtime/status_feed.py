"""Feed of job states for streams and waiting requests: after a commit, one read of the database serves all followed requests.

A slow subscriber never delays others: it sees the latest state, not a backlog of older ones.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from queue_middleware.events import Emit
from queue_middleware.events.error_streak import ErrorStreak
from queue_middleware.jobs.models import Job, JobSnapshot, JobState
from queue_middleware.jobs.states import FINAL, IN_QUEUE
from queue_middleware.jobs.store import JobStore, Topic

_PAUSE = 0.02
"""Seconds between two reads for streams, however much is committed meanwhile."""
_PAUSE_EACH = 0.0001
"""Seconds added for each followed request: a thousand of them are read ten times a second."""
_POSITIONS_PAUSE = 0.1
"""Seconds between two reads of queue positions. One change moves all positions behind it, so they cost more than the rest."""
_POSITIONS_PAUSE_EACH = 0.001
"""Seconds for each queued request, which bounds the position events per second of all streams together."""
_STATES_PAUSE = 0.005
"""Seconds between two comparisons of states. They read little, so that a client that waits gets its response at once."""
_STATES_PAUSE_EACH = 0.000005
"""Seconds for each request whose state is compared, about ten times what the comparison takes."""
_READ_BATCH = 64
"""Requests in one read of the database; between two reads, other reads get their turn."""
_STATES_BATCH = 512
"""Requests in one comparison of states."""
_OUTAGE_PAUSE = 1.0
"""Seconds between two reads while the database fails."""


class _Followed:
    """A followed request and its subscriptions."""

    __slots__ = ("snapshot", "states_only", "subscriptions")

    def __init__(self) -> None:
        self.snapshot: JobSnapshot | None = None
        self.subscriptions: set[Subscription] = set()
        self.states_only = 0
        """The number of subscriptions to its state only."""

    def add(self, subscription: Subscription) -> None:
        """Add a new subscription."""
        self.subscriptions.add(subscription)
        self.states_only += subscription.states_only

    def discard(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        self.subscriptions.discard(subscription)
        self.states_only -= subscription.states_only

    @property
    def needs_details(self) -> bool:
        """Whether a subscription is not only to its state."""
        return len(self.subscriptions) > self.states_only

    def update(self, snapshot: JobSnapshot) -> None:
        """Keep the new state, and wake the subscriptions for which it is a change."""
        known = self.snapshot
        if known is not None and snapshot.job.position is None and snapshot.job.state in IN_QUEUE:
            snapshot = snapshot.replace(job=snapshot.job.replace(position=known.job.position))
        self.snapshot = snapshot
        changed = known is None or known.job != snapshot.job
        has_new_state = known is None or _state_of(known.job) != _state_of(snapshot.job)
        has_new_lines = known is None or known.last_line != snapshot.last_line
        for subscription in self.subscriptions:
            if has_new_state or (not subscription.states_only and (changed or (has_new_lines and subscription.lines))):
                subscription.wake()


class Subscription:
    """One subscription to a request.

    `lines`: whether new log lines count as a change. `states_only`: whether only the state and the attempt do.
    """

    __slots__ = ("_changed", "_followed", "ended", "lines", "states_only")

    def __init__(self, followed: _Followed, *, lines: bool, states_only: bool) -> None:
        self.lines = lines
        self.states_only = states_only
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


class _Interval:
    """Limits how often something is read, and reports when a read that it has put off is due."""

    def __init__(self, pause: float, pause_each: float, on_due: Callable[[], None]) -> None:
        self._pause = pause
        self._pause_each = pause_each
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def allows(self, count: int) -> bool:
        """Whether a read of `count` requests may begin now."""
        if not count:
            return False
        now = self._loop.time()
        if now >= self._due:
            self._due = now + max(self._pause, self._pause_each * count)
            return True
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._on_time)
        return False

    def close(self) -> None:
        """Report nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _on_time(self) -> None:
        self._timer = None
        self._on_due()


class StatusFeed:
    """Keeps subscriptions up to date while `run` runs. `stop` ends every subscription at once. Idle without subscriptions."""

    def __init__(self, store: JobStore, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._followed: dict[str, _Followed] = {}
        self._states_only = 0
        """The number of subscriptions to states only."""
        self.streams = 0
        """The number of other subscriptions, which are those of status streams. May be read from another thread."""
        self._changed = asyncio.Event()
        self._changes = 0
        self._unsubscribe: Callable[[], None] | None = None
        self._details = _Interval(_PAUSE, _PAUSE_EACH, self._changed.set)
        self._positions = _Interval(_POSITIONS_PAUSE, _POSITIONS_PAUSE_EACH, self._changed.set)
        self.stopped = False

    async def run(self) -> None:
        """Read the database after commits, until `stop`."""
        errors = ErrorStreak("status feed", self._emit)
        while not self.stopped:
            await self._changed.wait()
            self._changed.clear()
            each, least = (_STATES_PAUSE_EACH, _STATES_PAUSE) if self._states_only else (_PAUSE_EACH, _PAUSE)
            pause = max(least, each * len(self._followed))
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
        self._details.close()
        self._positions.close()
        for followed in self._followed.values():
            for subscription in followed.subscriptions:
                subscription.end()

    @asynccontextmanager
    async def follow(self, request_id: str, *, lines: bool = False, states_only: bool = False) -> AsyncIterator[Subscription]:
        """Subscribe to a request, with `lines` also to its log lines, or to its state only.

        Raises `UnknownRequest`, `BadRequest`.
        """
        name = request_id.lower()
        followed = self._followed.setdefault(name, _Followed())
        subscription = Subscription(followed, lines=lines, states_only=states_only)
        followed.add(subscription)
        self._states_only += states_only
        self.streams += not states_only
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
            followed.discard(subscription)
            self._states_only -= states_only
            self.streams -= not states_only
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
        by_state: dict[tuple[JobState, int], list[_Followed]] = defaultdict(list)
        for followed in self._followed.values():
            if followed.snapshot is None or followed.snapshot.job.state in FINAL:
                continue
            if followed.states_only:
                by_state[_state_of(followed.snapshot.job)].append(followed)
            if followed.needs_details:
                (queued if followed.snapshot.job.state in IN_QUEUE else others).append(followed)
        for (state, attempt), waited_for in by_state.items():
            await self._compare(waited_for, state, attempt)
        if self._details.allows(len(queued) + len(others)):
            # A request that has just been queued again has no known position; there are few of those.
            await self._read(others, positions=True)
            await self._read(queued, positions=self._positions.allows(len(queued)))

    async def _compare(self, requests: Sequence[_Followed], state: JobState, attempt: int) -> None:
        """Read the requests whose state or attempt is not this one any more."""
        for start in range(0, len(requests), _STATES_BATCH):
            by_key = _by_key(requests[start : start + _STATES_BATCH])
            changed = await self._store.changed(list(by_key), state, attempt)
            await self._read([by_key[key] for key in changed], positions=False)

    async def _read(self, requests: Sequence[_Followed], *, positions: bool) -> None:
        for start in range(0, len(requests), _READ_BATCH):
            by_key = _by_key(requests[start : start + _READ_BATCH])
            for snapshot in await self._store.snapshots(list(by_key), positions=positions):
                by_key.pop(snapshot.job.key).update(snapshot)
            for gone in by_key.values():
                for subscription in gone.subscriptions:
                    subscription.end()


def _state_of(job: Job) -> tuple[JobState, int]:
    """What decides the status of a request in every protocol."""
    return job.state, job.attempt


def _by_key(requests: Sequence[_Followed]) -> dict[int, _Followed]:
    return {followed.snapshot.job.key: followed for followed in requests if followed.snapshot}
