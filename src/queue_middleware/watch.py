"""Tells those who follow a request what becomes of it: one look at the database for all of them, after something was committed.

Nobody is asked to wait for it: a follower that is slow meets the latest state, not a queue of old ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from .events import Emit, ErrorStreak
from .models import Glance
from .states import FINAL, IN_QUEUE
from .store import Store, Topic

_PAUSE = 0.02
"""Seconds between two looks, however much is committed meanwhile."""
_PAUSE_EACH = 0.0001
"""Seconds more of it for each request that is followed: a thousand of them are looked at ten times a second."""
_POSITIONS = 0.1
"""Seconds between two looks at positions. A place in the queue changes with everybody's, and costs more than all the rest."""
_POSITIONS_EACH = 0.001
"""Seconds of it for each waiting request: that many events in a second, together, are what moving up in the queue may cost."""
_SLICE = 64
"""Requests in one look at the database; in between others have their turn."""
_OUTAGE = 1.0


class _Watched:
    """A request that is followed, and by whom."""

    __slots__ = ("followers", "glance")

    def __init__(self) -> None:
        self.glance: Glance | None = None
        self.followers: set[Follower] = set()

    def learn(self, glance: Glance) -> None:
        """Take over how it stands, and wake those to whom that is new."""
        known = self.glance
        if known is not None and glance.job.position is None and glance.job.state in IN_QUEUE:
            glance = glance.replace(job=glance.job.replace(position=known.job.position))
        self.glance = glance
        changed = known is None or known.job != glance.job
        said_more = known is None or known.lines != glance.lines
        for follower in self.followers:
            if changed or (said_more and follower.lines):
                follower.wake()


class Follower:
    """One who follows a request. `lines`: whether log lines are news."""

    __slots__ = ("_news", "_watched", "ended", "lines")

    def __init__(self, watched: _Watched, *, lines: bool) -> None:
        self.lines = lines
        self.ended = False
        """Nothing more will be heard here."""
        self._watched = watched
        self._news = asyncio.Event()

    @property
    def glance(self) -> Glance:
        """How the request stands, as far as is known here."""
        assert self._watched.glance is not None, "followed before it was found"  # noqa: S101
        return self._watched.glance

    async def news(self, patience: float) -> bool:
        """Wait for news, at most `patience` seconds; whether there were any. The end is one."""
        try:
            async with asyncio.timeout(patience):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def catch_up(self) -> None:
        """What `glance` shows is known."""
        self._news.clear()

    def wake(self) -> None:
        """There are news."""
        self._news.set()

    def end(self) -> None:
        """Follow no longer. Repeatable."""
        self.ended = True
        self._news.set()


class Watch:
    """`run` is its life; it ends soon after `stop`, and every follower at once. Without followers it costs nothing."""

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, _Watched] = {}
        self._news = asyncio.Event()
        self._heard = 0
        self._unsubscribe: Callable[[], None] | None = None
        self._positions_from = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.stopped = False

    async def run(self) -> None:
        """Look whenever there is something to see, until `stop`."""
        trouble = ErrorStreak("watch", self._emit)
        while not self.stopped:
            await self._news.wait()
            self._news.clear()
            pause = max(_PAUSE, _PAUSE_EACH * len(self._watched))
            try:
                await self._look()
            except Exception as error:
                pause = _OUTAGE
                trouble.met(error, pause)
                self._news.set()
            else:
                trouble.over()
            if not self.stopped:
                await asyncio.sleep(pause)

    def stop(self) -> None:
        """End, and let every follower end. Repeatable."""
        self.stopped = True
        self._news.set()
        if self._timer is not None:
            self._timer.cancel()
        for watched in self._watched.values():
            for follower in watched.followers:
                follower.end()

    @asynccontextmanager
    async def follow(self, request_id: str, *, lines: bool = False) -> AsyncIterator[Follower]:
        """Follow a request, and with `lines` what is said while it is worked on. Raises `UnknownRequest`, `BadRequest`."""
        name = request_id.lower()
        watched = self._watched.setdefault(name, _Watched())
        follower = Follower(watched, lines=lines)
        watched.followers.add(follower)
        # Listening before reading: what is committed after that is heard.
        if self._unsubscribe is None:
            self._unsubscribe = self._store.subscribe(Topic.STATUS, self._on_news)
        heard = self._heard
        try:
            job = await self._store.job(request_id)
            watched.learn(Glance(job, watched.glance.lines if watched.glance else 0))
            follower.catch_up()
            if heard != self._heard:
                self._news.set()
            if self.stopped:
                follower.end()
            yield follower
        finally:
            watched.followers.discard(follower)
            if not watched.followers:
                del self._watched[name]
            if not self._watched:
                self._unsubscribe()
                self._unsubscribe = None

    def _on_news(self) -> None:
        self._heard += 1
        self._news.set()

    # --- looking

    async def _look(self) -> None:
        waiting: list[_Watched] = []
        others: list[_Watched] = []
        for watched in self._watched.values():
            if watched.glance is not None and watched.glance.job.state not in FINAL:
                (waiting if watched.glance.job.state in IN_QUEUE else others).append(watched)
        # Of one that was not waiting and does so now no position is known; there are few of those.
        await self._look_at(others, positions=True)
        await self._look_at(waiting, positions=self._may_look_at_positions(len(waiting)))

    def _may_look_at_positions(self, waiting: int) -> bool:
        now = self._loop.time()
        if now >= self._positions_from:
            self._positions_from = now + max(_POSITIONS, _POSITIONS_EACH * waiting)
            return True
        if waiting and self._timer is None:
            self._timer = self._loop.call_at(self._positions_from, self._on_time)
        return False

    def _on_time(self) -> None:
        self._timer = None
        self._news.set()

    async def _look_at(self, several: Sequence[_Watched], *, positions: bool) -> None:
        for start in range(0, len(several), _SLICE):
            asked = {watched.glance.job.key: watched for watched in several[start : start + _SLICE] if watched.glance}
            for glance in await self._store.glance(list(asked), positions=positions):
                asked.pop(glance.job.key).learn(glance)
            for gone in asked.values():
                for follower in gone.followers:
                    follower.end()
