"""Limits of jobs outside of the queue: scheduled tasks, and jobs that await an external service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queue_middleware.errors import QueueFull, TooManyQueued
from queue_middleware.jobs.models import Claim, ErrorType, Failure, NewJob, RetryPolicy
from queue_middleware.jobs.store import JobStore
from queue_middleware.tasks.models import CompletionSource
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import a_job, a_task, a_wait, a_word, an_answer
from tests.support.leases import lease_passes

FOR_LATER = 3600


def _later(clock: ManualClock, **changes: Any) -> NewJob:
    return a_job(task=a_task(), due_at=clock.now + FOR_LATER * 1000, **changes)


async def _started(store: JobStore, **changes: Any) -> Claim:
    receipt = await store.submit(a_job(task=a_task(), **changes), start=True)
    assert receipt.claim is not None
    return receipt.claim


async def _waits(store: JobStore, **changes: Any) -> Claim:
    claim = await _started(store, **changes)
    assert claim.task is not None
    await store.tasks.complete_attempt(claim, claim.task, an_answer(), a_wait())
    return claim


async def test_scheduled_tasks_do_not_fill_the_queue(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(max_queued=2)
    for number in range(10):
        await store.submit(_later(clock, client=f"192.0.2.{number}"))
    await store.submit(a_job())
    await store.submit(a_job(max_queue_length=1))
    with pytest.raises(QueueFull):
        await store.submit(a_job())


async def test_jobs_delayed_for_a_retry_are_in_the_queue(stores: Stores) -> None:
    store = await stores.open(max_queued=1)
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim is not None
    await store.retry(claim, 3600.0)
    with pytest.raises(QueueFull):
        await store.submit(a_job())


async def test_all_tasks_together_are_limited_and_plain_jobs_are_not(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(max_tasks=4)
    await _waits(store)
    await _started(store)
    await store.submit(_later(clock))
    await store.submit(a_job(task=a_task(listed=False)))  # a plain submission that will wait for its callback
    for new in (a_job(task=a_task(), client="192.0.2.8"), _later(clock, client="192.0.2.8")):
        with pytest.raises(QueueFull, match=r"4 tasks have not ended.*max_tasks") as refusal:
            await store.submit(new)
        assert refusal.value.retry_after >= 60
    await store.submit(a_job(client="192.0.2.8"))


async def test_the_tasks_of_one_client_are_limited(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(max_tasks_per_client=2)
    await store.submit(_later(clock))
    await _waits(store)
    for new in (a_job(task=a_task()), _later(clock), a_job()):
        with pytest.raises(TooManyQueued, match=r"you have 2 tasks that have not ended.*max_tasks_per_client"):
            await store.submit(new)
    await store.submit(_later(clock, client="192.0.2.8"))
    await store.submit(a_job(client="192.0.2.8"))


async def test_limits_of_tasks_apply_within_one_group_and_across_processes(stores: Stores, clock: ManualClock) -> None:
    options = {"max_tasks": 5, "max_tasks_per_client": 3}
    one, other = await stores.open(**options), await stores.open(**options)
    for store in (one, other):
        results = [_outcome(store.submit(_later(clock))) for _ in range(5)]
        taken = [await result for result in results].count("taken")
        assert taken == (3 if store is one else 0)
    results = [await _outcome(other.submit(_later(clock, client="192.0.2.8"))) for _ in range(5)]
    assert results == ["taken", "taken", "QueueFull", "QueueFull", "QueueFull"]


async def test_the_limit_of_a_client_applies_within_one_group(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(max_queued_per_client=3)
    submissions = [store.submit(a_job()) for _ in range(8)] + [store.submit(_later(clock)) for _ in range(2)]
    assert [await _outcome(submission) for submission in submissions] == ["taken"] * 3 + ["TooManyQueued"] * 5 + ["taken"] * 2


async def _outcome(submission: Awaitable[Any]) -> str:
    try:
        await submission
    except (QueueFull, TooManyQueued) as refusal:
        return type(refusal).__name__
    return "taken"


async def test_a_requested_callback_counts_as_a_task_of_the_client(stores: Stores) -> None:
    store = await stores.open(max_tasks_per_client=1)
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim is not None
    await store.tasks.register_callback(claim, a_task(listed=False))
    with pytest.raises(TooManyQueued):
        await store.submit(a_job())
    await store.submit(a_job(client="192.0.2.8"))


async def _completed(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    assert claim.task is not None
    await store.tasks.complete_attempt(claim, claim.task, an_answer(), None)


async def _failed(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    assert claim.task is not None
    await store.tasks.complete_attempt(claim, claim.task, Failure(ErrorType.RUNNER_SERVER_ERROR, "no"), None)


async def _cancelled_running(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await store.cancel(claim.request_id)
    await store.release(claim)


async def _cancelled_waiting(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await _wait(store, claim)
    await store.cancel(claim.request_id)


async def _cancelled_queued(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await store.release(claim)
    await store.cancel(claim.request_id)


async def _timed_out(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await _wait(store, claim)
    clock.advance(31)
    await store.tasks.time_out()


async def _expired(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await store.retry(claim, 3600.0)
    clock.advance(101)
    await store.expire()


async def _called_back(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await _wait(store, claim)
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, a_word())


async def _called_back_early(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, a_word())
    await _wait(store, claim)


async def _called_back_before_a_retry(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await store.retry(claim, 3600.0)
    await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, a_word())


async def _lost(store: JobStore, claim: Claim, clock: ManualClock) -> None:
    await lease_passes(store, clock)
    await store.rescue()


async def _wait(store: JobStore, claim: Claim) -> None:
    assert claim.task is not None
    await store.tasks.complete_attempt(claim, claim.task, an_answer(), a_wait())


ENDS: list[Callable[[JobStore, Claim, ManualClock], Awaitable[None]]] = [
    _completed,
    _failed,
    _cancelled_running,
    _cancelled_waiting,
    _cancelled_queued,
    _timed_out,
    _expired,
    _called_back,
    _called_back_early,
    _called_back_before_a_retry,
    _lost,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
async def test_every_end_of_a_task_frees_its_place(stores: Stores, clock: ManualClock, end: Any) -> None:
    store = await stores.open(max_tasks_per_client=1, max_tasks=1)
    for _ in range(2):
        claim = await _started(store, start_timeout=100.0, retry=RetryPolicy(1))
        assert await _outcome(store.submit(a_job(task=a_task()))) == "QueueFull"
        await end(store, claim, clock)
