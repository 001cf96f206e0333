"""Guarantees for workers: order, exclusive claims, results with their webhooks, nothing lost with a process."""

from __future__ import annotations

import asyncio

import pytest

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.chunks import iter_chunks
from queue_middleware.jobs.job_list import JobFilter
from queue_middleware.jobs.models import (
    CHUNK_SIZE,
    AttemptEnd,
    ErrorType,
    Failure,
    JobState,
    Priority,
    Progress,
    RetryCause,
    RetryPolicy,
    StoredResponse,
)
from queue_middleware.jobs.outcomes import Outcome, outcome_of
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.tasks.models import CompletionSource
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import (
    claim_deliveries,
    make_delivery_attempt,
    make_job,
    make_response,
    make_result,
    make_task,
    make_wait,
)
from tests.support.leases import lease_passes

pytestmark = pytest.mark.usefixtures("course")

CANCELLED = AttemptEnd(JobState.CANCELLED, error=ErrorType.CLIENT_CANCELLED)


async def test_jobs_are_claimed_by_priority_then_by_submission(store: JobStore) -> None:
    names = [
        (await store.submit(make_job(priority=priority))).request_id
        for priority in (Priority.LOW, Priority.NORMAL, Priority.LOW, Priority.NORMAL)
    ]
    order = [claim.request_id for _ in range(4) for claim in await store.claim(1)]
    assert order == [names[1], names[3], names[0], names[2]]


async def test_two_processes_never_claim_the_same_job(stores: Stores) -> None:
    one, other = await stores.open(), await stores.open()
    await asyncio.gather(*[store.submit(make_job()) for store in (one, other) for _ in range(100)])
    claims = await asyncio.gather(*[store.claim(7) for store in (one, other) for _ in range(20)])
    ids = [claim.request_id for batch in claims for claim in batch]
    assert len(ids) == len(set(ids)) == 200


async def test_the_result_is_returned_byte_for_byte(store: JobStore) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    headers = ((b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xff"), (b"content-type", b"image/png"))
    assert await store.complete(receipt.claim, make_response(b"\x00\xff" * 500_000, 201, headers=headers))
    result = await store.result(receipt.request_id)
    assert result.response
    assert len(result.response.body) <= CHUNK_SIZE  # chunks are never read together
    pieces = [piece async for piece in iter_chunks(store.response_chunk, result.job.key, result.response)]
    assert result.response.replace(body=b"".join(pieces), chunks=0) == make_response(
        b"\x00\xff" * 500_000, 201, headers=headers
    )
    assert (result.job.state, result.job.status) == (JobState.COMPLETED, 201)


async def test_streamed_chunks_are_kept_in_order(store: JobStore) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    for number, data in enumerate((b"one", b"two")):
        assert await store.append(receipt.claim, number, data)
    assert await store.complete(receipt.claim, make_response(b"three", chunks=2))
    result = await store.result(receipt.request_id)
    assert result.response
    parts = [await store.response_chunk(result.job.key, number) for number in range(result.response.chunks)]
    assert (*parts, result.response.body) == (b"one", b"two", b"three")
    with pytest.raises(UnknownRequest):
        await store.response_chunk(result.job.key, 2)


async def test_chunks_of_a_repeated_attempt_are_deleted(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    await store.append(receipt.claim, 0, b"stale")
    await store.retry(receipt.claim, 1.0)
    assert not await store.append(receipt.claim, 1, b"too late")
    clock.advance(1)
    (again,) = await store.claim(1)
    assert again.attempt == 2
    with pytest.raises(UnknownRequest):
        await store.response_chunk(again.key, 0)


async def test_a_lost_claim_writes_nothing(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(), start=True)
    stale = receipt.claim
    assert stale
    await lease_passes(store, clock)
    assert [rescue.state for rescue in await store.rescue()] == [JobState.DELAYED]
    clock.advance(1)
    (fresh,) = await store.claim(1)
    assert not await store.complete(stale, make_response(b"stale"))
    assert not await store.fail(stale, Failure(ErrorType.RUNNER_SERVER_ERROR, "stale"))
    assert not await store.retry(stale, 0.0)
    assert not await store.release(stale)
    assert not await store.append(stale, 0, b"stale")
    assert not await store.log(stale, (), Progress(0.5))
    assert await store.complete(fresh, make_response(b"fresh"))
    result = await store.result(receipt.request_id)
    assert result.response
    assert result.response.body == b"fresh"


async def test_a_claim_can_repeat_the_write_that_ended_its_job(store: JobStore) -> None:
    receipt = await store.submit(make_job(webhook="https://example.com/"), start=True)
    assert receipt.claim
    assert await store.complete(receipt.claim, make_response(b"first"))
    assert await store.complete(receipt.claim, make_response(b"second"))
    result = await store.result(receipt.request_id)
    assert result.response
    assert result.response.body == b"first"
    assert len(await claim_deliveries(store, 5)) == 1


async def test_a_lost_claim_gets_false_after_its_job_has_failed(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(retry=RetryPolicy(1)), start=True)
    assert receipt.claim
    await lease_passes(store, clock)
    await store.rescue()
    assert not await store.complete(receipt.claim, make_response())
    assert (await store.job(receipt.request_id)).state is JobState.FAILED


async def test_a_lost_claim_in_a_batch_does_not_affect_the_others(store: JobStore, clock: ManualClock) -> None:
    receipts = [await store.submit(make_job(), start=True) for _ in range(6)]
    claims = [receipt.claim for receipt in receipts if receipt.claim]
    await store.release(claims[2])
    results = await asyncio.gather(*[store.complete(claim, make_response()) for claim in claims])
    assert results == [True, True, False, True, True, True]
    assert (await store.counts()).jobs == {JobState.COMPLETED: 5, JobState.QUEUED: 1}


async def test_attempts_are_charged_except_for_a_release(store: JobStore, clock: ManualClock) -> None:
    await store.submit(make_job())
    (claim,) = await store.claim(1)
    assert await store.release(claim) == AttemptEnd(JobState.QUEUED)
    (claim,) = await store.claim(1)
    assert claim.attempt == 1
    assert await store.retry(claim, 0.0) == AttemptEnd(JobState.DELAYED)
    (claim,) = await store.claim(1)
    assert claim.attempt == 2


async def test_a_retry_is_due_after_its_delay(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    await store.retry(receipt.claim, 8.0)
    assert await store.next_due(Topic.WORK) == 8.0
    clock.advance(7.9)
    assert await store.claim(1) == []
    clock.advance(0.1)
    assert await store.next_due(Topic.WORK) == 0.0
    assert len(await store.claim(1)) == 1
    assert await store.next_due(Topic.WORK) is None


async def test_a_job_fails_after_too_many_lost_leases(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(webhook="https://example.com/"))
    for expected in (JobState.DELAYED, JobState.DELAYED, JobState.FAILED):
        clock.advance(2)  # its backoff
        assert len(await store.claim(1)) == 1
        await lease_passes(store, clock)
        assert [rescue.state for rescue in await store.rescue()] == [expected]
    job = await store.job(receipt.request_id)
    assert job.failure is not None
    assert job.failure.error_type is ErrorType.RUNNER_DISCONNECTED
    assert "worker lost" in job.failure.detail
    assert len(await claim_deliveries(store, 5)) == 1


async def test_on_crash_fail_never_runs_twice(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(on_crash="fail")
    await store.submit(make_job(), start=True)
    await lease_passes(store, clock)
    assert [rescue.state for rescue in await store.rescue()] == [JobState.FAILED]


async def test_without_retries_a_job_is_not_repeated_after_a_crash(store: JobStore, clock: ManualClock) -> None:
    await store.submit(make_job(retry=RetryPolicy(1)), start=True)
    await lease_passes(store, clock)
    assert [rescue.state for rescue in await store.rescue()] == [JobState.FAILED]


async def test_the_retry_policy_of_the_submitter_is_kept(store: JobStore, clock: ManualClock) -> None:
    policy = RetryPolicy(3, {RetryCause.CONNECTION_ERROR: 0, RetryCause.TIMEOUT: 4})
    receipt = await store.submit(make_job(retry=policy))
    (claim,) = await store.claim(1)
    assert claim.retry == policy
    await lease_passes(store, clock)
    await store.rescue()
    assert (await store.job(receipt.request_id)).state is JobState.FAILED


async def test_renewal_keeps_jobs_and_deliveries(store: JobStore, clock: ManualClock) -> None:
    kept = await store.submit(make_job(), start=True)
    done = await store.submit(make_job(webhook="https://example.com/"), start=True)
    assert kept.claim
    assert done.claim
    await store.complete(done.claim, make_response())
    (delivery,) = await claim_deliveries(store, 1)
    for _ in range(4):
        clock.advance(45)
        await asyncio.to_thread(store.renew, [kept.claim.token, delivery.token])
        assert await store.rescue() == []
    assert (await store.counts()).deliveries == {"sending": 1}


async def test_leases_that_are_not_named_are_not_renewed(store: JobStore, clock: ManualClock) -> None:
    kept = await store.submit(make_job(), start=True)
    forgotten = await store.submit(make_job(), start=True)
    assert kept.claim
    await lease_passes(store, clock, renewed=[kept.claim.token])
    assert [rescue.request_id for rescue in await store.rescue()] == [forgotten.request_id]


async def test_running_claims_show_which_jobs_are_to_be_cancelled(store: JobStore) -> None:
    kept = await store.submit(make_job(), start=True)
    cancelled = await store.submit(make_job(), start=True)
    assert kept.claim
    assert cancelled.claim
    await store.cancel(cancelled.request_id)
    assert await store.running_claims() == {
        (kept.claim.key, kept.claim.token): False,
        (cancelled.claim.key, cancelled.claim.token): True,
    }


@pytest.mark.parametrize("how", ["retry", "release", "lose"])
async def test_a_job_to_be_cancelled_is_not_queued_again(store: JobStore, clock: ManualClock, how: str) -> None:
    receipt = await store.submit(make_job(webhook="https://example.com/"), start=True)
    assert receipt.claim
    await store.cancel(receipt.request_id)
    if how == "retry":
        assert await store.retry(receipt.claim, 0.0) == CANCELLED
    elif how == "release":
        assert await store.release(receipt.claim) == CANCELLED
    else:
        await lease_passes(store, clock)
        await store.rescue()
    job = await store.job(receipt.request_id)
    assert job.state is JobState.CANCELLED
    assert job.failure == Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")
    assert len(await claim_deliveries(store, 1)) == 1


async def test_a_response_before_the_cancellation_counts(store: JobStore) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    await store.cancel(receipt.request_id)
    assert await store.complete(receipt.claim, make_response())
    assert (await store.job(receipt.request_id)).state is JobState.COMPLETED


async def test_the_start_deadline_does_not_end_a_running_attempt(store: JobStore, clock: ManualClock) -> None:
    running = await store.submit(make_job(start_timeout=5.0), start=True)
    waiting = await store.submit(make_job(start_timeout=5.0))
    clock.advance(5)
    assert await store.claim(1) == []
    assert [rescue.request_id for rescue in await store.expire()] == [waiting.request_id]
    assert await store.expire() == []
    failure = (await store.job(waiting.request_id)).failure
    assert failure
    assert failure.error_type is ErrorType.START_TIMEOUT
    assert (await store.job(running.request_id)).state is JobState.RUNNING


async def test_progress_is_shown_and_reset_with_each_attempt(store: JobStore) -> None:
    receipt = await store.submit(make_job(), start=True)
    assert receipt.claim
    assert await store.log(receipt.claim, (), Progress(0.25, "half of half"))
    assert (await store.job(receipt.request_id)).progress == Progress(0.25, "half of half")
    await store.release(receipt.claim)
    await store.claim(1)
    assert (await store.job(receipt.request_id)).progress is None


async def test_the_webhook_is_due_with_the_result_and_not_before(store: JobStore) -> None:
    receipt = await store.submit(make_job(webhook="https://example.com/hook"), start=True)
    assert receipt.claim
    assert await store.next_due(Topic.DELIVERY) is None
    await store.complete(receipt.claim, make_response())
    assert await store.next_due(Topic.DELIVERY) == 0.0
    (delivery,) = await claim_deliveries(store, 5)
    assert (delivery.request_id, delivery.url, delivery.attempt) == (receipt.request_id, "https://example.com/hook", 1)
    assert await claim_deliveries(store, 5) == []


async def test_a_cancelled_queued_job_has_a_webhook(store: JobStore) -> None:
    receipt = await store.submit(make_job(webhook="https://example.com/hook"))
    await store.cancel(receipt.request_id)
    (delivery,) = await claim_deliveries(store, 1)
    assert delivery.request_id == receipt.request_id


async def test_a_failed_delivery_is_due_again_after_its_pause(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(webhook="https://example.com/hook"), start=True)
    assert receipt.claim
    await store.complete(receipt.claim, make_response())
    (delivery,) = await claim_deliveries(store, 1)
    assert await store.webhooks.settle(delivery, make_delivery_attempt(500, "answered 500"), delivered=False, retry_in=300.0)
    assert not await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None)
    assert await store.next_due(Topic.DELIVERY) == 300.0
    clock.advance(299)
    assert await claim_deliveries(store, 1) == []
    clock.advance(1)
    (again,) = await claim_deliveries(store, 1)
    assert again.attempt == 2


async def test_the_longest_due_delivery_is_claimed_first(store: JobStore, clock: ManualClock) -> None:
    order = []
    for host in ("c", "a", "b"):
        receipt = await store.submit(make_job(webhook=f"https://{host}.example/hook"), start=True)
        assert receipt.claim
        await store.complete(receipt.claim, make_response())
        order.append(receipt.request_id)
        clock.advance(1)
    assert [delivery.request_id for delivery in await claim_deliveries(store, 3)] == order


async def test_retention_deletes_ended_jobs_with_everything_that_belongs_to_them(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=100.0)
    old = await store.submit(make_job(), start=True)
    pending = await store.submit(make_job(webhook="https://example.com/"), start=True)
    assert old.claim
    assert pending.claim
    await store.append(old.claim, 0, b"part")
    await store.complete(old.claim, make_response(chunks=1))
    await store.complete(pending.claim, make_response())
    waiting = await store.submit(make_job())
    clock.advance(99)
    assert await store.prune(10) == 0
    clock.advance(2)
    assert await store.prune(10) == 1
    with pytest.raises(UnknownRequest):
        await store.result(old.request_id)
    with pytest.raises(UnknownRequest):
        await store.response_chunk(old.claim.key, 0)
    assert (await store.job(waiting.request_id)).state is JobState.QUEUED
    assert len(await claim_deliveries(store, 5)) == 1


async def test_pruning_works_in_batches(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=0)
    for _ in range(5):
        receipt = await store.submit(make_job(), start=True)
        assert receipt.claim
        await store.complete(receipt.claim, make_response())
    clock.advance(1)
    assert [await store.prune(2) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize(
    ("size", "parts", "seconds"), [(9_999, 0, 3600), (10_000, 0, 360), (1, 1, 360)], ids=["small", "large", "streamed"]
)
async def test_an_unstored_response_is_deleted_early(
    store: JobStore, clock: ManualClock, size: int, parts: int, seconds: int
) -> None:
    unstored = await store.submit(make_job(unstored_response=True), start=True)
    stored = await store.submit(make_job(), start=True)
    for receipt in (unstored, stored):
        assert receipt.claim
        if parts:
            await store.append(receipt.claim, 0, b"part")
        await store.complete(receipt.claim, make_response(b"x" * size, chunks=parts))
    clock.advance(seconds - 1)
    assert await store.prune(10) == 0
    assert (await store.result(unstored.request_id)).response is not None
    clock.advance(1)
    assert await store.prune(10) == 1
    result = await store.result(unstored.request_id)
    assert (result.job.state, result.job.status, result.response) == (JobState.COMPLETED, 200, None)
    if parts:
        with pytest.raises(UnknownRequest):
            await store.response_chunk(result.job.key, 0)
    assert (await store.result(stored.request_id)).response is not None
    clock.advance(10**5)
    assert await store.prune(10) == 0


async def test_a_pending_webhook_keeps_an_unstored_response(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job(unstored_response=True, webhook="https://example.com/"), start=True)
    assert receipt.claim
    await store.complete(receipt.claim, make_response())
    clock.advance(10_000)
    assert await store.prune(10) == 0
    (delivery,) = await claim_deliveries(store, 1)
    assert await store.prune(10) == 0
    assert (await store.result(receipt.request_id)).response is not None
    await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None)
    assert await store.prune(10) == 1
    assert (await store.result(receipt.request_id)).response is None


async def test_jobs_with_unstored_responses_are_delayed_and_fail_like_others(store: JobStore, clock: ManualClock) -> None:
    failing = await store.submit(make_job(unstored_response=True))
    waiting = await store.submit(make_job(unstored_response=True))
    (claim,) = await store.claim(1)
    assert claim.request_id == failing.request_id
    await store.fail(claim, Failure(ErrorType.RUNNER_SERVER_ERROR, "broken"))
    clock.advance(10_000)
    assert await store.prune(10) == 1
    assert (await store.job(failing.request_id)).failure == Failure(ErrorType.RUNNER_SERVER_ERROR, "broken")
    assert (await store.job(waiting.request_id)).state is JobState.QUEUED


async def test_counts(store: JobStore) -> None:
    await store.submit(make_job(), start=True)
    await store.submit(make_job())
    counts = await store.counts()
    assert counts.jobs == {JobState.RUNNING: 1, JobState.QUEUED: 1}
    assert counts.deliveries == {}
    assert counts.outcomes == {}


OUTCOMES: dict[str, tuple[StoredResponse | Failure, JobState]] = {
    "2xx": (make_response(status=201), JobState.COMPLETED),
    "3xx": (make_response(status=307), JobState.COMPLETED),
    "4xx": (make_response(status=422), JobState.COMPLETED),
    "5xx": (make_response(status=500), JobState.COMPLETED),
    "other": (make_response(status=999), JobState.COMPLETED),
    "failed": (Failure(ErrorType.REQUEST_TIMEOUT, "too long"), JobState.FAILED),
    "cancelled": (Failure(ErrorType.CLIENT_CANCELLED, "cancelled"), JobState.CANCELLED),
}


@pytest.mark.parametrize("name", OUTCOMES)
async def test_counts_show_how_the_stored_requests_ended(stores: Stores, clock: ManualClock, name: str) -> None:
    store = await stores.open(retention=100)
    outcome, state = OUTCOMES[name]
    for _ in range(2):
        claim = (await store.submit(make_job(), start=True)).claim
        assert claim
        await (store.fail(claim, outcome) if isinstance(outcome, Failure) else store.complete(claim, outcome))
        await (store.fail(claim, outcome) if isinstance(outcome, Failure) else store.complete(claim, outcome))
        clock.advance(60)
    counts = await store.counts()
    status, error = (None, outcome.error_type) if isinstance(outcome, Failure) else (outcome.status, None)
    assert counts.outcomes == {outcome_of(status, error): 2} == {Outcome(name): 2}
    assert counts.jobs == {state: 2}
    clock.advance(1)
    assert await store.prune(500) == 1
    assert (await store.counts()).outcomes == {Outcome(name): 1}


async def test_every_kind_of_end_is_counted(store: JobStore, clock: ManualClock) -> None:
    waiting = await store.submit(make_job())
    await store.cancel(waiting.request_id)
    await store.submit(make_job(start_timeout=1.0))
    clock.advance(2)
    await store.expire()
    for word in (make_result(), make_result(failure=Failure(ErrorType.PROVIDER_FAILED, "no"))):
        claim = (await store.submit(make_job(task=make_task()), start=True)).claim
        assert claim
        assert claim.task
        await store.tasks.complete_attempt(claim, claim.task, make_response(status=202), make_wait())
        assert (await store.counts()).jobs[JobState.AWAITING] == 1
        await store.tasks.resolve(claim.key, CompletionSource.CALLBACK, word)
    claim = (await store.submit(make_job(task=make_task()), start=True)).claim
    assert claim
    assert claim.task
    await store.tasks.complete_attempt(claim, claim.task, make_response(status=202), make_wait(1.0))
    clock.advance(2)
    await store.tasks.time_out()
    counts = await store.counts()
    assert counts.outcomes == {Outcome.CANCELLED: 1, Outcome.FAILED: 3, Outcome.SUCCESS: 1}
    assert counts.jobs == {JobState.CANCELLED: 1, JobState.FAILED: 3, JobState.COMPLETED: 1}


@pytest.mark.parametrize("topic", Topic)
async def test_every_process_is_notified_of_changes(stores: Stores, topic: Topic) -> None:
    here, there = await stores.open(), await stores.open()
    told = {store: asyncio.Event() for store in (here, there)}
    receipt = await here.submit(make_job(webhook="https://example.com/"), start=True)
    assert receipt.claim
    async with asyncio.timeout(10):
        await asyncio.sleep(0.2)  # earlier writes must not be taken for the change
        for store, event in told.items():
            store.subscribe(topic, event.set)
        if topic is Topic.WORK:
            await here.submit(make_job())
        elif topic is Topic.CANCEL:
            await here.cancel(receipt.request_id)
        elif topic is Topic.POLL:
            task = make_task(poll=PollConfig("https://example.com/x", "status", ("done",), ()))
            await here.tasks.complete_attempt(receipt.claim, task, make_response(), make_wait(poll_in=5.0))
        else:
            await here.complete(receipt.claim, make_response())
        for event in told.values():
            await event.wait()


async def test_closing_releases_all_claims(stores: Stores) -> None:
    """A process that closes its store leaves no lease for which the next process must wait."""
    store = await stores.open()
    receipt = await store.submit(make_job(), start=True)
    done = await store.submit(make_job(webhook="https://example.com/"), start=True)
    assert done.claim
    await store.complete(done.claim, make_response())
    await claim_deliveries(store, 1)
    await store.close()
    heir = await stores.open()
    (claim,) = await heir.claim(1)
    assert (claim.request_id, claim.attempt) == (receipt.request_id, 1)
    assert len(await claim_deliveries(heir, 1)) == 1


async def test_close_is_repeatable(store: JobStore) -> None:
    await store.close()
    await store.close()


async def test_jobs_that_have_changed_are_found_among_many(store: JobStore) -> None:
    for _ in range(5):
        await store.submit(make_job())
    claims = await store.claim(2)
    queued = [listed.job.key for listed in (await store.page(JobFilter())).jobs]
    keys = sorted(queued)
    running = sorted(claim.key for claim in claims)
    assert sorted(await store.changed([*keys, 1], JobState.QUEUED, 0)) == [1, *running]
    assert sorted(await store.changed(running, JobState.RUNNING, 1)) == []
    assert await store.complete(claims[0], make_response())
    await store.retry(claims[1], 0.0)
    assert sorted(await store.changed(running, JobState.RUNNING, 1)) == running
    (again,) = await store.claim(1)
    assert again.key == claims[1].key
    assert await store.changed([again.key], JobState.RUNNING, 1) == [again.key]
    assert await store.changed([again.key], JobState.RUNNING, 2) == []
    assert await store.changed([], JobState.QUEUED, 0) == []
