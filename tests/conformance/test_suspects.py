"""A job that lost its process may have ended it: it is delayed, and runs only while no other such job does."""

from __future__ import annotations

import random

import pytest

from queue_middleware.jobs.models import Claim, JobState, RescuedJob, RetryPolicy, WebhookKind
from queue_middleware.jobs.outcomes import LossReason
from queue_middleware.jobs.rescues import GivenUpDelivery
from queue_middleware.jobs.retry import LONG_ATTEMPT_MS, MAX_FREE_RELEASES
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.stores.common.requeueing import LOST_SENDER
from queue_middleware.webhooks.models import DeliveryState
from tests.conformance.conftest import Stores
from tests.support.clock import ManualClock
from tests.support.factories import claim_deliveries, make_job, make_response
from tests.support.leases import lease_passes

BACKOFF = 4
"""Seconds after which a job that was lost once or twice is due again."""


async def begun(store: JobStore, count: int) -> list[Claim]:
    claims = [(await store.submit(make_job(), start=True)).claim for _ in range(count)]
    return [claim for claim in claims if claim]


async def lost(store: JobStore, clock: ManualClock) -> None:
    """All processes that run jobs."""
    await lease_passes(store, clock)
    await store.rescue()


async def test_suspects_are_delayed_and_run_one_at_a_time(stores: Stores, clock: ManualClock) -> None:
    one, other = await stores.open(), await stores.open()
    await begun(one, 3)
    await lost(other, clock)
    assert await one.claim(8) == []
    assert 0.5 <= await other.next_due(Topic.WORK) <= 1
    clock.advance(BACKOFF)
    for _ in range(3):
        (claim,) = await one.claim(8)
        assert await other.claim(8) == []
        assert await other.next_due(Topic.WORK) is None  # the end of the running suspect starts the next one
        await one.complete(claim, make_response())
    assert await one.claim(8) == []


async def test_other_jobs_run_beside_suspects(stores: Stores, clock: ManualClock) -> None:
    one, other = await stores.open(), await stores.open()
    await begun(one, 2)
    await lost(other, clock)
    clock.advance(BACKOFF)
    (suspect,) = await one.claim(8)
    assert suspect.attempt == 2
    assert len(await begun(other, 2)) == 2
    await other.submit(make_job())
    assert [claim.attempt for claim in await one.claim(8)] == [1]


@pytest.mark.parametrize("end", ["complete", "cancel", "retry", "release", "lose"])
async def test_the_end_of_a_suspect_starts_the_next(store: JobStore, clock: ManualClock, end: str) -> None:
    await begun(store, 2)
    await lost(store, clock)
    clock.advance(BACKOFF)
    (first,) = await store.claim(8)
    told: list[str] = []
    store.subscribe(Topic.WORK, lambda: told.append("work"))
    match end:
        case "complete":
            await store.complete(first, make_response())
        case "cancel":
            await store.release(first)
            await store.cancel(first.request_id)
        case "retry":
            await store.retry(first, 30.0)
        case "release":  # at its old position, and still a suspect
            await store.release(first)
            (again,) = await store.claim(8)
            assert again.request_id == first.request_id
            return
        case "lose":
            await store.lose(first, LossReason.EXIT)
    assert told
    (second,) = await store.claim(8)
    assert second.request_id != first.request_id


async def test_a_job_retried_for_another_reason_is_no_longer_a_suspect(store: JobStore, clock: ManualClock) -> None:
    await begun(store, 2)
    await lost(store, clock)
    clock.advance(BACKOFF)
    (first,) = await store.claim(8)
    await store.retry(first, 1.0)
    (second,) = await store.claim(8)
    clock.advance(1)
    assert [claim.request_id for claim in await store.claim(8)] == [first.request_id]
    await store.complete(second, make_response())


async def test_a_new_loss_postpones_the_other_suspects(store: JobStore, clock: ManualClock) -> None:
    await begun(store, 2)
    await lost(store, clock)
    clock.advance(BACKOFF)
    (suspect,) = await store.claim(8)
    await begun(store, 1)
    await lost(store, clock)
    assert await store.claim(8) == []
    assert suspect.attempt == 2


@pytest.mark.parametrize("seed", range(20))
async def test_harmless_jobs_lost_with_a_crashing_one_always_finish(stores: Stores, clock: ManualClock, seed: int) -> None:
    """Several jobs crash at the same time, in one process or in several; each crash loses all jobs of its process."""
    chance = random.Random(seed)
    workers = [await stores.open() for _ in range(chance.choice((1, 2, 3)))]
    bad, good = chance.randint(1, 4), chance.randint(1, 8)
    guilty = chance.sample(range(bad + good), bad)
    crashing: set[str] = set()
    innocent: set[str] = set()
    for number in range(bad + good):
        (crashing if number in guilty else innocent).add((await workers[0].submit(make_job())).request_id)
    for store in chance.sample(workers, len(workers)):
        await store.claim(8)  # all running jobs of a process are lost with it
    for _ in range(100):
        await lost(workers[0], clock)
        clock.advance(BACKOFF)
        if not (claims := [claim for store in workers for claim in await store.claim(8)]):
            break
        for claim in claims:
            if claim.request_id in innocent and not any(other.request_id in crashing for other in claims):
                await workers[0].complete(claim, make_response()) or await workers[-1].complete(claim, make_response())
    states = {request_id: (await workers[0].job(request_id)).state for request_id in innocent | crashing}
    assert {states[request_id] for request_id in innocent} == {JobState.COMPLETED}
    assert {states[request_id] for request_id in crashing} == {JobState.FAILED}


async def test_a_lost_delivery_is_delayed_longer_each_time_and_given_up(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(webhook_schedule="1s")
    claim = (await store.submit(make_job(webhook="https://example.com/"), start=True)).claim
    assert claim
    await store.complete(claim, make_response())
    given_up: list[RescuedJob | GivenUpDelivery] = []
    for wait in (1, 2, 4, 8, 16):  # two attempts of the schedule and three that may be lost besides
        (delivery,) = await claim_deliveries(store)
        assert given_up == []
        await lease_passes(store, clock)
        given_up = await store.rescue()
        clock.advance(wait - 0.001)
        assert await claim_deliveries(store) == []
        clock.advance(0.001)
    assert await claim_deliveries(store) == []
    assert (await store.counts()).deliveries == {DeliveryState.DEAD: 1}
    assert given_up == [GivenUpDelivery(delivery.id, claim.request_id, WebhookKind.COMPLETED, "example.com", 5, LOST_SENDER)]
    recorded = await store.webhooks.attempts(delivery.id)
    assert len(recorded) == 5
    assert all(attempt.error and attempt.error.startswith("lost: the process that sent it died") for attempt in recorded)


# --- exits


async def test_an_exit_caused_by_an_attempt_is_charged(store: JobStore, clock: ManualClock) -> None:
    (claim,) = await begun(store, 1)
    rescue = await store.lose(claim, LossReason.EXIT)
    assert rescue
    assert rescue.state is JobState.DELAYED
    assert await store.lose(claim, LossReason.EXIT) is None
    clock.advance(BACKOFF)
    (again,) = await store.claim(1)
    assert again.attempt == 2


async def released(store: JobStore, clock: ManualClock, milliseconds: int = 1000) -> int | None:
    """Release the running attempt after this time. Returns its number; None if none is running."""
    claims = await store.claim(1)
    clock.advance(milliseconds / 1000)
    for claim in claims:
        await store.release(claim)
        return claim.attempt
    return None


async def test_releases_are_charged_from_the_third_in_a_row(store: JobStore, clock: ManualClock) -> None:
    receipt = await store.submit(make_job())
    assert MAX_FREE_RELEASES == 2
    assert [await released(store, clock) for _ in range(6)] == [1, 1, 1, 2, 3, None]
    job = await store.job(receipt.request_id)
    assert job.failure is not None
    assert "again and again" in job.failure.detail


async def test_occasional_deployments_do_not_fail_a_long_request(store: JobStore, clock: ManualClock) -> None:
    await store.submit(make_job(retry=RetryPolicy(1)))
    assert [await released(store, clock, LONG_ATTEMPT_MS) for _ in range(20)] == [1] * 20
    for _ in range(5):  # short attempts in between are not in a row
        assert [await released(store, clock) for _ in range(MAX_FREE_RELEASES)] == [1, 1]
        assert await released(store, clock, LONG_ATTEMPT_MS) == 1


async def test_the_close_of_a_store_counts_as_a_release(stores: Stores) -> None:
    attempts = []
    for _ in range(4):
        store = await stores.open()
        attempts += [claim.attempt for claim in await store.claim(1)] or [(await begun(store, 1))[0].attempt]
        await store.close()
    assert attempts == [1, 1, 1, 2]


async def test_the_log_has_the_reason_of_the_delay(store: JobStore, clock: ManualClock) -> None:
    (claim,) = await begun(store, 1)
    await lost(store, clock)
    clock.advance(BACKOFF)
    for _ in range(3):
        await released(store, clock)
    (claim,) = await store.claim(1)
    await store.lose(claim, LossReason.EXIT)
    said = [line.message for line in await store.logs(claim.key)]
    assert "attempt 1 of 3 was lost: the process that ran it did not answer; next attempt in" in said[0]
    assert said[1] == "attempt 2 was stopped by the end of its process; it does not count, and the request is run again"
    assert said[3] == (
        "attempt 2 was stopped by the end of its process; it counts, because this has happened too often, "
        "and the request is run again"
    )
    assert len(said) == 4


async def test_without_logs_no_line_is_added(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(max_logs=0)
    (claim,) = await begun(store, 1)
    await lost(store, clock)
    assert await store.logs(claim.key) == []
