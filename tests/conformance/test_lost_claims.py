"""Writes of a whole group when some of its claims, or all of them, are no longer held."""

from __future__ import annotations

import asyncio

import pytest

from queue_middleware.jobs.log_lines import LogLevel, LogLine
from queue_middleware.jobs.models import Claim, JobState, Progress, WebhookKind
from queue_middleware.jobs.store import JobStore
from queue_middleware.webhooks.models import DeliveryState
from tests.support.clock import ManualClock
from tests.support.factories import claim_deliveries, make_delivery_attempt, make_job, make_response
from tests.support.leases import lease_passes

pytestmark = pytest.mark.usefixtures("course")

COUNT = 6
LOST = 2
"""The index of the lost claim in the batch."""
HELD = [number != LOST for number in range(COUNT)]
PROGRESS = Progress(0.5)


async def begin(store: JobStore, **changes: object) -> list[Claim]:
    receipts = [await store.submit(make_job(**changes), start=True) for _ in range(COUNT)]
    return [receipt.claim for receipt in receipts if receipt.claim]


def a_line() -> list[LogLine]:
    return [LogLine(1_700_000_000_000_000, LogLevel.INFO, "line")]


async def stored(store: JobStore, claim: Claim) -> bool:
    """Whether the job has this line; a release adds another one."""
    return [line.message for line in await store.logs(claim.key)].count("line") == 1


async def test_jobs_end_in_a_batch_with_a_lost_claim(store: JobStore) -> None:
    claims = await begin(store, webhook="https://a.example/hook")
    await store.release(claims[LOST])
    assert await asyncio.gather(*[store.complete(claim, make_response()) for claim in claims]) == HELD
    assert (await store.counts()).jobs == {JobState.COMPLETED: COUNT - 1, JobState.QUEUED: 1}
    assert (await store.counts()).deliveries == {DeliveryState.PENDING: COUNT - 1}


async def test_a_batch_of_lost_claims_ends_no_job(store: JobStore, clock: ManualClock) -> None:
    stale = await begin(store)
    await lease_passes(store, clock)
    await store.rescue()
    assert not any(await asyncio.gather(*[store.complete(claim, make_response()) for claim in stale]))
    assert (await store.counts()).jobs == {JobState.DELAYED: COUNT}


async def test_repeated_ends_in_a_batch_are_confirmed(store: JobStore) -> None:
    claims = await begin(store, webhook="https://a.example/hook")
    for _ in range(2):
        assert all(await asyncio.gather(*[store.complete(claim, make_response()) for claim in claims]))
    assert (await store.counts()).deliveries == {DeliveryState.PENDING: COUNT}


async def test_lines_are_stored_in_a_batch_with_a_lost_claim(store: JobStore) -> None:
    claims = await begin(store, webhook="https://a.example/hook", webhook_kinds=(WebhookKind.PROGRESS,))
    await store.release(claims[LOST])
    assert await asyncio.gather(*[store.log(claim, a_line(), PROGRESS) for claim in claims]) == HELD
    assert [await stored(store, claim) for claim in claims] == HELD
    assert [(await store.job(claim.request_id)).progress for claim in claims] == [PROGRESS if held else None for held in HELD]
    assert (await store.counts()).deliveries == {DeliveryState.PENDING: COUNT - 1}


async def test_last_lines_are_stored_even_if_the_progress_is_too_late(store: JobStore) -> None:
    claims = await begin(store)
    await asyncio.gather(*[store.complete(claim, make_response()) for claim in claims])
    assert all(await asyncio.gather(*[store.log(claim, a_line(), PROGRESS) for claim in claims]))
    assert all([await stored(store, claim) for claim in claims])
    assert [(await store.job(claim.request_id)).progress for claim in claims] == [None] * COUNT


async def test_deliveries_are_settled_in_a_batch_with_a_lost_one(store: JobStore) -> None:
    for number in range(COUNT):
        claim = (await store.submit(make_job(webhook=f"https://r{number}.example/"), start=True)).claim
        assert claim
        await store.complete(claim, make_response())
    deliveries = await claim_deliveries(store)
    await store.webhooks.release([deliveries[LOST]])
    settled = await asyncio.gather(
        *[store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None) for delivery in deliveries]
    )
    assert [one.held for one in settled] == HELD
    assert (await store.counts()).deliveries == {DeliveryState.DELIVERED: COUNT - 1, DeliveryState.PENDING: 1}
    attempts = [len(await store.webhooks.attempts(delivery.id)) for delivery in deliveries]
    assert attempts == [int(held) for held in HELD]
