"""The webhooks of one request always follow the rules of `webhook_order`."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from queue_middleware.jobs.models import Claim, Progress, WebhookKind
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.webhooks.models import DeliveryClaim, DeliveryFilter, DeliveryState
from queue_middleware.webhooks.order import OrderedDelivery, add, end_attempt, next_at
from tests.support.clock import ManualClock
from tests.support.factories import claim_deliveries, make_delivery_attempt, make_job, make_response

_PAUSE = 500
"""Milliseconds between two webhooks about progress."""


class Model:
    """A request with webhooks for start, progress and end, in the store and according to the rules."""

    def __init__(self, store: JobStore, clock: ManualClock, claim: Claim, seed: int) -> None:
        self._store = store
        self._clock = clock
        self._claim = claim
        self._random = random.Random(seed)
        self._sending: DeliveryClaim | None = None
        self._last_progress: int | None = None
        self._unsent_progress: int | None = None
        self._is_complete = False
        self.expected = add((), is_event=True, due_at=clock.now)

    async def step(self) -> None:
        """Do one operation."""
        await self._random.choice((self._report, self._claim_next, self._end_attempt, self._complete, self._wait))()

    async def _report(self) -> None:
        if self._is_complete:
            return
        await self._store.log(self._claim, [], Progress(self._random.random()))
        if self._unsent_progress is not None and self._is_unsent(self.expected[self._unsent_progress]):
            return  # that webhook reports the latest progress
        due_at = max(self._clock.now, (self._last_progress or -_PAUSE) + _PAUSE)
        self._last_progress, self._unsent_progress = due_at, len(self.expected)
        self.expected = add(self.expected, is_event=True, due_at=due_at)

    @staticmethod
    def _is_unsent(one: OrderedDelivery) -> bool:
        return one.state in (DeliveryState.BLOCKED, DeliveryState.PENDING) and not one.has_failed

    async def _claim_next(self) -> None:
        deliveries = await claim_deliveries(self._store)
        due = [n for n, one in enumerate(self.expected) if one.state is DeliveryState.PENDING and one.due_at <= self._clock.now]
        assert len(deliveries) == len(due)
        for number, delivery in zip(due, deliveries, strict=True):
            self._sending = delivery
            self._set(number, replace(self.expected[number], state=DeliveryState.SENDING))

    async def _end_attempt(self) -> None:
        if self._sending is None:
            return
        state = self._random.choice((DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.PENDING, DeliveryState.PENDING))
        retry_in = self._random.choice((0.3, 5.0)) if state is DeliveryState.PENDING else None
        is_delivered = state is DeliveryState.DELIVERED
        settled = await self._store.webhooks.settle(
            self._sending, make_delivery_attempt(), delivered=is_delivered, retry_in=retry_in
        )
        (number,) = (n for n, one in enumerate(self.expected) if one.state is DeliveryState.SENDING)
        self.expected = end_attempt(self.expected, number, state, self._clock.now + round((retry_in or 0.0) * 1000))
        assert settled.superseded == (self.expected[number].state is DeliveryState.SUPERSEDED)
        self._sending = None

    async def _complete(self) -> None:
        if not self._is_complete and self._random.random() < 0.2:
            self._is_complete = True
            await self._store.complete(self._claim, make_response())
            self.expected = add(self.expected, is_event=False, due_at=self._clock.now)

    async def _wait(self) -> None:
        self._clock.advance(self._random.choice((0.1, 0.5, 5.0)))

    def _set(self, number: int, one: OrderedDelivery) -> None:
        self.expected = (*self.expected[:number], one, *self.expected[number + 1 :])

    async def check(self) -> None:
        records = await self._store.webhooks.records(DeliveryFilter(request_id=self._claim.request_id))
        assert [record.state for record in records] == [one.state for one in self.expected]
        turn = next_at([one.due_at for one in self.expected if one.state is DeliveryState.PENDING], None)
        due = await self._store.next_due(Topic.DELIVERY)
        if turn is not None:
            assert due is not None
            assert due <= max(0.0, (turn - self._clock.now) / 1000)


@pytest.mark.parametrize("seed", range(12))
async def test_the_webhooks_of_a_request_follow_the_rules(store: JobStore, clock: ManualClock, seed: int) -> None:
    events = (WebhookKind.STARTED, WebhookKind.PROGRESS)
    receipt = await store.submit(make_job(webhook="https://receiver.example/", webhook_kinds=events), start=True)
    assert receipt.claim is not None
    model = Model(store, clock, receipt.claim, seed)
    for _ in range(60):
        await model.step()
        await model.check()
