"""A wall clock that was wrong for some time: order, ids, retention and waits are correct again after its correction."""

from __future__ import annotations

import pytest

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.webhooks.circuit import AttemptOutcome
from queue_middleware.webhooks.models import ReceiverHealth
from tests.support.clock import ManualClock
from tests.support.factories import (
    claim_deliveries,
    claim_polls,
    make_delivery_attempt,
    make_job,
    make_response,
    make_task,
    make_wait,
)

from .conftest import Stores

MINUTE, DAY, YEAR = 60, 86_400, 365 * 86_400
WEEK = 7 * DAY
POLLS = PollConfig("https://provider.test/{startResult.body.id}", "status", ("done",), ("failed",))


@pytest.fixture
async def store(stores: Stores) -> JobStore:
    return await stores.open(retention=float(WEEK))


async def finished(store: JobStore) -> str:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    await store.complete(receipt.claim, make_response())
    return receipt.request_id


async def days_pass(store: JobStore, clock: ManualClock, days: int) -> int:
    """Prune as maintenance does, but less often. Returns how many jobs were pruned."""
    pruned = 0
    for _ in range(days):
        clock.advance(DAY)
        while found := await store.prune(10):
            pruned += found
    return pruned


async def test_pruning_continues_after_a_clock_was_years_ahead(store: JobStore, clock: ManualClock) -> None:
    clock.set(10 * YEAR)
    wrong = await finished(store)
    clock.set(-10 * YEAR)
    later = [await finished(store) for _ in range(30)]
    job = await store.job(later[-1])
    assert abs(job.created_at - clock()) < MINUTE * 1000, "nor do later ids bear the wrong time"
    assert await days_pass(store, clock, 6) == 0
    assert await days_pass(store, clock, 2) == len(later) + 1
    for request_id in (wrong, later[0], later[-1]):
        with pytest.raises(UnknownRequest):
            await store.job(request_id)


async def test_jobs_that_ended_in_the_future_age_from_the_correction_of_the_clock(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    clock.set(10 * YEAR)
    await store.complete(receipt.claim, make_response())
    clock.set(-10 * YEAR)
    assert await days_pass(store, clock, 8) == 0, "its key is old by now, and its end was taken to be yesterday's"
    assert (await store.job(receipt.request_id)).finished_at < clock()
    assert await days_pass(store, clock, 8) == 1


async def test_while_a_clock_is_ahead_no_recent_job_is_pruned(store: JobStore, clock: ManualClock) -> None:
    fresh = [await finished(store) for _ in range(3)]
    clock.advance(MINUTE)
    assert await store.prune(10) == 0
    clock.set(10 * YEAR)
    for _ in range(60):
        clock.advance(MINUTE)
        assert await store.prune(10) == 0
    clock.set(-10 * YEAR)
    assert await store.prune(10) == 0
    for request_id in fresh:
        assert (await store.result(request_id)).response is not None


async def test_jobs_that_ended_while_the_clock_was_behind_are_kept(stores: Stores, clock: ManualClock) -> None:
    clock.set(-10 * YEAR)
    store = await stores.open(retention=float(WEEK))
    fresh = await finished(store)
    await store.prune(10)
    clock.advance(MINUTE)
    clock.set(10 * YEAR)
    for _ in range(20):
        clock.advance(3600)
        assert await store.prune(10) == 0
    assert (await store.result(fresh)).response is not None
    assert await days_pass(store, clock, 2) == 1, "a day later the clock is believed"


async def test_a_clock_that_is_set_back_lets_no_job_overtake_another(store: JobStore, clock: ManualClock) -> None:
    clock.set(10 * YEAR)
    ahead = [(await store.submit(make_job())).request_id for _ in range(2)]
    clock.set(-10 * YEAR)
    behind = [(await store.submit(make_job())).request_id for _ in range(2)]
    assert [(await store.job(request_id)).position for request_id in (*ahead, *behind)] == [0, 1, 2, 3]
    claims = await store.claim(4)
    assert [claim.request_id for claim in claims] == [*ahead, *behind]
    for claim in claims:
        await store.complete(claim, make_response())
    healed = await store.job(await finished(store))
    assert abs(healed.created_at - clock()) < MINUTE * 1000


async def test_small_steps_back_change_no_order(store: JobStore, clock: ManualClock) -> None:
    order = []
    for _ in range(20):
        order.append((await store.submit(make_job())).request_id)
        clock.set(-2)
    assert [claim.request_id for claim in await store.claim(20)] == order


async def test_a_delayed_job_is_due_when_the_clock_is_right_again(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    await store.retry(receipt.claim, 5.0)
    clock.set(-3600)
    due = await store.next_due(Topic.WORK)
    assert due is not None
    assert due > 3600
    clock.set(3600)
    clock.advance(5)
    assert await store.next_due(Topic.WORK) == 0.0


async def test_due_times_in_the_future_are_corrected(store: JobStore, clock: ManualClock) -> None:
    """The due times of a retry, a webhook, an open circuit, a poll and the end of a wait."""
    repeated, told, held = [(await store.submit(make_job(webhook=f"https://{host}.test/"), start=True)).claim for host in "abc"]
    waits = (await store.submit(make_job(task=make_task(poll=POLLS)), start=True)).claim
    assert repeated
    assert told
    assert held
    assert waits
    assert waits.task
    await store.complete(told, make_response())
    await store.complete(held, make_response())
    first, second = await claim_deliveries(store)
    clock.set(10 * YEAR)
    await store.retry(repeated, 5.0)
    await store.webhooks.settle(first, make_delivery_attempt(500), delivered=False, retry_in=5.0)
    await store.webhooks.settle(
        second, make_delivery_attempt(500), delivered=False, retry_in=5.0, outcome=AttemptOutcome.FAILED
    )
    await store.tasks.complete_attempt(waits, waits.task, make_response(), make_wait(600.0, poll_in=5.0))
    clock.set(-10 * YEAR)
    assert await store.claim(1) == await claim_deliveries(store) == await claim_polls(store) == []
    await store.prune(10)
    clock.advance(6)
    assert [claim.key for claim in await store.claim(1)] == [repeated.key]
    assert {delivery.key for delivery in await claim_deliveries(store)} == {told.key, held.key}
    (poll,) = await claim_polls(store)
    assert poll.deadline == clock() - 6000 + 600_000
    await store.prune(10)
    clock.advance(700)
    await store.tasks.settle_poll(poll, next_in=None)
    assert [rescue.state for rescue in await store.tasks.time_out()] == [JobState.FAILED]


async def test_start_times_set_by_submitters_are_not_corrected(store: JobStore, clock: ManualClock) -> None:
    await store.submit(make_job(task=make_task(), due_at=clock() + YEAR * 1000))
    await store.prune(10)
    assert await store.next_due(Topic.WORK) == YEAR


async def test_jobs_that_end_after_the_correction_keep_their_time(store: JobStore, clock: ManualClock) -> None:
    clock.set(30 * DAY)  # as after a virtual machine was resumed; retention does not trust the clock yet
    request_id = await finished(store)
    ended = clock()
    clock.advance(MINUTE)
    assert await store.prune(10) == 0
    assert (await store.job(request_id)).finished_at == ended


async def test_flows_used_in_the_future_are_deleted(store: JobStore, clock: ManualClock) -> None:
    clock.set(10 * YEAR)
    receipt = await store.submit(make_job(webhook="https://example.com/"), start=True)
    assert receipt.claim
    await store.complete(receipt.claim, make_response())
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None, outcome=AttemptOutcome.PROMPT)
    assert await store.webhooks.receivers(tuple(ReceiverHealth))
    clock.set(-10 * YEAR)
    await days_pass(store, clock, 9)
    assert isinstance(store, SQLiteStore)
    assert await store._read(lambda queries: queries.connection.execute("SELECT count(*) FROM flow").fetchone()) == (0,)
