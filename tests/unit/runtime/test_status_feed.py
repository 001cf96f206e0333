"""One watch for all who follow: how often it looks, whom it wakes, and that it costs nothing when nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import pytest

from queue_middleware.errors import StoreError, UnknownRequest
from queue_middleware.events import Event, Recovered, ServiceError
from queue_middleware.jobs.models import Job, JobSnapshot, JobState, Progress
from queue_middleware.jobs.store import Topic
from queue_middleware.runtime import status_feed as module
from queue_middleware.runtime.status_feed import StatusFeed, Subscription
from tests.support.factories import make_job_view

DEADLINE = 5.0


def make_queued_job(key: int, **changes: object) -> Job:
    given = {"state": JobState.QUEUED, "attempt": 0, "position": key, **changes}
    return make_job_view(key=key, request_id=str(UUID(int=key)), **given)


class Shelf:
    """The three verbs of a store that a watch needs, over jobs that a test puts there."""

    def __init__(self, count: int) -> None:
        self.jobs = {key: make_queued_job(key) for key in range(count)}
        self.lines = dict.fromkeys(self.jobs, 0)
        self.looks: list[tuple[int, bool]] = []
        """How many were asked about at once, and whether for positions."""
        self.listener: Callable[[], None] | None = None
        self.broken = False
        self.before_answer: Callable[[], None] = lambda: None

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        assert topic is Topic.STATUS
        assert self.listener is None
        self.listener = listener
        return lambda: setattr(self, "listener", None)

    async def job(self, request_id: str) -> Job:
        job = self.jobs.get(UUID(request_id).int)
        if job is None:
            raise UnknownRequest("there is no such request")
        self.before_answer()
        await asyncio.sleep(0)
        return job

    async def snapshots(self, keys: Sequence[int], *, positions: bool) -> list[JobSnapshot]:
        if self.broken:
            raise StoreError("broken")
        self.looks.append((len(keys), positions))
        await asyncio.sleep(0)
        found = [self.jobs[key] for key in keys if key in self.jobs]
        return [JobSnapshot(job if positions else job.replace(position=None), self.lines[job.key]) for job in found]

    def change(self, key: int, **changes: object) -> None:
        """Commit something."""
        self.jobs[key] = self.jobs[key].replace(**changes)
        self.tell()

    def tell(self) -> None:
        if self.listener is not None:
            self.listener()

    @property
    def looked(self) -> int:
        """How often, with many in slices."""
        return len(self.looks)


class Watching:
    def __init__(self, shelf: Shelf) -> None:
        self.heard: list[Event] = []
        self.watch = StatusFeed(shelf, self.heard.append)  # type: ignore[arg-type]

    async def __aenter__(self) -> StatusFeed:
        self._task = asyncio.create_task(self.watch.run())
        return self.watch

    async def __aexit__(self, *_: object) -> None:
        self.watch.stop()
        async with asyncio.timeout(DEADLINE):
            await self._task


async def follow(stack: AsyncExitStack, watch: StatusFeed, key: int, *, lines: bool = False) -> Subscription:
    return await stack.enter_async_context(watch.follow(str(UUID(int=key)), lines=lines))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_change_wakes_those_who_follow_it_and_nobody_else(stack: AsyncExitStack) -> None:
    shelf = Shelf(3)
    async with Watching(shelf) as watch:
        followers = [await follow(stack, watch, key) for key in (0, 1, 1, 2)]
        shelf.change(1, state=JobState.RUNNING, position=None)
        woken = await asyncio.gather(*[follower.wait(0.1) for follower in followers])
        assert woken == [False, True, True, False]
        assert followers[1].snapshot.job == shelf.jobs[1]


async def test_it_does_not_look_while_nothing_is_told(stack: AsyncExitStack) -> None:
    shelf = Shelf(500)
    async with Watching(shelf) as watch:
        for key in shelf.jobs:
            await follow(stack, watch, key)
        await asyncio.sleep(0.1)
        assert shelf.looks == []


async def test_without_followers_nothing_is_listened_to() -> None:
    shelf = Shelf(2)
    async with Watching(shelf) as watch, AsyncExitStack() as stack:
        assert shelf.listener is None
        one, other = AsyncExitStack(), AsyncExitStack()
        await follow(one, watch, 0)
        await follow(other, watch, 0)
        assert shelf.listener is not None
        await one.aclose()
        assert shelf.listener is not None
        await other.aclose()
        assert shelf.listener is None
        await follow(stack, watch, 1)
        assert shelf.listener is not None


async def test_what_is_told_in_quick_succession_is_one_look(stack: AsyncExitStack) -> None:
    shelf = Shelf(10)
    async with Watching(shelf) as watch:
        for key in shelf.jobs:
            await follow(stack, watch, key)
        loop = asyncio.get_running_loop()
        began = loop.time()
        told = 0
        while loop.time() - began < 0.3:
            shelf.tell()
            told += 1
            await asyncio.sleep(0)
        assert told > 300
        assert 2 <= shelf.looked <= 0.3 / module._PAUSE + 2


async def test_positions_are_looked_at_less_often_the_more_are_followed(stack: AsyncExitStack) -> None:
    shelf = Shelf(600)
    async with Watching(shelf) as watch:
        followers = [await follow(stack, watch, key) for key in shelf.jobs]
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < 0.5:
            shelf.tell()
            await asyncio.sleep(0.001)
        rounds = -(-600 // module._READ_BATCH)
        assert sum(positions for _, positions in shelf.looks) == rounds  # once in 0.6 seconds
        assert max(count for count, _ in shelf.looks) == module._READ_BATCH
        shelf.change(7, position=3)
        assert await followers[7].wait(DEADLINE)
        assert followers[7].snapshot.job.position == 3


async def test_a_position_that_was_passed_over_is_looked_at_later(stack: AsyncExitStack) -> None:
    shelf = Shelf(5)
    async with Watching(shelf) as watch:
        follower = await follow(stack, watch, 4)
        shelf.change(4, position=3)
        assert await follower.wait(DEADLINE)
        shelf.change(4, position=2)  # nothing is told after this one
        assert await follower.wait(DEADLINE)
        assert follower.snapshot.job.position == 2


async def test_who_does_not_wait_is_not_held_up_by_positions(stack: AsyncExitStack) -> None:
    shelf = Shelf(2)
    shelf.jobs[0] = make_queued_job(0, state=JobState.RUNNING, position=None)
    async with Watching(shelf) as watch:
        running, waiting = await follow(stack, watch, 0), await follow(stack, watch, 1)
        for number in range(1, 4):
            shelf.change(0, progress=Progress(number / 10))
            assert await running.wait(DEADLINE)
            assert running.snapshot.job.progress == Progress(number / 10)
        assert waiting.snapshot.job.position == 1
        shelf.change(0, state=JobState.QUEUED, position=0, progress=None)
        assert await running.wait(DEADLINE)
        assert running.snapshot.job == shelf.jobs[0]


async def test_lines_are_news_for_those_who_want_them(stack: AsyncExitStack) -> None:
    shelf = Shelf(1)
    async with Watching(shelf) as watch:
        reader, other = await follow(stack, watch, 0, lines=True), await follow(stack, watch, 0)
        shelf.lines[0] = 5
        shelf.tell()
        assert await reader.wait(DEADLINE)
        assert reader.snapshot.last_line == 5
        assert not await other.wait(0.05)


async def test_what_changes_while_a_follower_arrives_is_not_missed(stack: AsyncExitStack) -> None:
    shelf = Shelf(1)

    def change_behind_the_answer() -> None:
        shelf.before_answer = lambda: None
        shelf.change(0, state=JobState.RUNNING, position=None)

    shelf.before_answer = change_behind_the_answer
    async with Watching(shelf) as watch:
        follower = await follow(stack, watch, 0)
        assert follower.snapshot.job.state is JobState.QUEUED
        while follower.snapshot.job.state is JobState.QUEUED:
            assert await follower.wait(DEADLINE)


async def test_what_is_over_is_not_looked_at(stack: AsyncExitStack) -> None:
    shelf = Shelf(2)
    shelf.jobs[0] = make_queued_job(0, state=JobState.COMPLETED, position=None, status=200, finished_at=1)
    async with Watching(shelf) as watch:
        await follow(stack, watch, 0)
        shelf.tell()
        await asyncio.sleep(0.05)
        assert shelf.looks == []


async def test_one_that_is_gone_ends(stack: AsyncExitStack) -> None:
    shelf = Shelf(2)
    async with Watching(shelf) as watch:
        gone, other = await follow(stack, watch, 0), await follow(stack, watch, 1)
        del shelf.jobs[0]
        shelf.tell()
        while not gone.ended:
            assert await gone.wait(DEADLINE)
        assert not other.ended


async def test_who_is_not_there_is_not_followed(stack: AsyncExitStack) -> None:
    shelf = Shelf(1)
    async with Watching(shelf) as watch:
        with pytest.raises(UnknownRequest):
            await follow(stack, watch, 9)
        assert shelf.listener is None


async def test_an_outage_is_survived(stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OUTAGE_PAUSE", 0.01)
    shelf = Shelf(1)
    watching = Watching(shelf)
    async with watching as watch:
        follower = await follow(stack, watch, 0)
        shelf.broken = True
        shelf.change(0, position=7)
        async with asyncio.timeout(DEADLINE):
            while not watching.heard:
                await asyncio.sleep(0.001)
        shelf.broken = False
        assert await follower.wait(DEADLINE)
        assert follower.snapshot.job.position == 7
    assert [type(event) for event in watching.heard] == [ServiceError, Recovered]


async def test_stopping_ends_everybody_at_once(stack: AsyncExitStack) -> None:
    shelf = Shelf(300)
    async with Watching(shelf) as watch:
        followers = [await follow(stack, watch, key) for key in shelf.jobs]
        waits = [asyncio.create_task(follower.wait(60)) for follower in followers]
        await asyncio.sleep(0.05)
        watch.stop()
        watch.stop()
        async with asyncio.timeout(0.5):
            await asyncio.gather(*waits)
        assert all(follower.ended for follower in followers)
        late = await follow(stack, watch, 0)
        assert late.ended


async def test_a_follower_whose_task_is_cancelled_is_gone() -> None:
    shelf = Shelf(1)

    async def body(watch: StatusFeed) -> None:
        async with watch.follow(str(UUID(int=0))) as follower:
            await follower.wait(60)
            await follower.wait(60)

    async with Watching(shelf) as watch:
        task = asyncio.create_task(body(watch))
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert shelf.listener is None
