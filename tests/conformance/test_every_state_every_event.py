"""For every state and event exactly the transition of the table happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from queue_middleware.jobs.models import Claim, ErrorType, Failure, JobState, Progress, WebhookKind
from queue_middleware.jobs.states import JOB_TRANSITIONS, JobEvent
from queue_middleware.jobs.store import JobStore
from queue_middleware.tasks.models import CompletionSource
from queue_middleware.webhooks.models import DELIVERY_TRANSITIONS, DeliveryClaim, DeliveryEvent, DeliveryFilter, DeliveryState
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

FAILED = Failure(ErrorType.RUNNER_SERVER_ERROR, "broken")
CANCELLED = Failure(ErrorType.CLIENT_CANCELLED, "Request was cancelled")


async def bring_to(store: JobStore, state: JobState) -> tuple[str, Claim]:
    """A job in this state, and a claim on it, which is stale in all states but RUNNING."""
    receipt = await store.submit(make_job(start_timeout=60.0, task=make_task()))
    (claim,) = await store.claim(1)
    match state:
        case JobState.AWAITING:
            await _wait(store, None, claim)
        case JobState.QUEUED:
            await store.release(claim)
        case JobState.DELAYED:
            await store.retry(claim, 30.0)
        case JobState.COMPLETED:
            await store.complete(claim, make_response())
        case JobState.FAILED:
            await store.fail(claim, FAILED)
        case JobState.CANCELLED:
            await store.fail(claim, CANCELLED)
    assert (await store.job(receipt.request_id)).state is state
    return receipt.request_id, claim


async def _lose(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    await lease_passes(store, clock)
    await store.rescue()


async def _become_due(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    clock.advance(30)
    assert await store.claim(0) == []


async def _expire(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    clock.advance(60)
    await store.expire()


async def _cancel(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    await store.cancel(claim.request_id)
    await store.fail(claim, CANCELLED)  # the attempt ends like this after the request


async def _wait(store: JobStore, clock: object, claim: Claim) -> None:
    await store.tasks.complete_attempt(claim, claim.task, make_response(), make_wait())


async def _time_out(store: JobStore, clock: ManualClock, claim: Claim) -> None:
    clock.advance(30)
    await store.tasks.time_out()


HAPPENS: dict[JobEvent, Callable[[JobStore, ManualClock, Claim], Awaitable[object]]] = {
    JobEvent.CLAIM: lambda store, _, __: store.claim(1),
    JobEvent.COMPLETE: lambda store, _, claim: store.complete(claim, make_response()),
    JobEvent.FAIL: lambda store, _, claim: store.fail(claim, FAILED),
    JobEvent.RETRY: lambda store, _, claim: store.retry(claim, 30.0),
    JobEvent.RELEASE: lambda store, _, claim: store.release(claim),
    JobEvent.RESCUE: _lose,
    JobEvent.DUE: _become_due,
    JobEvent.EXPIRE: _expire,
    JobEvent.CANCEL: _cancel,
    JobEvent.AWAIT: _wait,
    JobEvent.RESOLVE: lambda store, _, claim: store.tasks.resolve(claim.key, CompletionSource.CALLBACK, make_result()),
    JobEvent.REJECT: lambda store, _, claim: store.tasks.resolve(claim.key, CompletionSource.POLL, make_result(failure=FAILED)),
    JobEvent.TIME_OUT: _time_out,
}


@pytest.mark.parametrize("event", JobEvent)
@pytest.mark.parametrize("state", JobState)
async def test_job(store: JobStore, clock: ManualClock, state: JobState, event: JobEvent) -> None:
    request_id, claim = await bring_to(store, state)
    await HAPPENS[event](store, clock, claim)
    assert (await store.job(request_id)).state is JOB_TRANSITIONS.get((state, event), state)


async def bring_delivery_to(store: JobStore, state: DeliveryState) -> tuple[int, DeliveryClaim, Claim]:
    """The id of a delivery, the attempt of it or of the one that blocks it, and the claim on its request."""
    receipt = await store.submit(make_job(webhook="https://example.com/", webhook_kinds=tuple(WebhookKind)), start=True)
    assert receipt.claim
    if state is DeliveryState.PENDING:
        (delivery,) = await claim_deliveries(store)
        await store.webhooks.settle(delivery, make_delivery_attempt(500, "answered 500"), delivered=False, retry_in=0.0)
        return delivery.id, delivery, receipt.claim
    (delivery,) = await claim_deliveries(store)
    match state:
        case DeliveryState.BLOCKED:
            await store.log(receipt.claim, [], Progress(0.5))
            return delivery.id + 1, delivery, receipt.claim
        case DeliveryState.DELIVERED:
            await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None)
        case DeliveryState.DEAD:
            await store.webhooks.settle(delivery, make_delivery_attempt(410, "answered 410"), delivered=False, retry_in=None)
        case DeliveryState.SUPERSEDED:
            await store.log(receipt.claim, [], Progress(0.5))
            await store.webhooks.settle(delivery, make_delivery_attempt(500, "answered 500"), delivered=False, retry_in=5.0)
    return delivery.id, delivery, receipt.claim


class Hands:
    """The operations on the delivery with this id."""

    def __init__(self, store: JobStore, clock: ManualClock, number: int, attempted: DeliveryClaim, claim: Claim) -> None:
        self.store, self.clock, self.number, self.attempted, self.claim = store, clock, number, attempted, claim

    @property
    def delivery(self) -> DeliveryClaim:
        """The attempt of the delivery; an invented one if it had none."""
        return self.attempted if self.attempted.id == self.number else self.attempted.replace(id=self.number, token=1)

    async def settle(self, delivered: bool, retry_in: float | None) -> None:
        attempt = make_delivery_attempt() if delivered else make_delivery_attempt(500, "answered 500")
        await self.store.webhooks.settle(self.delivery, attempt, delivered=delivered, retry_in=retry_in)

    async def lose(self) -> None:
        await lease_passes(self.store, self.clock)
        await self.store.rescue()

    async def follow(self) -> None:
        if self.attempted.id != self.number:
            await self.store.webhooks.settle(self.attempted, make_delivery_attempt(), delivered=True, retry_in=None)

    async def supersede(self) -> None:
        await self.store.log(self.claim, [], Progress(0.9))
        await self.settle(delivered=False, retry_in=5.0)


DELIVERY_HAPPENS: dict[DeliveryEvent, Callable[[Hands], Awaitable[object]]] = {
    DeliveryEvent.CLAIM: lambda hands: claim_deliveries(hands.store),
    DeliveryEvent.SUCCEED: lambda hands: hands.settle(delivered=True, retry_in=None),
    DeliveryEvent.RETRY: lambda hands: hands.settle(delivered=False, retry_in=5.0),
    DeliveryEvent.EXHAUST: lambda hands: hands.settle(delivered=False, retry_in=None),
    DeliveryEvent.RELEASE: lambda hands: hands.store.webhooks.release([hands.delivery]),
    DeliveryEvent.LOSE: Hands.lose,
    DeliveryEvent.UNBLOCK: Hands.follow,
    DeliveryEvent.SUPERSEDE: Hands.supersede,
    DeliveryEvent.REDELIVER: lambda hands: hands.store.webhooks.redeliver([hands.number], "carol", "all"),
}
"""All events but `GIVE_UP`, which needs a host and a day and is tested in `test_outbox`."""


@pytest.mark.parametrize("event", DELIVERY_HAPPENS)
@pytest.mark.parametrize("state", DeliveryState)
async def test_delivery(store: JobStore, clock: ManualClock, state: DeliveryState, event: DeliveryEvent) -> None:
    hands = Hands(store, clock, *await bring_delivery_to(store, state))
    assert await state_of(store, hands.number) is state
    await DELIVERY_HAPPENS[event](hands)
    assert await state_of(store, hands.number) is DELIVERY_TRANSITIONS.get((state, event), state)


async def state_of(store: JobStore, number: int) -> DeliveryState:
    (record,) = await store.webhooks.records(DeliveryFilter(delivery_id=number))
    return record.state
