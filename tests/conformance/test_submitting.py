"""Guarantees for submissions."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from queue_middleware.errors import BadRequest, QueueFull, StillInProgress, TooManyQueued, UnknownRequest
from queue_middleware.jobs.models import CancelOutcome, JobState, Priority
from queue_middleware.jobs.store import JobStore
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import make_job, make_request, make_response

pytestmark = pytest.mark.usefixtures("course")


async def test_acknowledged_jobs_survive_a_restart(stores: Stores) -> None:
    first = await stores.open()
    receipt = await first.submit(make_job(b"precious"))
    await first.close()
    second = await stores.open()
    (claim,) = await second.claim(1)
    assert claim.request_id == receipt.request_id
    assert claim.request == make_request(b"precious")


async def test_the_id_is_a_uuid_of_version_7_with_the_time(store: JobStore, clock: ManualClock) -> None:
    request_id = UUID((await store.submit(make_job())).request_id)
    assert (request_id.version, request_id.int >> 80) == (7, clock.now)


async def test_ids_of_one_millisecond_differ(store: JobStore) -> None:
    receipts = await asyncio.gather(*[store.submit(make_job()) for _ in range(300)])
    assert len({receipt.request_id for receipt in receipts}) == 300
    for receipt in receipts:
        assert (await store.job(receipt.request_id)).request_id == receipt.request_id


async def test_positions_count_the_jobs_before(store: JobStore) -> None:
    receipts = [await store.submit(make_job()) for _ in range(3)]
    low = await store.submit(make_job(priority=Priority.LOW))
    late = await store.submit(make_job())
    assert [receipt.position for receipt in (*receipts, low, late)] == [0, 1, 2, 3, 3]
    assert (await store.job(low.request_id)).position == 4
    await store.claim(2)
    assert [(await store.job(receipt.request_id)).position for receipt in (*receipts, low, late)] == [None, None, 0, 2, 1]


async def test_a_job_starts_at_once_if_no_other_is_queued(store: JobStore) -> None:
    receipt = await store.submit(make_job(b"now", webhook="https://example.com/"), start=True)
    assert receipt.claim is not None
    assert (receipt.claim.attempt, receipt.claim.request.body, receipt.claim.webhook) == (1, b"now", "https://example.com/")
    assert (await store.job(receipt.request_id)).state is JobState.RUNNING
    assert await store.complete(receipt.claim, make_response())


async def test_a_job_never_starts_before_a_queued_one(store: JobStore) -> None:
    waiting = await store.submit(make_job())
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim is None
    assert [claim.request_id for claim in await store.claim(2)] == [waiting.request_id, receipt.request_id]


async def test_a_due_delayed_job_counts_as_queued(store: JobStore, clock: ManualClock) -> None:
    await store.submit(make_job())
    (claim,) = await store.claim(1)
    await store.retry(claim, 10.0)
    assert (await store.submit(make_job(), start=True)).claim is not None
    clock.advance(10)
    assert (await store.submit(make_job(), start=True)).claim is None


async def test_the_length_of_the_queue_is_limited(stores: Stores) -> None:
    store = await stores.open(max_queued=2)
    await store.submit(make_job())
    await store.submit(make_job())
    with pytest.raises(QueueFull) as refusal:
        await store.submit(make_job())
    assert refusal.value.status == 503
    assert refusal.value.retry_after > 0
    await store.claim(1)
    await store.submit(make_job())


async def test_each_client_is_limited(stores: Stores) -> None:
    store = await stores.open(max_queued_per_client=2)
    await store.submit(make_job())
    await store.submit(make_job())
    with pytest.raises(TooManyQueued):
        await store.submit(make_job())
    await store.submit(make_job(client="192.0.2.8"))
    await store.claim(1)
    await store.submit(make_job())
    with pytest.raises(TooManyQueued):
        await store.submit(make_job())


async def test_limits_apply_within_one_group(stores: Stores) -> None:
    store = await stores.open(max_queued=10)
    results = await asyncio.gather(*[store.submit(make_job()) for _ in range(50)], return_exceptions=True)
    assert sum(isinstance(result, QueueFull) for result in results) == 40


async def test_the_submitter_can_limit_the_length_of_the_queue(store: JobStore) -> None:
    await store.submit(make_job(max_queue_length=0))
    await store.submit(make_job(max_queue_length=1))
    with pytest.raises(TooManyQueued, match="fal_max_queue_length=1"):
        await store.submit(make_job(max_queue_length=1))


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
async def test_bodies_of_every_size_are_returned(store: JobStore, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await store.submit(make_job(body))
    (claim,) = await store.claim(1)
    assert claim.request.body == body


async def test_unknown_and_malformed_ids(store: JobStore) -> None:
    unknown = "0192f0c0-0000-7000-8000-000000000000"
    for verb in (store.job, store.result, store.cancel):
        with pytest.raises(UnknownRequest):
            await verb(unknown)
        for malformed in ("", "x", "123", unknown + "0", unknown.replace("-", ""), "../../etc/passwd"):
            with pytest.raises(BadRequest):
                await verb(malformed)


async def test_an_id_is_found_in_upper_and_lower_case(store: JobStore) -> None:
    receipt = await store.submit(make_job())
    assert (await store.job(receipt.request_id.upper())).request_id == receipt.request_id


async def test_cancelling_returns_the_state_that_it_found(store: JobStore) -> None:
    receipt = await store.submit(make_job())
    assert await store.cancel(receipt.request_id) is CancelOutcome.CANCELLED
    assert await store.cancel(receipt.request_id) is CancelOutcome.FINISHED
    assert await store.claim(1) == []
    running = await store.submit(make_job(), start=True)
    assert await store.cancel(running.request_id) is CancelOutcome.RUNNING
    assert await store.cancel(running.request_id) is CancelOutcome.RUNNING


async def test_there_is_no_result_before_the_end(store: JobStore) -> None:
    receipt = await store.submit(make_job())
    with pytest.raises(StillInProgress, match="Request is still in progress"):
        await store.result(receipt.request_id)


async def test_a_clock_that_is_set_back_keeps_the_order(store: JobStore, clock: ManualClock) -> None:
    first = await store.submit(make_job())
    clock.advance(-3600)
    second = await store.submit(make_job())
    assert [claim.request_id for claim in await store.claim(2)] == [first.request_id, second.request_id]
    assert (await store.job(second.request_id)).request_id == second.request_id
