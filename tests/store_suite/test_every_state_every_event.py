"""Every state times every event: what the law names happens, and nothing else does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from queue_middleware.lifecycle import DELIVERY, JOB, DeliveryEvent, JobEvent
from queue_middleware.models import Claim, Delivery, DeliveryState, ErrorType, Failure, JobState
from queue_middleware.store import Store
from queue_middleware.tasks import Channel
from tests.nouns import a_job, a_task, a_wait, a_word, an_answer, an_attempt
from tests.store_suite.conftest import ManualClock

FAILED = Failure(ErrorType.RUNNER_SERVER_ERROR, "broken")
CANCELLED = Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")


async def bring_to(store: Store, state: JobState) -> tuple[str, Claim]:
    """A job in this state, and a claim on it, which is stale in all states but RUNNING."""
    receipt = await store.submit(a_job(start_timeout=60.0, task=a_task()))
    (claim,) = await store.claim(1)
    match state:
        case JobState.WAITING:
            await _wait(store, None, claim)
        case JobState.QUEUED:
            await store.release(claim)
        case JobState.DELAYED:
            await store.retry(claim, 30.0)
        case JobState.COMPLETED:
            await store.complete(claim, an_answer())
        case JobState.FAILED:
            await store.fail(claim, FAILED)
        case JobState.CANCELLED:
            await store.fail(claim, CANCELLED)
    assert (await store.job(receipt.request_id)).state is state
    return receipt.request_id, claim


async def _lose(store: Store, clock: ManualClock, claim: Claim) -> None:
    clock.advance(60)
    await store.rescue(retry=True)


async def _become_due(store: Store, clock: ManualClock, claim: Claim) -> None:
    clock.advance(30)
    assert await store.claim(0) == []


async def _expire(store: Store, clock: ManualClock, claim: Claim) -> None:
    clock.advance(60)
    await store.expire()


async def _cancel(store: Store, clock: ManualClock, claim: Claim) -> None:
    await store.cancel(claim.request_id)
    await store.fail(claim, CANCELLED)  # how the attempt ends itself, once it is told


async def _wait(store: Store, clock: object, claim: Claim) -> None:
    await store.waiting.conclude(claim, claim.task, an_answer(), a_wait())


async def _time_out(store: Store, clock: ManualClock, claim: Claim) -> None:
    clock.advance(30)
    await store.waiting.time_out()


HAPPENS: dict[JobEvent, Callable[[Store, ManualClock, Claim], Awaitable[object]]] = {
    JobEvent.CLAIM: lambda store, _, __: store.claim(1),
    JobEvent.COMPLETE: lambda store, _, claim: store.complete(claim, an_answer()),
    JobEvent.FAIL: lambda store, _, claim: store.fail(claim, FAILED),
    JobEvent.RETRY: lambda store, _, claim: store.retry(claim, 30.0),
    JobEvent.RELEASE: lambda store, _, claim: store.release(claim),
    JobEvent.LOSE: _lose,
    JobEvent.DUE: _become_due,
    JobEvent.EXPIRE: _expire,
    JobEvent.CANCEL: _cancel,
    JobEvent.WAIT: _wait,
    JobEvent.RESOLVE: lambda store, _, claim: store.waiting.resolve(claim.key, Channel.CALLBACK, a_word()),
    JobEvent.REJECT: lambda store, _, claim: store.waiting.resolve(claim.key, Channel.POLL, a_word(failure=FAILED)),
    JobEvent.TIME_OUT: _time_out,
}


@pytest.mark.parametrize("event", JobEvent)
@pytest.mark.parametrize("state", JobState)
async def test_job(store: Store, clock: ManualClock, state: JobState, event: JobEvent) -> None:
    request_id, claim = await bring_to(store, state)
    await HAPPENS[event](store, clock, claim)
    assert (await store.job(request_id)).state is JOB.get((state, event), state)


async def bring_delivery_to(store: Store, state: DeliveryState) -> Delivery:
    await store.submit(a_job(webhook="https://example.com/hook"))
    (claim,) = await store.claim(1)
    await store.complete(claim, an_answer())
    (delivery,) = await store.claim_deliveries(1)
    match state:
        case DeliveryState.PENDING:
            await store.settle(delivery, an_attempt(500, "answered 500"), delivered=False, retry_in=0.0)
        case DeliveryState.DELIVERED:
            await store.settle(delivery, an_attempt(), delivered=True, retry_in=None)
        case DeliveryState.DEAD:
            await store.settle(delivery, an_attempt(410, "answered 410"), delivered=False, retry_in=None)
    assert (await store.counts()).deliveries == {state: 1}
    return delivery


async def _lose_delivery(store: Store, clock: ManualClock, delivery: Delivery) -> None:
    clock.advance(60)
    await store.rescue(retry=True)


DELIVERY_HAPPENS: dict[DeliveryEvent, Callable[[Store, ManualClock, Delivery], Awaitable[object]]] = {
    DeliveryEvent.CLAIM: lambda store, _, __: store.claim_deliveries(1),
    DeliveryEvent.SUCCEED: lambda store, _, delivery: store.settle(delivery, an_attempt(), delivered=True, retry_in=None),
    DeliveryEvent.RETRY: lambda store, _, delivery: store.settle(delivery, an_attempt(), delivered=False, retry_in=5.0),
    DeliveryEvent.EXHAUST: lambda store, _, delivery: store.settle(delivery, an_attempt(), delivered=False, retry_in=None),
    DeliveryEvent.LOSE: _lose_delivery,
}


@pytest.mark.parametrize("event", DeliveryEvent)
@pytest.mark.parametrize("state", DeliveryState)
async def test_delivery(store: Store, clock: ManualClock, state: DeliveryState, event: DeliveryEvent) -> None:
    delivery = await bring_delivery_to(store, state)
    await DELIVERY_HAPPENS[event](store, clock, delivery)
    assert (await store.counts()).deliveries == {DELIVERY.get((state, event), state): 1}
