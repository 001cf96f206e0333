"""The table `leases.IS_LOST`, which every store applies to attempts, deliveries and polls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from queue_middleware.jobs.leases import IS_LOST, Holder
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.jobs.task_spec import PollConfig
from queue_middleware.webhooks.models import DeliveryState
from tests.support.clock import ManualClock
from tests.support.factories import a_job, a_task, a_wait, an_answer, an_attempt, claimed, claimed_polls
from tests.support.leases import lease_passes
from tests.support.queue_client import eventually

from .conftest import Stores

IsHeld = Callable[[], Awaitable[bool]]
POLLS = PollConfig("https://provider.test/{startResult.body.id}", "status", ("done",), ("failed",))


async def an_attempt_of(store: JobStore) -> tuple[int, IsHeld]:
    claim = (await store.submit(a_job(), start=True)).claim
    assert claim

    async def is_held() -> bool:
        return (claim.key, claim.token) in await store.running_claims()

    return claim.token, is_held


async def a_delivery_of(store: JobStore) -> tuple[int, IsHeld]:
    claim = (await store.submit(a_job(webhook="https://receiver.test/"), start=True)).claim
    assert claim
    await store.complete(claim, an_answer())
    (delivery,) = await claimed(store)

    async def is_held() -> bool:
        return (await store.counts()).deliveries == {DeliveryState.SENDING: 1}

    return delivery.token, is_held


async def a_poll_of(store: JobStore) -> tuple[int, IsHeld]:
    claim = (await store.submit(a_job(task=a_task(poll=POLLS)), start=True)).claim
    assert claim
    assert claim.task
    await store.tasks.complete_attempt(claim, claim.task, an_answer(), a_wait(90_000.0, poll_in=0.0))
    (poll,) = await claimed_polls(store)

    async def is_held() -> bool:
        return await store.next_due(Topic.POLL) is None

    return poll.token, is_held


HELD = {"attempt": an_attempt_of, "delivery": a_delivery_of, "poll": a_poll_of}


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize(
    ("judgement", "lost"), IS_LOST.items(), ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else ""
)
async def test_the_table_of_lost_leases(
    stores: Stores, clock: ManualClock, what: str, judgement: tuple[Holder, bool, bool], lost: bool
) -> None:
    holder, over, calm = judgement
    judge, other = await stores.open(lease=60.0), await stores.open(lease=60.0)
    token, is_held = await HELD[what](judge if holder is Holder.ITSELF else other)
    await lease_passes(judge, clock)
    if not over:
        await asyncio.to_thread((judge if holder is Holder.ITSELF else other).renew, [token])
    if not calm:
        clock.advance(31)  # for so long the judging process has committed nothing
        if not over:
            await asyncio.to_thread(other.renew, [token])
    if holder is Holder.EXITED:
        stores.die(other)
    await judge.rescue(running=[token] if holder is Holder.ITSELF else [])
    assert await is_held() is not lost


@pytest.mark.parametrize("what", HELD)
async def test_no_outage_makes_a_running_process_lose_its_claims(stores: Stores, clock: ManualClock, what: str) -> None:
    """This holds for each of several processes, which renew one after the other when the database is back."""
    one, other = await stores.open(), await stores.open()
    token, is_held = await HELD[what](one)
    await lease_passes(one, clock, renewed=[token])
    await lease_passes(other, clock)
    for outage in (45, 3600, 86_400):
        clock.advance(outage)
        for judge in (other, one):
            await judge.rescue(running=[token] if judge is one else [])
        assert await is_held()
        clock.advance(10)
        assert await asyncio.to_thread(one.renew, [token]) == 1
        await other.rescue()
        assert await is_held()


@pytest.mark.parametrize("hours", [-1, 1, 24 * 365])
async def test_setting_the_clock_neither_ends_nor_extends_a_lease(store: JobStore, clock: ManualClock, hours: int) -> None:
    token, is_held = await an_attempt_of(store)
    await lease_passes(store, clock, renewed=[token])
    clock.set(hours * 3600)
    await store.rescue()
    assert await is_held()
    await lease_passes(store, clock)
    await store.rescue()
    assert not await is_held()


async def test_a_newly_opened_store_judges_no_lease_for_the_length_of_a_lease(stores: Stores, clock: ManualClock) -> None:
    old = await stores.open()
    _, is_held = await an_attempt_of(old)
    clock.advance(100)
    new = await stores.open()
    for _ in range(3):
        await new.rescue()
        assert await is_held()
        clock.advance(15)
        await asyncio.to_thread(new.renew, ())
    clock.advance(15)
    await asyncio.to_thread(new.renew, ())
    await new.rescue()
    assert not await is_held()


async def test_a_result_counts_even_after_the_lease_has_ended(store: JobStore, clock: ManualClock) -> None:
    """Unless another process has taken over the job."""
    claim = (await store.submit(a_job(webhook="https://receiver.test/"), start=True)).claim
    assert claim
    clock.advance(1000)
    assert await store.complete(claim, an_answer(b"kept"))
    (delivery,) = await claimed(store)
    clock.advance(1000)
    assert await store.webhooks.settle(delivery, an_attempt(), delivered=True, retry_in=None)


async def test_a_renewal_of_a_lost_lease_notifies_at_once(stores: Stores, clock: ManualClock) -> None:
    stopped, other = await stores.open(), await stores.open()
    token, is_held = await an_attempt_of(stopped)
    await lease_passes(other, clock)
    await other.rescue()
    assert not await is_held()
    heard: list[Any] = []
    stopped.subscribe(Topic.CANCEL, lambda: heard.append(1))
    heard.clear()
    assert await asyncio.to_thread(stopped.renew, [token]) == 0
    await eventually(lambda: heard)


async def test_claims_released_at_close_are_free_at_once(stores: Stores) -> None:
    leaving, staying = await stores.open(), await stores.open()
    _, is_held = await a_poll_of(leaving)
    assert await is_held()
    await leaving.close()
    assert await staying.next_due(Topic.POLL) == 0.0
    assert (await staying.counts()).jobs == {JobState.AWAITING: 1}
