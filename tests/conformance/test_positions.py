"""Positions always equal the counted number of jobs before, whichever process returns them."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from queue_middleware.errors import TooManyQueued
from queue_middleware.jobs.models import Claim, JobState, Priority
from queue_middleware.jobs.positions import Place, position
from queue_middleware.jobs.states import FINAL, IN_QUEUE
from queue_middleware.jobs.store import JobStore
from queue_middleware.webhooks.models import DeliveryState
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import a_job, an_answer

_STEPS = 100


class Chance:
    """Does random operations on a queue and records the order of submission."""

    def __init__(self, stores: list[JobStore], clock: ManualClock, seed: int) -> None:
        self._stores = stores
        self._clock = clock
        self._random = random.Random(seed)
        self._claims: list[Claim] = []
        self._numbers = itertools.count()
        self.keys: dict[str, int] = {}
        self.submitted: list[tuple[int, int, str]] = []
        """Priority, number and id, as tuples that sort like the queue."""

    async def step(self) -> None:
        """Do one operation in one of the processes."""
        store = self._random.choice(self._stores)
        happens = (self._submit, self._submit, self._submit, self._claim, self._cancel, self._settle, self._settle, self._wait)
        await self._random.choice(happens)(store)

    async def _submit(self, store: JobStore) -> None:
        for _ in range(self._random.randrange(1, 12)):
            priority = self._random.choice((Priority.NORMAL, Priority.LOW))
            deadline = self._random.choice((None, None, 20.0))
            client = self._random.choice(("one", "other"))
            receipt = await store.submit(a_job(priority=priority, start_timeout=deadline, client=client))
            self.keys[receipt.request_id] = (await store.job(receipt.request_id)).key
            self.submitted.append((priority, next(self._numbers), receipt.request_id))

    async def _claim(self, store: JobStore) -> None:
        self._claims += await store.claim(self._random.randrange(1, 10))

    async def _cancel(self, store: JobStore) -> None:
        for _, _, request_id in self._random.sample(self.submitted, min(5, len(self.submitted))):
            await store.cancel(request_id)

    async def _settle(self, store: JobStore) -> None:
        self._random.shuffle(self._claims)
        for _ in range(min(3, len(self._claims))):
            claim = self._claims.pop()
            match self._random.randrange(3):
                case 0:
                    await store.complete(claim, an_answer())
                case 1:
                    await store.release(claim)
                case 2:
                    await store.retry(claim, self._random.choice((0.0, 5.0, 3600.0)))

    async def _wait(self, store: JobStore) -> None:
        # From less than one bucket to several of the widest.
        self._clock.advance(self._random.choice((0.001, 0.03, 1, 25, 3000, 90_000)))
        while await store.expire():
            pass
        await store.rescue()


@pytest.mark.parametrize("seed", range(2))
async def test_positions_equal_the_counted_jobs(stores: Stores, clock: ManualClock, seed: int) -> None:
    processes = [await stores.open(), await stores.open()]
    chance = Chance(processes, clock, seed)
    most = 0
    for number in range(_STEPS):
        await chance.step()
        asked = processes[number % 2]
        seen = {
            glance.job.request_id: glance.job for glance in await asked.snapshots(list(chance.keys.values()), positions=True)
        }
        jobs = [seen[request_id] for _, _, request_id in sorted(chance.submitted)]
        in_front = 0
        for job in jobs:
            assert job.position == (in_front if job.state in IN_QUEUE else None)
            in_front += job.state is JobState.QUEUED
        most = max(most, in_front)
        places = {
            job.key: Place(entry[0], job.key, job.state) for entry, job in zip(sorted(chance.submitted), jobs, strict=True)
        }
        for job in jobs[number % 7 :: 7]:
            assert job.position == position(places[job.key], places.values())
            assert await asked.job(job.request_id) == job
        chance.submitted = [entry for entry, job in zip(sorted(chance.submitted), jobs, strict=True) if job.state not in FINAL]
    assert most > 30


async def test_every_process_returns_the_position_of_a_submission(stores: Stores) -> None:
    one, other = await stores.open(), await stores.open()
    receipts = [await store.submit(a_job()) for _ in range(20) for store in (one, other)]
    assert [receipt.position for receipt in receipts] == list(range(40))
    for receipt in receipts[5:15]:
        await one.cancel(receipt.request_id)
    assert (await other.submit(a_job())).position == 30


async def test_the_limit_of_a_client_counts_jobs_of_all_processes(stores: Stores) -> None:
    one, other = await stores.open(max_queued_per_client=3), await stores.open(max_queued_per_client=3)
    for store in (one, other, one):
        await store.submit(a_job())
    with pytest.raises(TooManyQueued, match="you have 3 requests waiting"):
        await other.submit(a_job())
    (claim,) = await one.claim(1)
    await other.submit(a_job())
    with pytest.raises(TooManyQueued):
        await one.submit(a_job())
    await one.retry(claim, 60.0)
    with pytest.raises(TooManyQueued, match="you have 4 requests waiting"):
        await other.submit(a_job())


async def test_snapshots_without_positions_have_none(store: JobStore) -> None:
    receipt = await store.submit(a_job())
    job = await store.job(receipt.request_id)
    (seen,) = await store.snapshots([job.key, 1], positions=False)
    assert seen.job == job.replace(position=None)
    assert seen.last_line == 0


async def test_many_delayed_jobs_become_due_in_batches(store: JobStore, clock: ManualClock) -> None:
    await asyncio.gather(*[store.submit(a_job()) for _ in range(700)])
    await asyncio.gather(*[store.retry(claim, 5.0) for claim in await store.claim(700)])
    clock.advance(5)
    claims = await store.claim(600)
    claims += await store.claim(600)
    assert len({claim.key for claim in claims}) == 700


async def test_many_expired_jobs_are_failed_in_batches(store: JobStore, clock: ManualClock) -> None:
    late = [store.submit(a_job(start_timeout=10.0, webhook="https://example.com/")) for _ in range(600)]
    await asyncio.gather(*late)
    good = await store.submit(a_job())
    clock.advance(11)
    (claim,) = await store.claim(5)  # jobs behind them need not wait for their end
    assert claim.request_id == good.request_id
    batches = []
    while expired := await store.expire():
        batches.append(len(expired))
    assert sum(batches) == 600
    assert max(batches) < 600
    counts = await store.counts()
    assert counts.jobs == {JobState.FAILED: 600, JobState.RUNNING: 1}
    assert counts.deliveries == {DeliveryState.PENDING: 600}
