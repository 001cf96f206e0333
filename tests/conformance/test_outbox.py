"""Webhooks: allocation of capacity, health of receivers, order, giving up and redelivery."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from queue_middleware.errors import UnknownRequest
from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.models import Claim, Failure, Progress, WebhookKind
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.webhooks.circuit import FAILURE_THRESHOLD, AttemptOutcome
from queue_middleware.webhooks.fairness import FLOW_LIMITS
from queue_middleware.webhooks.models import (
    Capacity,
    Claimed,
    DeliveryClaim,
    DeliveryFilter,
    DeliveryState,
    FlowRecord,
    ReceiverHealth,
    Settled,
)
from tests.support.clock import ManualClock
from tests.support.factories import claim_deliveries, make_delivery_attempt, make_job, make_response
from tests.support.leases import lease_passes

from .conftest import Stores

GONE = make_delivery_attempt(None, "no connection")
A, B = "https://a.example/hook", "https://b.example/hook"
FLOW = "a.example 192.0.2.7"
"""The flow of host `A` and of the client of `make_job`."""
ALL = tuple(WebhookKind)


async def finish(store: JobStore, url: str = A, count: int = 1) -> list[str]:
    """Create ended requests, whose webhooks are due."""
    ids = []
    for _ in range(count):
        receipt = await store.submit(make_job(webhook=url), start=True)
        assert receipt.claim
        await store.complete(receipt.claim, make_response())
        ids.append(receipt.request_id)
    return ids


async def begin(store: JobStore, url: str = A, webhook_kinds: tuple[WebhookKind, ...] = ALL) -> Claim:
    receipt = await store.submit(make_job(webhook=url, webhook_kinds=webhook_kinds), start=True)
    assert receipt.claim
    return receipt.claim


async def succeed(store: JobStore, delivery: DeliveryClaim, outcome: AttemptOutcome = AttemptOutcome.PROMPT) -> Settled:
    return await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=True, retry_in=None, outcome=outcome)


async def fail(store: JobStore, delivery: DeliveryClaim, retry_in: float | None = 5.0) -> Settled:
    return await store.webhooks.settle(delivery, GONE, delivered=False, retry_in=retry_in, outcome=AttemptOutcome.FAILED)


async def make_good(store: JobStore, url: str = A) -> None:
    await finish(store, url)
    (delivery,) = await claim_deliveries(store)
    await succeed(store, delivery)


async def make_open(store: JobStore, url: str = A) -> Settled:
    """Let a host fail until its circuit is open."""
    await finish(store, url)
    for _ in range(FAILURE_THRESHOLD):
        (delivery,) = await claim_deliveries(store)
        settled = await fail(store, delivery, retry_in=0.0)
    return settled


async def receiver(store: JobStore, host: str = "a.example") -> FlowRecord:
    (found,) = [one for one in await store.webhooks.receivers(list(ReceiverHealth)) if one.host == host]
    return found


async def states(store: JobStore) -> dict[DeliveryState, int]:
    return dict((await store.counts()).deliveries)


def hosts(deliveries: list[DeliveryClaim]) -> list[str]:
    return [delivery.host for delivery in deliveries]


# --- allocation


async def test_a_claim_returns_the_result_to_report(store: JobStore) -> None:
    receipt = await store.submit(make_job(webhook=A), start=True)
    assert receipt.claim
    await store.append(receipt.claim, 0, b"[1, ")
    await store.complete(receipt.claim, make_response(b"2]", 201, chunks=1))
    given = await store.webhooks.claim(Capacity(5, 5))
    (delivery,) = given.deliveries
    result = given.results[delivery.key]
    assert (delivery.kind, delivery.number, delivery.webhook_id) == (WebhookKind.COMPLETED, 0, receipt.request_id)
    assert result == await store.result(receipt.request_id)
    assert result.response
    assert (result.response.status, result.response.body, result.response.chunks) == (201, b"2]", 1)


async def test_a_request_that_ended_without_a_response_has_a_result(store: JobStore) -> None:
    receipt = await store.submit(make_job(webhook=A))
    await store.cancel(receipt.request_id)
    given = await store.webhooks.claim(Capacity(5, 5))
    assert given.results[given.deliveries[0].key] == await store.result(receipt.request_id)


async def test_a_new_host_gets_one_delivery_at_a_time(store: JobStore) -> None:
    await finish(store, A, 3)
    given = await store.webhooks.claim(Capacity(5, 5))
    assert hosts(given.deliveries) == ["a.example"]
    assert given.limited_hosts == {"a.example"}
    assert (await store.webhooks.claim(Capacity(5, 5, {FLOW: 1}))).deliveries == []


async def test_a_healthy_host_gets_many_deliveries(store: JobStore) -> None:
    await make_good(store)
    ids = await finish(store, A, FLOW_LIMITS[ReceiverHealth.HEALTHY] + 3)
    given = await store.webhooks.claim(Capacity(100, 0))
    assert [delivery.request_id for delivery in given.deliveries] == ids[: FLOW_LIMITS[ReceiverHealth.HEALTHY]]
    assert (given.full, given.limited_hosts) == (False, {"a.example"})
    again = await store.webhooks.claim(Capacity(100, 0, {FLOW: FLOW_LIMITS[ReceiverHealth.HEALTHY] - 2}))
    assert [delivery.request_id for delivery in again.deliveries] == ids[16:18]


async def test_a_host_with_very_many_deliveries_does_not_hide_others(store: JobStore, clock: ManualClock) -> None:
    await finish(store, A, 50)
    clock.advance(1)
    await finish(store, B)
    assert hosts(await claim_deliveries(store, 2)) == ["a.example", "b.example"]


async def test_new_hosts_leave_capacity_for_healthy_hosts(store: JobStore, clock: ManualClock) -> None:
    await make_good(store)
    for number in range(5):
        await finish(store, f"https://stranger{number}.example/")
    clock.advance(1)
    await finish(store, A)
    given = await store.webhooks.claim(Capacity(4, 2))
    assert hosts(given.deliveries) == ["stranger0.example", "stranger1.example", "a.example"]
    assert given.full


async def test_healthy_hosts_are_found_behind_any_number_of_others(store: JobStore, clock: ManualClock) -> None:
    await make_good(store)
    for number in range(20):
        await finish(store, f"https://stranger{number}.example/")
    clock.advance(1)
    await finish(store, A)
    assert hosts((await store.webhooks.claim(Capacity(3, 0))).deliveries) == ["a.example"]


async def test_which_ports_and_spellings_are_the_same_host(store: JobStore) -> None:
    for url in ("https://A.example:443/x", "https://a.example./y", "http://a.example/z", "https://a.example:8443/"):
        await finish(store, url)
    assert sorted(hosts(await claim_deliveries(store))) == ["a.example", "a.example:8443"]


async def test_a_claim_returns_when_the_next_delivery_is_due(store: JobStore, clock: ManualClock) -> None:
    assert (await store.webhooks.claim(Capacity(5, 5))) == Claimed([])
    await finish(store)
    (delivery,) = await claim_deliveries(store)
    await fail(store, delivery, retry_in=42.0)
    given = await store.webhooks.claim(Capacity(5, 5))
    assert (given.deliveries, given.next_in, given.full, given.limited_hosts) == ([], 42.0, False, frozenset())
    assert await store.next_due(Topic.DELIVERY) == 42.0


async def test_a_released_delivery_is_due_again_and_not_charged(store: JobStore) -> None:
    await finish(store)
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.release([delivery])
    (again,) = await claim_deliveries(store)
    assert (again.attempt, again.token == delivery.token) == (1, False)


async def test_a_released_delivery_keeps_its_place_unless_it_is_postponed(store: JobStore, clock: ManualClock) -> None:
    await make_good(store)
    first, second = [], []
    for ids in (first, second):
        clock.advance(1)
        ids += await finish(store)
    for due_in, following in ((0.0, first), (1.0, second)):
        clock.advance(1)
        (delivery,) = await claim_deliveries(store, 1)
        assert delivery.request_id == first[0]
        await store.webhooks.release([delivery], due_in=due_in)
        (delivery,) = await claim_deliveries(store, 1)
        assert delivery.request_id == following[0]
        await store.webhooks.release([delivery])


async def test_two_processes_never_claim_the_same_delivery(stores: Stores) -> None:
    here, there = await stores.open(), await stores.open()
    ids = [(await finish(here, f"https://r{number}.example/"))[0] for number in range(6)]
    first, second = await claim_deliveries(here, 3), await claim_deliveries(there, 5)
    assert [delivery.request_id for delivery in (*first, *second)] == ids


async def test_a_request_that_ends_twice_is_delivered_once(store: JobStore, clock: ManualClock) -> None:
    """A process that hung loses its request; it and the process that took over both end the request."""
    receipt = await store.submit(make_job(webhook=A), start=True)
    assert receipt.claim
    await lease_passes(store, clock)
    await store.rescue()
    clock.advance(1)
    (second,) = await store.claim(1)
    assert await store.complete(second, make_response(b"2"))
    assert not await store.complete(receipt.claim, make_response(b"1"))
    assert await store.complete(second, make_response(b"2"))
    given = await store.webhooks.claim(Capacity(5, 5))
    assert [result.response.body for result in given.results.values() if result.response] == [b"2"]
    assert await states(store) == {DeliveryState.SENDING: 1}


# --- health


async def test_responses_make_a_host_healthy_slow_or_failing(store: JobStore) -> None:
    await finish(store, A, 3)
    (first,) = await claim_deliveries(store)
    assert (await succeed(store, first)).flow_change == (ReceiverHealth.NEW, ReceiverHealth.HEALTHY)
    one, two = await claim_deliveries(store)
    assert (await succeed(store, one, AttemptOutcome.SLOW)).flow_change == (ReceiverHealth.HEALTHY, ReceiverHealth.SLOW)
    assert (await fail(store, two)).flow_change == (ReceiverHealth.SLOW, ReceiverHealth.FAILING)
    assert (await receiver(store)).failures == 1


async def test_an_attempt_that_shows_nothing_about_the_host_changes_nothing(store: JobStore) -> None:
    await finish(store)
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.settle(delivery, GONE, delivered=False, retry_in=5.0)
    assert (await receiver(store)).health is ReceiverHealth.NEW


async def test_repeated_failures_open_the_circuit_of_a_host(store: JobStore, clock: ManualClock) -> None:
    settled = await make_open(store)
    assert settled.flow_change == (ReceiverHealth.FAILING, ReceiverHealth.OPEN)
    assert 5 <= settled.pause <= 10
    assert await claim_deliveries(store) == []
    assert await store.next_due(Topic.DELIVERY) == settled.pause
    found = await receiver(store)
    assert found == FlowRecord(
        "a.example", ReceiverHealth.OPEN, FAILURE_THRESHOLD, clock.now, clock.now + round(settled.pause * 1000), 1, "192.0.2.7"
    )
    assert (await store.counts()).receivers == {ReceiverHealth.OPEN: 1}


async def test_deliveries_to_an_open_circuit_wait_without_being_charged(store: JobStore) -> None:
    await make_open(store)
    await finish(store, A, 3)
    assert await claim_deliveries(store) == []
    assert (await receiver(store)).pending == 4


async def test_all_processes_together_send_one_probe_then_everything_in_order(stores: Stores, clock: ManualClock) -> None:
    here, there = await stores.open(), await stores.open()
    await make_open(here)
    ids = []
    for _ in range(4):
        ids += await finish(here)
        clock.advance(1)
    clock.advance(10)
    (probe,) = await claim_deliveries(here)
    assert probe.health is ReceiverHealth.OPEN
    assert await claim_deliveries(there) == []
    assert (await succeed(here, probe)).flow_change == (ReceiverHealth.OPEN, ReceiverHealth.HEALTHY)
    assert [delivery.request_id for delivery in await claim_deliveries(there)] == ids


async def test_one_probe_when_several_processes_claim_at_once(stores: Stores, clock: ManualClock) -> None:
    several = [await stores.open() for _ in range(4)]
    await make_open(several[0])
    await finish(several[0], count=8)
    clock.advance(10)
    given = await asyncio.gather(*[claim_deliveries(store) for store in several])
    assert [delivery.health for deliveries in given for delivery in deliveries] == [ReceiverHealth.OPEN]


async def test_concurrent_failures_of_several_processes_are_all_counted(stores: Stores) -> None:
    several = [await stores.open() for _ in range(4)]
    await make_good(several[0])
    await finish(several[0], count=FAILURE_THRESHOLD)
    (first, *rest) = await claim_deliveries(several[0])
    await asyncio.gather(*[fail(store, delivery) for store, delivery in zip(several, rest, strict=True)])
    assert (await receiver(several[0])).failures == FAILURE_THRESHOLD - 1
    assert (await fail(several[1], first)).flow_change == (ReceiverHealth.FAILING, ReceiverHealth.OPEN)


async def test_a_failed_probe_makes_the_pause_longer(store: JobStore, clock: ManualClock) -> None:
    pauses = [(await make_open(store)).pause]
    for _ in range(8):
        clock.advance(pauses[-1])
        (probe,) = await claim_deliveries(store)
        settled = await fail(store, probe, retry_in=0.0)
        assert settled.flow_change is None
        pauses.append(settled.pause)
    for number, pause in enumerate(pauses):
        longest = min(10 * 2**number, 300)
        assert longest / 2 <= pause <= longest


async def test_a_probe_whose_process_died_is_followed_by_another(store: JobStore, clock: ManualClock) -> None:
    await make_open(store)
    clock.advance(10)
    assert len(await claim_deliveries(store)) == 1
    clock.advance(1)
    assert await claim_deliveries(store) == []
    await lease_passes(store, clock)
    await store.rescue()
    clock.advance(60)  # the backoff of a lost delivery
    assert len(await claim_deliveries(store)) == 1


async def test_a_probe_without_an_outcome_is_followed_by_another(store: JobStore, clock: ManualClock) -> None:
    await make_open(store)
    await finish(store)
    clock.advance(10)
    (probe,) = await claim_deliveries(store)
    await store.webhooks.settle(probe, make_delivery_attempt(None, "the result is gone"), delivered=False, retry_in=None)
    (another,) = await claim_deliveries(store)
    assert (another.id, another.health) == (probe.id + 1, ReceiverHealth.OPEN)


async def test_failures_while_the_circuit_is_open_do_not_count(store: JobStore) -> None:
    await make_good(store)
    await finish(store, A, 10)
    settled = [await fail(store, delivery) for delivery in await claim_deliveries(store)]
    assert [one.flow_change for one in settled if one.flow_change] == [
        (ReceiverHealth.HEALTHY, ReceiverHealth.FAILING),
        (ReceiverHealth.FAILING, ReceiverHealth.OPEN),
    ]
    assert (await receiver(store)).failures == FAILURE_THRESHOLD


async def test_a_late_success_closes_the_circuit(store: JobStore) -> None:
    await make_good(store)
    await finish(store, A, 7)
    deliveries = await claim_deliveries(store)
    for delivery in deliveries[:6]:
        await fail(store, delivery, retry_in=0.0)
    assert (await receiver(store)).health is ReceiverHealth.OPEN
    assert (await succeed(store, deliveries[6])).flow_change == (ReceiverHealth.OPEN, ReceiverHealth.HEALTHY)
    assert len(await claim_deliveries(store)) == 6


async def test_health_survives_a_restart(stores: Stores) -> None:
    store = await stores.open()
    await make_open(store)
    await store.close()
    heir = await stores.open()
    assert (await receiver(heir)).health is ReceiverHealth.OPEN
    assert await claim_deliveries(heir) == []


async def test_deliveries_due_for_a_whole_schedule_are_given_up(stores: Stores, clock: ManualClock) -> None:
    """Otherwise the webhooks of a host that never recovers would be kept forever, together with their results."""
    store = await stores.open(webhook_schedule="5s, 50s")  # so an hour
    await make_open(store)
    early, *_ = await finish(store, A, 2)
    clock.advance(60)
    await finish(store)
    clock.advance(3541)
    (probe,) = await claim_deliveries(store)
    settled = await fail(store, probe)
    assert [dead.attempt for dead in settled.given_up] == [1, 1]
    assert settled.given_up[0].request_id == early
    assert await states(store) == {DeliveryState.DEAD: 2, DeliveryState.PENDING: 2}
    (attempt,) = await store.webhooks.attempts(settled.given_up[0].id)
    assert (attempt.status, attempt.error is not None) == (None, True)


async def test_the_health_of_unused_hosts_is_deleted(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=100.0)
    await make_good(store, A)
    await make_open(store, B)
    clock.advance(101)
    await store.prune(10)
    assert [one.host for one in await store.webhooks.receivers(list(ReceiverHealth))] == ["b.example"]


# --- events before the end


async def test_without_events_only_the_end_is_delivered(store: JobStore) -> None:
    claim = await begin(store, webhook_kinds=())
    await store.log(claim, [], Progress(0.5))
    assert await states(store) == {}


@pytest.mark.parametrize("start", [True, False])
async def test_the_start_is_delivered_once(store: JobStore, start: bool) -> None:
    receipt = await store.submit(make_job(webhook=A, webhook_kinds=(WebhookKind.STARTED,)), start=start)
    claim = receipt.claim or (await store.claim(1))[0]
    assert claim.webhook_kinds == (WebhookKind.STARTED,)
    (delivery,) = await claim_deliveries(store)
    assert (delivery.kind, delivery.webhook_id) == (WebhookKind.STARTED, f"{receipt.request_id}_1")
    await store.release(claim)
    await store.claim(1)
    assert await states(store) == {DeliveryState.SENDING: 1}


async def test_webhooks_of_a_request_are_sent_in_order_never_two_at_once(store: JobStore, clock: ManualClock) -> None:
    await make_good(store)
    claim = await begin(store)
    await store.log(claim, [], Progress(0.5, "half"))
    await store.complete(claim, make_response())
    told = []
    for kind in ALL:
        (delivery,) = await claim_deliveries(store)
        assert await claim_deliveries(store) == []
        told.append((delivery.kind, delivery.webhook_id, json.loads(delivery.data) if delivery.data else None))
        await succeed(store, delivery)
        assert delivery.kind is kind
    start = {"at": clock.now, "client": "192.0.2.7"}
    assert told == [
        (WebhookKind.STARTED, f"{claim.request_id}_1", start),
        (WebhookKind.PROGRESS, f"{claim.request_id}_2", {**start, "fraction": 0.5, "stage": "half"}),
        (WebhookKind.COMPLETED, claim.request_id, None),
    ]


async def test_progress_is_delivered_at_most_twice_a_second_with_the_latest_data(store: JobStore, clock: ManualClock) -> None:
    claim = await begin(store, webhook_kinds=(WebhookKind.PROGRESS,))
    told = []
    for step in range(1, 11):
        await store.log(claim, [], Progress(step / 10))
        for delivery in await claim_deliveries(store):
            told.append((step, json.loads(delivery.data or "")["fraction"]))
            await succeed(store, delivery)
        clock.advance(0.2)
    # Progress is reported every 0.2 s. The report at 0.6 s is the first after a webhook became due at 0.5 s.
    assert told == [(1, 0.1), (4, 0.4), (6, 0.6), (9, 0.9)]


async def test_the_last_progress_is_due_at_once_and_the_end_follows(store: JobStore) -> None:
    await make_good(store)
    claim = await begin(store, webhook_kinds=(WebhookKind.PROGRESS,))
    await store.log(claim, [], Progress(0.1))
    await succeed(store, (await claim_deliveries(store))[0])
    await store.log(claim, [], Progress(1.0))
    assert await claim_deliveries(store) == []
    await store.complete(claim, make_response())
    (last,) = await claim_deliveries(store)
    assert json.loads(last.data or "")["fraction"] == 1.0
    await succeed(store, last)
    assert [delivery.kind for delivery in await claim_deliveries(store)] == [WebhookKind.COMPLETED]


@pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
async def test_a_failed_event_webhook_does_not_delay_the_end(store: JobStore, end: str) -> None:
    claim = await begin(store)
    (started,) = await claim_deliveries(store)
    settled = await store.webhooks.settle(started, GONE, delivered=False, retry_in=3600.0)
    assert not settled.superseded, "there is nothing newer yet"
    if end == "complete":
        await store.complete(claim, make_response())
    elif end == "fail":
        await store.fail(claim, Failure("runner_server_error", "broken"))  # type: ignore[arg-type]
    else:
        await store.retry(claim, 60.0)
        await store.cancel(claim.request_id)
    assert [delivery.kind for delivery in await claim_deliveries(store)] == [WebhookKind.COMPLETED]
    assert await states(store) == {DeliveryState.SUPERSEDED: 1, DeliveryState.SENDING: 1}


async def test_a_failing_event_webhook_is_superseded_by_a_newer_one(store: JobStore) -> None:
    claim = await begin(store)
    (started,) = await claim_deliveries(store)
    await store.complete(claim, make_response())
    assert await claim_deliveries(store) == []
    assert (await store.webhooks.settle(started, GONE, delivered=False, retry_in=3600.0)).superseded
    assert [delivery.kind for delivery in await claim_deliveries(store)] == [WebhookKind.COMPLETED]


async def test_the_end_is_retried_by_schedule_after_event_webhooks(store: JobStore) -> None:
    claim = await begin(store)
    await succeed(store, (await claim_deliveries(store))[0])
    await store.complete(claim, make_response())
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.settle(delivery, GONE, delivered=False, retry_in=5.0)
    assert await states(store) == {DeliveryState.DELIVERED: 1, DeliveryState.PENDING: 1}


async def test_retention_keeps_requests_with_pending_event_webhooks(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=0)
    claim = await begin(store)
    (started,) = await claim_deliveries(store)
    await store.complete(claim, make_response())
    clock.advance(1)
    assert await store.prune(10) == 0
    await succeed(store, started)
    await succeed(store, (await claim_deliveries(store))[0])
    clock.advance(1)
    assert await store.prune(10) == 1


# --- operators


async def test_records_and_attempts(store: JobStore, clock: ManualClock) -> None:
    (request_id,) = await finish(store)
    (delivery,) = await claim_deliveries(store)
    attempt = make_delivery_attempt(500, "answered 500").replace(response_body=b"oops")
    await store.webhooks.settle(delivery, attempt, delivered=False, retry_in=5.0)
    (record,) = await store.webhooks.records(DeliveryFilter(request_id=request_id))
    assert (record.id, record.request_id, record.host, record.url) == (delivery.id, request_id, "a.example", A)
    assert (record.state, record.attempts) == (DeliveryState.PENDING, 1)
    assert (record.since, record.due_at) == (clock.now, clock.now + 5000)
    assert await store.webhooks.attempts(delivery.id) == [attempt]


async def test_records_are_selected_by_time_host_and_state(store: JobStore, clock: ManualClock) -> None:
    began = clock.now
    dead: list[int] = []
    for url in (A, B, A, B):
        await finish(store, url)
        (delivery,) = await claim_deliveries(store)
        if url == B:
            dead.append(delivery.id)
        await store.webhooks.settle(delivery, make_delivery_attempt(), delivered=url == A, retry_in=None)
        clock.advance(10)

    async def found(**which: object) -> list[int]:
        return [record.id for record in await store.webhooks.records(DeliveryFilter(**which))]  # type: ignore[arg-type]

    everything = await found()
    assert len(everything) == 4
    assert await found(dead_only=True) == dead
    assert await found(host="a.example") == sorted(set(everything) - set(dead))
    assert await found(since=began + 10_000, until=began + 30_000) == everything[1:3]
    assert await found(dead_only=True, since=began + 10_001) == dead[1:]
    assert await found(dead_only=True, until=began + 30_000) == dead[:1]
    assert await found(delivery_id=everything[0], dead_only=True) == []
    page = await store.webhooks.records(DeliveryFilter(), after=everything[0], limit=2)
    assert [record.id for record in page] == everything[1:3]


async def test_an_unknown_delivery_or_request_is_named(store: JobStore) -> None:
    with pytest.raises(UnknownRequest, match="delivery 77"):
        await store.webhooks.records(DeliveryFilter(delivery_id=77))
    with pytest.raises(UnknownRequest, match="request"):
        await store.webhooks.records(DeliveryFilter(request_id="018f3b1e-0000-7000-8000-000000000001"))


async def test_redelivery_starts_the_schedule_anew_with_the_same_id(store: Any) -> None:
    await finish(store)
    (first,) = await claim_deliveries(store)
    await store.webhooks.settle(first, GONE, delivered=False, retry_in=None)
    assert await store.webhooks.redeliver([first.id], "carol", "all") == 1
    (again,) = await claim_deliveries(store)
    assert (again.webhook_id, again.attempt, again.tries) == (first.webhook_id, 2, 1)
    await succeed(store, again)
    assert [attempt.status for attempt in await store.webhooks.attempts(first.id)] == [None, 200]
    (act,) = await store.operations.audit()
    assert (act.operator, act.action, act.target, act.count) == ("carol", Action.REDELIVER, "all", 1)


async def test_redelivery_does_not_change_a_delivery_that_is_being_sent(store: Any) -> None:
    await finish(store)
    (delivery,) = await claim_deliveries(store)
    assert await store.webhooks.redeliver([delivery.id, 99], "carol", "all") == 0
    assert await store.operations.audit() == []
    assert await succeed(store, delivery)


async def test_redelivery_probes_a_host_with_an_open_circuit(store: JobStore) -> None:
    await make_open(store)
    await finish(store)
    (record, *_) = await store.webhooks.records(DeliveryFilter())
    assert await claim_deliveries(store) == []
    assert await store.webhooks.redeliver([record.id], "carol", "all") == 1
    (probe,) = await claim_deliveries(store)
    assert probe.health is ReceiverHealth.OPEN


async def test_a_delivery_between_attempts_can_be_redelivered_at_once(store: JobStore) -> None:
    await finish(store)
    (delivery,) = await claim_deliveries(store)
    await store.webhooks.settle(delivery, GONE, delivered=False, retry_in=36000.0)
    assert await claim_deliveries(store) == []
    await store.webhooks.redeliver([delivery.id], "carol", "all")
    assert len(await claim_deliveries(store)) == 1
