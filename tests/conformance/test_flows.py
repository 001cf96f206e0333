"""Webhooks of several submitters to one host: a failing endpoint does not affect the others."""

from __future__ import annotations

from typing import Any

import pytest

from queue_middleware.jobs.audit import Action
from queue_middleware.jobs.store import JobStore, Topic
from queue_middleware.webhooks.circuit import FAILURE_THRESHOLD, MIN_FAILING_FLOWS, AttemptOutcome
from queue_middleware.webhooks.models import Capacity, DeliveryAttempt, DeliveryClaim, DeliveryFilter, ReceiverHealth, Settled
from tests.support.clock import ManualClock
from tests.support.factories import make_delivery_attempt, make_job, make_response

from .conftest import Stores

pytestmark = pytest.mark.usefixtures("course")

RELAY = "https://relay.example"
TOO_MANY = make_delivery_attempt(429, "answered 429")


async def finish(store: JobStore, client: str, count: int = 1, host: str = RELAY) -> None:
    """Create ended requests of this submitter, whose webhooks are due."""
    for _ in range(count):
        receipt = await store.submit(make_job(webhook=f"{host}/{client}", client=client), start=True)
        assert receipt.claim
        await store.complete(receipt.claim, make_response())


async def claimed(
    store: JobStore, limit: int = 100, strangers: int = 100, busy: dict[str, int] | None = None
) -> list[DeliveryClaim]:
    return (await store.webhooks.claim(Capacity(limit, strangers, busy or {}))).deliveries


async def fail(
    store: JobStore,
    delivery: DeliveryClaim,
    outcome: AttemptOutcome = AttemptOutcome.FAILED,
    attempt: DeliveryAttempt = TOO_MANY,
) -> Settled:
    return await store.webhooks.settle(delivery, attempt, delivered=False, retry_in=0.0, outcome=outcome)


async def succeed(store: JobStore, delivery: DeliveryClaim) -> Settled:
    return await store.webhooks.settle(
        delivery, make_delivery_attempt(), delivered=True, retry_in=None, outcome=AttemptOutcome.PROMPT
    )


async def standings(store: JobStore) -> dict[str, ReceiverHealth]:
    return {one.submitter: one.health for one in await store.webhooks.receivers(list(ReceiverHealth))}


def clients(deliveries: list[DeliveryClaim]) -> list[str]:
    return [delivery.url.rpartition("/")[2] for delivery in deliveries]


async def make_open(store: JobStore, client: str, outcome: AttemptOutcome = AttemptOutcome.FAILED) -> Settled:
    await finish(store, client)
    for _ in range(FAILURE_THRESHOLD):
        (delivery,) = await claimed(store)
        settled = await fail(store, delivery, outcome)
    return settled


async def test_a_failing_endpoint_of_one_submitter_delays_no_other(store: JobStore) -> None:
    settled = await make_open(store, "ann")
    assert (settled.flow_change, settled.host_change) == ((ReceiverHealth.FAILING, ReceiverHealth.OPEN), None)
    await finish(store, "ann", 3)
    await finish(store, "bob", 2)
    for _ in range(2):
        (delivery,) = await claimed(store)
        assert clients([delivery]) == ["bob"]
        await succeed(store, delivery)
    assert await claimed(store) == []
    assert await standings(store) == {"ann": ReceiverHealth.OPEN, "bob": ReceiverHealth.HEALTHY}


async def test_a_success_of_another_flow_does_not_close_the_circuit(store: JobStore, clock: ManualClock) -> None:
    settled = await make_open(store, "ann")
    await finish(store, "bob")
    await succeed(store, (await claimed(store))[0])
    clock.advance(settled.pause - 0.1)
    assert await claimed(store) == []
    clock.advance(0.1)
    (probe,) = await claimed(store)
    assert (clients([probe]), probe.health) == (["ann"], ReceiverHealth.OPEN)


async def test_flows_of_a_host_take_turns(store: JobStore, clock: ManualClock) -> None:
    for client in ("ann", "bob"):
        await finish(store, client)
    for delivery in await claimed(store):
        await succeed(store, delivery)
    await finish(store, "ann", 30)
    clock.advance(3600)
    await finish(store, "bob", 2)
    given = []
    for _ in range(4):  # capacity becomes free step by step
        clock.advance(0.001)
        given += clients(await claimed(store, 1))
    assert given == ["ann", "bob", "ann", "bob"]


async def test_a_flow_at_its_limit_leaves_capacity_of_the_host_to_others(store: JobStore) -> None:
    for client in ("ann", "bob"):
        await finish(store, client)
    for delivery in await claimed(store):
        await succeed(store, delivery)
    await finish(store, "ann", 50)
    first = await claimed(store)
    assert len(first) == 16
    await finish(store, "bob", 2)
    assert clients(await claimed(store, busy={first[0].flow: 16})) == ["bob", "bob"]


async def test_all_flows_together_respect_the_limit_of_a_host(store: JobStore) -> None:
    names = [f"client{number}" for number in range(60)]
    for name in names:
        await finish(store, name)
    given = await claimed(store)
    assert len(given) == 8, "nothing is known of the host yet"
    for delivery in given:
        await succeed(store, delivery)
    assert len(await claimed(store)) == 32


async def test_a_host_with_very_many_flows_does_not_hide_others(store: JobStore, clock: ManualClock) -> None:
    for number in range(150):
        await finish(store, f"client{number}")
    clock.advance(1)
    await finish(store, "dan", host="https://own.example")
    given = await store.webhooks.claim(Capacity(20, 20))
    assert "own.example" in [delivery.host for delivery in given.deliveries]
    assert given.limited_hosts == {"relay.example"}


async def test_failed_connections_open_the_circuit_of_the_whole_host(store: JobStore, clock: ManualClock) -> None:
    settled = await make_open(store, "ann", AttemptOutcome.UNREACHED)
    assert settled.host_change == (ReceiverHealth.FAILING, ReceiverHealth.OPEN)
    await finish(store, "bob", 2)
    await finish(store, "cid")
    assert await claimed(store) == []
    assert set((await standings(store)).values()) == {ReceiverHealth.OPEN}
    clock.advance(settled.pause)
    (probe,) = await claimed(store)
    assert (probe.health, await claimed(store)) == (ReceiverHealth.OPEN, [])
    # The host has responded: all flows may be served, and flows with an open circuit are probed at once.
    assert (await succeed(store, probe)).host_change == (ReceiverHealth.OPEN, ReceiverHealth.HEALTHY)
    rest = await claimed(store)
    assert {"ann", "bob", "cid"} - {*clients([probe])} <= {*clients(rest)}


async def test_probes_of_a_host_alternate_between_flows(store: JobStore, clock: ManualClock) -> None:
    pause = (await make_open(store, "ann", AttemptOutcome.UNREACHED)).pause
    clock.advance(0.001)
    await finish(store, "bob")
    probed = set()
    for _ in range(4):
        clock.advance(pause)
        (probe,) = await claimed(store)
        probed |= {*clients([probe])}
        pause = (await fail(store, probe, AttemptOutcome.UNREACHED)).pause
    assert probed == {"ann", "bob"}


async def test_an_http_error_closes_the_circuit_of_the_host(store: JobStore, clock: ManualClock) -> None:
    pause = (await make_open(store, "ann", AttemptOutcome.UNREACHED)).pause
    await finish(store, "bob")
    clock.advance(pause)
    (probe,) = await claimed(store)
    assert (await fail(store, probe)).host_change == (ReceiverHealth.OPEN, ReceiverHealth.NEW)
    assert "bob" in clients(await claimed(store))


async def test_failures_of_several_flows_open_the_circuit_of_the_whole_host(store: JobStore) -> None:
    names = [f"client{number}" for number in range(MIN_FAILING_FLOWS)]
    for name in names:
        await finish(store, name)
    attempts = 0
    while deliveries := await claimed(store):
        for delivery in deliveries:
            attempts += 1
            await fail(store, delivery)
    assert attempts < MIN_FAILING_FLOWS * FAILURE_THRESHOLD, "sooner than each of them would be left alone"
    await finish(store, "new")
    assert await claimed(store) == []
    assert (await standings(store))["new"] is ReceiverHealth.OPEN


async def test_successes_between_failures_keep_the_circuit_of_a_host_closed(store: JobStore) -> None:
    await finish(store, "well")
    await succeed(store, (await claimed(store))[0])
    for number in range(MIN_FAILING_FLOWS + 3):
        await make_open(store, f"client{number}")
        await finish(store, "well")
        (delivery,) = await claimed(store)
        settled = await succeed(store, delivery)
        assert settled.host_change is None
        assert clients([delivery]) == ["well"]


async def test_deliveries_to_a_failing_host_are_given_up_after_the_schedule(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(webhook_schedule="5s, 50s")  # so an hour
    await make_open(store, "ann", AttemptOutcome.UNREACHED)
    await finish(store, "bob", 3)
    clock.advance(3601)
    (probe,) = await claimed(store)
    settled = await store.webhooks.settle(probe, TOO_MANY, delivered=False, retry_in=5.0, outcome=AttemptOutcome.UNREACHED)
    assert len(settled.given_up) == 3, "of both submitters, but for what was sent just now"


async def test_a_released_probe_can_be_sent_by_another_process(store: JobStore, clock: ManualClock) -> None:
    pause = (await make_open(store, "ann")).pause
    clock.advance(pause)
    (probe,) = await claimed(store)
    await store.webhooks.release([probe], due_in=7.0)
    assert await claimed(store) == []
    assert await store.next_due(Topic.DELIVERY) == 7.0
    clock.advance(7.0)
    (again,) = await claimed(store)
    assert (again.id, again.attempt, again.health) == (probe.id, probe.attempt, ReceiverHealth.OPEN)


@pytest.mark.parametrize("outcome", [AttemptOutcome.FAILED, AttemptOutcome.UNREACHED])
async def test_only_a_released_probe_allows_another_probe(store: JobStore, clock: ManualClock, outcome: AttemptOutcome) -> None:
    """A delivery that was claimed before the circuit opened may be released after it, without having been sent."""
    await finish(store, "ann")
    await succeed(store, (await claimed(store))[0])
    await finish(store, "ann", FAILURE_THRESHOLD + 1)
    *sent, waiting = await claimed(store)
    for delivery in sent:
        pause = (await fail(store, delivery, outcome)).pause
    await store.webhooks.release([waiting])
    assert await claimed(store) == []
    clock.advance(pause)
    (probe,) = await claimed(store)
    assert probe.health is ReceiverHealth.OPEN


async def test_flows_survive_a_restart_and_are_deleted_after_the_retention(stores: Stores, clock: ManualClock) -> None:
    store = await stores.open(retention=100.0)
    await make_open(store, "ann")
    await finish(store, "bob")
    await succeed(store, (await claimed(store))[0])
    await store.close()
    heir = await stores.open(retention=100.0)
    assert await standings(heir) == {"ann": ReceiverHealth.OPEN, "bob": ReceiverHealth.HEALTHY}
    clock.advance(101)
    await heir.prune(10)
    assert await standings(heir) == {"ann": ReceiverHealth.OPEN}


async def test_redelivery_probes_the_whole_host(store: JobStore) -> None:
    await make_open(store, "ann", AttemptOutcome.UNREACHED)
    (record,) = await store.webhooks.records(DeliveryFilter())
    assert await claimed(store) == []
    assert await store.webhooks.redeliver([record.id], "carol", "all") == 1
    (probe,) = await claimed(store)
    assert probe.health is ReceiverHealth.OPEN


@pytest.mark.parametrize("outcome", [AttemptOutcome.FAILED, AttemptOutcome.UNREACHED])
async def test_an_attempt_without_an_outcome_does_not_change_the_host(store: JobStore, outcome: AttemptOutcome) -> None:
    await finish(store, "ann")
    (delivery,) = await claimed(store)
    await fail(store, delivery, outcome)
    before = await standings(store)
    (delivery,) = await claimed(store)
    await store.webhooks.settle(delivery, TOO_MANY, delivered=False, retry_in=0.0)
    assert await standings(store) == before


async def test_a_probe_is_sent_at_once_on_request(store: Any, clock: ManualClock) -> None:
    """Also if the schedule of the webhook would delay it for longer than the circuit stays open."""
    settled = await make_open(store, "alice")
    clock.advance(settled.pause)
    (delivery,) = await claimed(store)
    await store.webhooks.settle(delivery, TOO_MANY, delivered=False, retry_in=7200.0, outcome=AttemptOutcome.FAILED)
    assert await claimed(store) == []
    assert await store.webhooks.probe("relay.example", "carol") == 1
    (probe,) = await claimed(store)
    assert probe.health is ReceiverHealth.OPEN
    await succeed(store, probe)
    assert await standings(store) == {"alice": ReceiverHealth.HEALTHY}
    assert await store.webhooks.probe("relay.example", "carol") == 0  # no circuit is open
    (act,) = await store.operations.audit()
    assert (act.operator, act.action, act.target, act.count) == ("carol", Action.PROBE, "relay.example", 1)


async def test_a_probe_affects_only_flows_with_an_open_circuit(store: JobStore, clock: ManualClock) -> None:
    await make_open(store, "alice")
    await finish(store, "bob")
    (bob,) = await claimed(store)
    await store.webhooks.settle(bob, TOO_MANY, delivered=False, retry_in=7200.0, outcome=AttemptOutcome.FAILED)
    assert await store.webhooks.probe("relay.example", "carol") == 1
    assert await store.webhooks.probe("other.example", "carol") == 0
    assert clients(await claimed(store)) == ["alice"]


async def test_one_webhook_probes_a_host_whose_circuit_is_open(store: JobStore) -> None:
    for client in ("alice", "bob"):
        await finish(store, client)
    for _ in range(FAILURE_THRESHOLD):
        for delivery in await claimed(store):
            await fail(store, delivery, AttemptOutcome.UNREACHED)
    assert await claimed(store) == []
    assert await store.webhooks.probe("relay.example", "carol") >= 1
    assert len(await claimed(store)) == 1
