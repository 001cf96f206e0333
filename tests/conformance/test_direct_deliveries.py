"""Webhooks that are claimed in the transaction that completes their jobs."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from queue_middleware.errors import QueueError
from queue_middleware.jobs.models import Claim, JobResult, JobState, StoredResponse
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.webhooks.circuit import AttemptOutcome
from queue_middleware.webhooks.fairness import flow_of
from queue_middleware.webhooks.models import DeliveryClaim, DeliveryFilter, DeliveryState, ReceiverHealth, receiver_host
from tests.support.clock import ManualClock
from tests.support.factories import claim_deliveries, make_delivery_attempt, make_job, make_response
from tests.support.leases import lease_passes

from .conftest import Stores

pytestmark = [  # in the unusual course all webhooks wait for a claim
    pytest.mark.usefixtures("course"),
    pytest.mark.parametrize("course", ["plain"], indirect=True),
]

A, B = "https://a.example/hook", "https://b.example/hook"
_tokens = count(1000)


class Sender:
    """Has a slot for every webhook, and sends none."""

    def __init__(self) -> None:
        self.started: list[tuple[DeliveryClaim, JobResult]] = []
        self.returned: list[DeliveryClaim] = []

    def reserve(self, claim: Claim, response: StoredResponse) -> DeliveryClaim | None:
        url = claim.webhook or ""
        host = receiver_host(url)
        flow = flow_of(host, claim.client)
        return DeliveryClaim(
            0, next(_tokens), url, host, 1, claim.key, claim.request_id, health=ReceiverHealth.HEALTHY, flow=flow
        )

    def start(self, delivery: DeliveryClaim, result: JobResult) -> None:
        self.started.append((delivery, result))

    def give_back(self, delivery: DeliveryClaim) -> None:
        self.returned.append(delivery)


async def begin(store: JobStore, url: str = A, client: str = "192.0.2.7") -> Claim:
    claim = (await store.submit(make_job(webhook=url, client=client), start=True)).claim
    assert claim is not None
    return claim


def complete(store: JobStore, claim: Claim) -> asyncio.Future[bool | QueueError]:
    """As the worker does: with a callback."""
    result: asyncio.Future[bool | QueueError] = asyncio.get_running_loop().create_future()
    store.end(claim, make_response(), result.set_result)
    return result


async def settle(store: JobStore, delivery: DeliveryClaim, *, ok: bool = True) -> None:
    outcome = AttemptOutcome.PROMPT if ok else AttemptOutcome.FAILED
    attempt = make_delivery_attempt() if ok else make_delivery_attempt(None, "no connection")
    assert await store.webhooks.settle(delivery, attempt, delivered=ok, retry_in=None if ok else 5.0, outcome=outcome)


async def make_healthy(store: JobStore, url: str = A, client: str = "192.0.2.7") -> None:
    await store.complete(await begin(store, url, client), make_response())
    (delivery,) = await claim_deliveries(store)
    await settle(store, delivery)


@pytest.fixture
async def sender(store: JobStore) -> Sender:
    await make_healthy(store)
    sender = Sender()
    store.webhooks.send_directly(sender)
    return sender


async def states(store: JobStore) -> list[DeliveryState]:
    return [record.state for record in await store.webhooks.records(DeliveryFilter())]


async def test_the_webhook_of_a_healthy_receiver_is_claimed_when_its_job_is_completed(store: JobStore, sender: Sender) -> None:
    claim = await begin(store)
    published: list[Topic] = []
    store.subscribe(Topic.DELIVERY, lambda: published.append(Topic.DELIVERY))
    assert await complete(store, claim)
    ((delivery, result),) = sender.started
    assert (delivery.key, delivery.request_id, delivery.url, delivery.attempt) == (claim.key, claim.request_id, A, 1)
    assert (result.job.state, result.job.client, result.response) == (JobState.COMPLETED, "192.0.2.7", make_response())
    assert await states(store) == [DeliveryState.DELIVERED, DeliveryState.SENDING]
    assert (published, sender.returned, await store.next_due(Topic.DELIVERY)) == ([], [], None)
    assert await claim_deliveries(store) == []

    await settle(store, delivery)
    assert await states(store) == [DeliveryState.DELIVERED, DeliveryState.DELIVERED]
    (attempt,) = await store.webhooks.attempts(delivery.id)
    assert attempt.status == 200


@pytest.mark.parametrize("step", ["start", "give_back"])
async def test_the_worker_gets_the_result_of_its_commit_even_if_the_sender_fails(
    store: JobStore, sender: Sender, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(sender, step, fail)
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    async with asyncio.timeout(10):
        assert await complete(store, await begin(store, A if step == "start" else B))
    assert [str(error) for error in reported] == ["a defect"]


async def test_one_transaction_may_claim_many(store: JobStore, sender: Sender) -> None:
    await make_healthy(store, B)
    claims = [await begin(store, url) for url in (A, B, A, "https://new.example/", B)]
    assert all(await asyncio.gather(*[complete(store, claim) for claim in claims]))
    assert [delivery.url for delivery, _ in sender.started] == [A, B, A, B]
    records = {record.id: record.request_id for record in await store.webhooks.records(DeliveryFilter())}
    assert all(records[delivery.id] == delivery.request_id for delivery, _ in sender.started)
    (waiting,) = await claim_deliveries(store)
    assert waiting.url == "https://new.example/"
    assert [delivery.url for delivery in sender.returned] == ["https://new.example/"]


async def test_a_failed_attempt_is_due_again_like_any_other(store: JobStore, sender: Sender, clock: ManualClock) -> None:
    await complete(store, await begin(store))
    ((delivery, _),) = sender.started
    await settle(store, delivery, ok=False)
    assert await claim_deliveries(store) == []
    clock.advance(5)
    (again,) = await claim_deliveries(store)
    assert (again.id, again.attempt, again.health) == (delivery.id, 2, ReceiverHealth.FAILING)


@pytest.mark.parametrize("url", ["https://new.example/", "https://failing.example/"])
async def test_the_webhook_of_a_receiver_that_is_not_healthy_waits(store: JobStore, sender: Sender, url: str) -> None:
    store.webhooks.send_directly(None)
    await make_healthy(store, "https://failing.example/")
    await store.complete(await begin(store, "https://failing.example/"), make_response())
    (delivery,) = await claim_deliveries(store)
    await settle(store, delivery, ok=False)

    store.webhooks.send_directly(sender)
    claim = await begin(store, url)
    await complete(store, claim)
    assert (sender.started, [one.key for one in sender.returned]) == ([], [claim.key])
    (delivery,) = await claim_deliveries(store)
    assert delivery.key == claim.key


@pytest.mark.parametrize("client", ["192.0.2.7", "192.0.2.8"])
async def test_a_webhook_does_not_overtake_what_is_due_at_its_host(store: JobStore, sender: Sender, client: str) -> None:
    """Neither of its own flow nor of another one, which may have the next turn."""
    store.webhooks.send_directly(None)
    await make_healthy(store, A, "192.0.2.8")
    first = await begin(store, A, client)
    await store.complete(first, make_response())
    store.webhooks.send_directly(sender)
    second = await begin(store)
    await complete(store, second)
    assert sender.started == []
    assert [delivery.key for delivery in await claim_deliveries(store)] == [first.key, second.key]
    third = await begin(store)
    await complete(store, third)
    assert [delivery.key for delivery, _ in sender.started] == [third.key]


async def test_a_flow_that_is_used_is_never_old_enough_to_be_deleted(
    store: JobStore, sender: Sender, clock: ManualClock
) -> None:
    """Retention deletes flows by when they were last used, which only claims record."""
    clock.advance(61)
    await complete(store, await begin(store))
    assert sender.started == []
    (delivery,) = await claim_deliveries(store)
    await settle(store, delivery)
    await complete(store, await begin(store))
    assert len(sender.started) == 1


async def test_a_lost_claim_creates_no_webhook(store: JobStore, sender: Sender, stores: Stores, clock: ManualClock) -> None:
    claim = await begin(store)
    other = await stores.open()
    stores.die(store)
    await lease_passes(other, clock)
    await other.rescue()
    clock.advance(1000)
    (again,) = await other.claim(1)
    held = await begin(store, B)
    results = await asyncio.gather(complete(store, claim), complete(store, held))
    assert (results, sender.started) == ([False, True], [])
    assert len(sender.returned) == 2
    assert await other.complete(again, make_response())
    assert len(await claim_deliveries(other)) == 2


async def test_a_repeated_completion_creates_no_second_webhook(store: JobStore, sender: Sender) -> None:
    claim = await begin(store)
    assert [await complete(store, claim), await complete(store, claim)] == [True, True]
    assert (len(sender.started), len(sender.returned)) == (1, 1)
    assert len(await states(store)) == 2


async def test_the_delivery_of_a_process_that_died_is_made_by_another(
    store: JobStore, sender: Sender, stores: Stores, clock: ManualClock
) -> None:
    await complete(store, await begin(store))
    ((delivery, _),) = sender.started
    other = await stores.open()
    stores.die(store)
    await lease_passes(other, clock)
    await other.rescue()
    clock.advance(1)
    (again,) = await claim_deliveries(other)
    assert (again.id, again.attempt) == (delivery.id, 2)


async def test_a_delivery_that_was_claimed_and_not_started_is_released_at_the_end(
    store: JobStore, sender: Sender, stores: Stores
) -> None:
    await complete(store, await begin(store))
    other = await stores.open()
    await store.close()
    (again,) = await claim_deliveries(other)
    assert (again.id, again.attempt) == (sender.started[0][0].id, 1)
