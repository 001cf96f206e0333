"""Text of handlers, providers and receivers that some databases refuse: NUL and surrogates."""

from __future__ import annotations

from queue_middleware.jobs.models import Claim, ErrorType, Failure, Progress
from queue_middleware.jobs.store import JobStore
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.tasks.models import CompletionSource
from tests.support.clock import ManualClock
from tests.support.factories import (
    claim_deliveries,
    claim_polls,
    make_delivery_attempt,
    make_job,
    make_response,
    make_result,
    make_task,
    make_wait,
)

GIVEN = "a\0b\udcffc"
STORED = "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
POLL = PollConfig("https://a.example/x", "status", ("done",), ())
FAILURE = Failure(ErrorType.PROVIDER_FAILED, GIVEN)


async def begin(store: JobStore, **changes: object) -> Claim:
    claim = (await store.submit(make_job(**changes), start=True)).claim
    assert claim
    return claim


async def reason(store: JobStore, claim: Claim) -> str | None:
    failure = (await store.job(claim.request_id)).failure
    return failure and failure.detail


async def test_unstorable_text_in_a_stage(store: JobStore) -> None:
    claim = await begin(store)
    assert await store.log(claim, [], Progress(0.5, GIVEN))
    assert (await store.job(claim.request_id)).progress == Progress(0.5, STORED)


async def test_unstorable_text_in_a_failure(store: JobStore) -> None:
    claim = await begin(store)
    assert await store.fail(claim, FAILURE)
    assert await reason(store, claim) == STORED


async def test_unstorable_text_from_a_provider(store: JobStore) -> None:
    early, late = [await begin(store, task=make_task(callback=True)) for _ in range(2)]
    await store.tasks.resolve(early.key, CompletionSource.CALLBACK, make_result(failure=FAILURE))
    for claim in (early, late):
        assert claim.task
        await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait())
    await store.tasks.record_status(late.key, GIVEN)
    assert (await store.tasks.record(late.request_id)).last_status == STORED
    await store.tasks.resolve(late.key, CompletionSource.CALLBACK, make_result(failure=FAILURE))
    assert [await reason(store, claim) for claim in (early, late)] == [STORED, STORED]


async def test_unstorable_text_in_a_polled_status(store: JobStore, clock: ManualClock) -> None:
    claim = await begin(store, task=make_task(poll=POLL))
    assert claim.task
    await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait(poll_in=1.0))
    clock.advance(1)
    (poll,) = await claim_polls(store)
    assert await store.tasks.settle_poll(poll, next_in=1.0, status=GIVEN)
    assert (await store.tasks.record(claim.request_id)).last_status == STORED


async def test_unstorable_text_in_the_error_of_a_delivery(store: JobStore) -> None:
    await store.complete(await begin(store, webhook="https://a.example/hook"), make_response())
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.settle(delivery, make_delivery_attempt(None, GIVEN), delivered=False, retry_in=1.0)
    assert [attempt.error for attempt in await store.webhooks.attempts(delivery.id)] == [STORED]
