"""One feed for all clients that follow requests: how often it reads, whom it notifies, and that it costs nothing when idle."""

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


class FakeStore:
    """The four methods of a store that the feed needs, over jobs that the test sets."""

    def __init__(self, count: int) -> None:
        self.jobs = {key: make_queued_job(key) for key in range(count)}
        self.lines = dict.fromkeys(self.jobs, 0)
        self.read_calls: list[tuple[int, bool]] = []
        """For each read: how many jobs were read, and whether with positions."""
        self.comparisons: list[int] = []
        """For each comparison of states: how many jobs were compared."""
        self.listener: Callable[[], None] | None = None
        self.broken = False
        self.before_return: Callable[[], None] = lambda: None

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        assert topic is Topic.STATUS
        assert self.listener is None
        self.listener = listener
        return lambda: setattr(self, "listener", None)

    async def job(self, request_id: str) -> Job:
        job = self.jobs.get(UUID(request_id).int)
        if job is None:
            raise UnknownRequest("there is no such request")
        self.before_return()
        await asyncio.sleep(0)
        return job

    async def snapshots(self, keys: Sequence[int], *, positions: bool) -> list[JobSnapshot]:
        if self.broken:
            raise StoreError("broken")
        self.read_calls.append((len(keys), positions))
        await asyncio.sleep(0)
        found = [self.jobs[key] for key in keys if key in self.jobs]
        return [JobSnapshot(job if positions else job.replace(position=None), self.lines[job.key]) for job in found]

    async def changed(self, keys: Sequence[int], state: JobState, attempt: int) -> list[int]:
        if self.broken:
            raise StoreError("broken")
        self.comparisons.append(len(keys))
        await asyncio.sleep(0)
        expected = state, attempt
        return [key for key in keys if key not in self.jobs or (self.jobs[key].state, self.jobs[key].attempt) != expected]

    def change(self, key: int, **changes: object) -> None:
        """Commit a change."""
        self.jobs[key] = self.jobs[key].replace(**changes)
        self.notify()

    def notify(self) -> None:
        if self.listener is not None:
            self.listener()

    @property
    def reads(self) -> int:
        """The number of reads; a read of many jobs in slices counts once."""
        return len(self.read_calls)


class RunningFeed:
    def __init__(self, store: FakeStore) -> None:
        self.events: list[Event] = []
        self.watch = StatusFeed(store, self.events.append)  # type: ignore[arg-type]

    async def __aenter__(self) -> StatusFeed:
        self._task = asyncio.create_task(self.watch.run())
        return self.watch

    async def __aexit__(self, *_: object) -> None:
        self.watch.stop()
        async with asyncio.timeout(DEADLINE):
            await self._task


async def follow(
    stack: AsyncExitStack, watch: StatusFeed, key: int, *, lines: bool = False, states_only: bool = False
) -> Subscription:
    return await stack.enter_async_context(watch.follow(str(UUID(int=key)), lines=lines, states_only=states_only))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_change_notifies_only_the_followers_of_its_job(stack: AsyncExitStack) -> None:
    store = FakeStore(3)
    async with RunningFeed(store) as watch:
        followers = [await follow(stack, watch, key) for key in (0, 1, 1, 2)]
        store.change(1, state=JobState.RUNNING, position=None)
        woken = await asyncio.gather(*[follower.wait(0.1) for follower in followers])
        assert woken == [False, True, True, False]
        assert followers[1].snapshot.job == store.jobs[1]


async def test_without_notifications_nothing_is_read(stack: AsyncExitStack) -> None:
    store = FakeStore(500)
    async with RunningFeed(store) as watch:
        for key in store.jobs:
            await follow(stack, watch, key)
        await asyncio.sleep(0.1)
        assert store.read_calls == []


async def test_without_followers_the_feed_does_not_subscribe() -> None:
    store = FakeStore(2)
    async with RunningFeed(store) as watch, AsyncExitStack() as stack:
        assert store.listener is None
        one, other = AsyncExitStack(), AsyncExitStack()
        await follow(one, watch, 0)
        await follow(other, watch, 0)
        assert store.listener is not None
        await one.aclose()
        assert store.listener is not None
        await other.aclose()
        assert store.listener is None
        await follow(stack, watch, 1)
        assert store.listener is not None


async def test_notifications_in_quick_succession_cause_one_read(stack: AsyncExitStack) -> None:
    store = FakeStore(10)
    async with RunningFeed(store) as watch:
        for key in store.jobs:
            await follow(stack, watch, key)
        loop = asyncio.get_running_loop()
        began = loop.time()
        notifications = 0
        while loop.time() - began < 0.3:
            store.notify()
            notifications += 1
            await asyncio.sleep(0)
        assert notifications > 300
        assert 2 <= store.reads <= 0.3 / module._PAUSE + 2


async def test_positions_are_read_less_often_the_more_jobs_are_followed(stack: AsyncExitStack) -> None:
    store = FakeStore(600)
    async with RunningFeed(store) as watch:
        followers = [await follow(stack, watch, key) for key in store.jobs]
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < 0.5:
            store.notify()
            await asyncio.sleep(0.001)
        rounds = -(-600 // module._READ_BATCH)
        assert sum(positions for _, positions in store.read_calls) == rounds  # once in 0.6 seconds
        assert max(count for count, _ in store.read_calls) == module._READ_BATCH
        store.change(7, position=3)
        assert await followers[7].wait(DEADLINE)
        assert followers[7].snapshot.job.position == 3


async def test_a_skipped_position_is_read_later(stack: AsyncExitStack) -> None:
    store = FakeStore(5)
    async with RunningFeed(store) as watch:
        follower = await follow(stack, watch, 4)
        store.change(4, position=3)
        assert await follower.wait(DEADLINE)
        store.change(4, position=2)  # no notification after this one
        assert await follower.wait(DEADLINE)
        assert follower.snapshot.job.position == 2


async def test_followers_of_running_jobs_do_not_wait_for_positions(stack: AsyncExitStack) -> None:
    store = FakeStore(2)
    store.jobs[0] = make_queued_job(0, state=JobState.RUNNING, position=None)
    async with RunningFeed(store) as watch:
        running, waiting = await follow(stack, watch, 0), await follow(stack, watch, 1)
        for number in range(1, 4):
            store.change(0, progress=Progress(number / 10))
            assert await running.wait(DEADLINE)
            assert running.snapshot.job.progress == Progress(number / 10)
        assert waiting.snapshot.job.position == 1
        store.change(0, state=JobState.QUEUED, position=0, progress=None)
        assert await running.wait(DEADLINE)
        assert running.snapshot.job == store.jobs[0]


async def test_new_lines_notify_only_followers_with_logs(stack: AsyncExitStack) -> None:
    store = FakeStore(1)
    async with RunningFeed(store) as watch:
        reader, other = await follow(stack, watch, 0, lines=True), await follow(stack, watch, 0)
        store.lines[0] = 5
        store.notify()
        assert await reader.wait(DEADLINE)
        assert reader.snapshot.last_line == 5
        assert not await other.wait(0.05)


async def test_a_change_while_a_follower_is_added_is_not_missed(stack: AsyncExitStack) -> None:
    store = FakeStore(1)

    def change_after_the_read() -> None:
        store.before_return = lambda: None
        store.change(0, state=JobState.RUNNING, position=None)

    store.before_return = change_after_the_read
    async with RunningFeed(store) as watch:
        follower = await follow(stack, watch, 0)
        assert follower.snapshot.job.state is JobState.QUEUED
        while follower.snapshot.job.state is JobState.QUEUED:
            assert await follower.wait(DEADLINE)


async def test_completed_jobs_are_not_read(stack: AsyncExitStack) -> None:
    store = FakeStore(2)
    store.jobs[0] = make_queued_job(0, state=JobState.COMPLETED, position=None, status=200, finished_at=1)
    async with RunningFeed(store) as watch:
        await follow(stack, watch, 0)
        store.notify()
        await asyncio.sleep(0.05)
        assert store.read_calls == []


async def test_a_deleted_job_ends_its_followers(stack: AsyncExitStack) -> None:
    store = FakeStore(2)
    async with RunningFeed(store) as watch:
        gone, other = await follow(stack, watch, 0), await follow(stack, watch, 1)
        del store.jobs[0]
        store.notify()
        while not gone.ended:
            assert await gone.wait(DEADLINE)
        assert not other.ended


async def test_an_unknown_job_cannot_be_followed(stack: AsyncExitStack) -> None:
    store = FakeStore(1)
    async with RunningFeed(store) as watch:
        with pytest.raises(UnknownRequest):
            await follow(stack, watch, 9)
        assert store.listener is None


async def test_subscriptions_to_more_than_the_state_are_counted_as_streams() -> None:
    async with RunningFeed(FakeStore(2)) as watch:
        async with AsyncExitStack() as stack:
            for key in (0, 0, 1):
                await follow(stack, watch, key)
            await follow(stack, watch, 1, states_only=True)
            with pytest.raises(UnknownRequest):
                await follow(stack, watch, 99)
            assert watch.streams == 3
        assert watch.streams == 0


async def test_an_outage_is_survived(stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OUTAGE_PAUSE", 0.01)
    store = FakeStore(1)
    watching = RunningFeed(store)
    async with watching as watch:
        follower = await follow(stack, watch, 0)
        store.broken = True
        store.change(0, position=7)
        async with asyncio.timeout(DEADLINE):
            while not watching.events:
                await asyncio.sleep(0.001)
        store.broken = False
        assert await follower.wait(DEADLINE)
        assert follower.snapshot.job.position == 7
    assert [type(event) for event in watching.events] == [ServiceError, Recovered]


async def test_stopping_ends_all_followers_at_once(stack: AsyncExitStack) -> None:
    store = FakeStore(300)
    async with RunningFeed(store) as watch:
        followers = [await follow(stack, watch, key) for key in store.jobs]
        waits = [asyncio.create_task(follower.wait(60)) for follower in followers]
        await asyncio.sleep(0.05)
        watch.stop()
        watch.stop()
        async with asyncio.timeout(0.5):
            await asyncio.gather(*waits)
        assert all(follower.ended for follower in followers)
        late = await follow(stack, watch, 0)
        assert late.ended


async def test_a_follower_whose_task_is_cancelled_is_removed() -> None:
    store = FakeStore(1)

    async def body(watch: StatusFeed) -> None:
        async with watch.follow(str(UUID(int=0))) as follower:
            await follower.wait(60)
            await follower.wait(60)

    async with RunningFeed(store) as watch:
        task = asyncio.create_task(body(watch))
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert store.listener is None


# --- subscriptions to the state only


async def test_only_another_state_or_attempt_notifies_those_who_follow_the_state(stack: AsyncExitStack) -> None:
    store = FakeStore(2)
    async with RunningFeed(store) as watch:
        follower = await follow(stack, watch, 0, states_only=True)
        beside = await follow(stack, watch, 0)
        for changes in ({"position": 7}, {"progress": Progress(0.5)}):
            store.change(0, **changes)
            assert await beside.wait(DEADLINE)
        assert not await follower.wait(0)
        store.change(0, state=JobState.RUNNING, attempt=1, position=None)
        assert await follower.wait(DEADLINE)
        assert follower.snapshot.job == store.jobs[0]
        store.change(0, attempt=2)  # queued and started again since the last read
        assert await follower.wait(DEADLINE)
        assert follower.snapshot.job.attempt == 2


async def test_states_are_compared_without_reading_the_jobs(stack: AsyncExitStack) -> None:
    store = FakeStore(1000)
    async with RunningFeed(store) as watch:
        followers = [await follow(stack, watch, key, states_only=True) for key in store.jobs]
        for key in (3, 700):
            store.jobs[key] = store.jobs[key].replace(state=JobState.COMPLETED, position=None)
        store.notify()
        assert await followers[3].wait(DEADLINE)
        assert await followers[700].wait(DEADLINE)
        assert store.comparisons[:2] == [module._STATES_BATCH, 1000 - module._STATES_BATCH]
        assert store.read_calls == [(1, False), (1, False)]
        assert sum([await follower.wait(0) for follower in followers]) == 0
        store.notify()
        while len(store.comparisons) < 4:
            await asyncio.sleep(0.001)
        assert sum(store.comparisons[2:4]) == 998  # those that have ended are not compared


async def test_many_followers_of_states_are_compared_less_often(stack: AsyncExitStack) -> None:
    store = FakeStore(2000)
    async with RunningFeed(store) as watch:
        for key in store.jobs:
            await follow(stack, watch, key, states_only=True)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < 0.3:
            store.notify()
            await asyncio.sleep(0)
        pause = max(module._STATES_PAUSE, module._STATES_PAUSE_EACH * 1000)
        assert sum(store.comparisons) / 2000 <= (loop.time() - began) / pause + 2


async def test_a_deleted_job_ends_those_who_follow_its_state(stack: AsyncExitStack) -> None:
    store = FakeStore(2)
    async with RunningFeed(store) as watch:
        gone, other = [await follow(stack, watch, key, states_only=True) for key in (0, 1)]
        del store.jobs[0]
        store.notify()
        assert await gone.wait(DEADLINE)
        assert (gone.ended, other.ended) == (True, False)
