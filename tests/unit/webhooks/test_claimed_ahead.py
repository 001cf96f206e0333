"""Webhooks that are claimed when their job is completed, or while all slots of their receiver are taken."""

import asyncio

import pytest

from queue_middleware import background
from queue_middleware.errors import OutboundRefused, StoreBusy
from queue_middleware.events import CircuitOpened, Delivered, DeliveryDead, DeliveryFailed
from queue_middleware.jobs.models import StoredResponse, WebhookKind
from queue_middleware.outbound.client import Response
from queue_middleware.webhooks.fairness import AHEAD, FLOW_LIMITS
from queue_middleware.webhooks.models import DeliveryFilter, DeliveryState, ReceiverHealth

from .test_dispatcher import JSON, OK, URL, Receiver, setup  # noqa: F401

pytestmark = [  # in the unusual course all webhooks wait for a claim
    pytest.mark.usefixtures("course"),
    pytest.mark.parametrize("course", ["plain"], indirect=True),
]

SLOTS = FLOW_LIMITS[ReceiverHealth.HEALTHY]


class CountingStore:
    """Counts the claims of deliveries."""

    def __init__(self, store):
        self.store, self.claims = store, 0

    @property
    def webhooks(self):
        return self

    def __getattr__(self, name):
        return getattr(self.store.webhooks, name, None) or getattr(self.store, name)

    async def claim(self, room):
        self.claims += 1
        return await self.store.webhooks.claim(room)


async def finish(setup, url=URL, **options):  # noqa: F811
    """Complete a job as the worker does: with a callback."""
    request_id = await setup.submit(url, **options)
    (claim,) = await setup.store.claim(1)
    done = asyncio.get_running_loop().create_future()
    setup.store.end(claim, StoredResponse(200, JSON, b'{"a": 1}'), done.set_result)
    assert await done
    return request_id


async def make_quick(setup):  # noqa: F811
    await setup.finish()
    assert isinstance(await setup.events.next(), Delivered)


async def occupy(setup, receiver, more):  # noqa: F811
    """Take all slots of the receiver, and finish `more` requests than that."""
    await make_quick(setup)
    await receiver.arrived.acquire()
    receiver.gate.clear()
    for _ in range(SLOTS + more):
        await finish(setup)
    for _ in range(SLOTS):
        await receiver.arrived.acquire()


async def test_the_webhook_of_a_healthy_receiver_is_sent_without_a_claim(setup):  # noqa: F811
    receiver, store = Receiver(), CountingStore(setup.store)
    async with setup.running(receiver, store):
        await make_quick(setup)
        before = store.claims
        request_id = await finish(setup)
        event = await setup.events.next()
    assert isinstance(event, Delivered)
    assert (event.request_id, event.attempt, store.claims) == (request_id, 1, before)
    (first, second) = [body.replace(b"\n", b"") for _, _, body in receiver.posts]
    ids = [post[1][b"x-fal-webhook-request-id"] for post in receiver.posts]
    assert first.replace(ids[0], b"") == second.replace(ids[1], b"")


async def test_webhooks_about_events_wait_for_a_claim(setup):  # noqa: F811
    receiver, store = Receiver(), CountingStore(setup.store)
    async with setup.running(receiver, store):
        await make_quick(setup)
        before = store.claims
        await finish(setup, webhook_kinds=(WebhookKind.PROGRESS,))
        assert isinstance(await setup.events.next(), Delivered)
    assert store.claims > before


async def test_nothing_is_reserved_unless_the_dispatcher_runs(setup):  # noqa: F811
    receiver = Receiver()
    async with setup.running(receiver):
        await make_quick(setup)
    await finish(setup)
    assert await setup.states() == {DeliveryState.DELIVERED: 1, DeliveryState.PENDING: 1}


async def test_what_is_claimed_ahead_waits_for_a_slot_and_keeps_its_lease(setup):  # noqa: F811
    receiver = Receiver()
    async with setup.running(receiver) as engine:
        await occupy(setup, receiver, AHEAD)
        assert await setup.states() == {DeliveryState.DELIVERED: 1, DeliveryState.SENDING: SLOTS + AHEAD}
        assert (receiver.in_flight, len(set(engine.tokens()))) == (SLOTS, SLOTS + AHEAD)
        await finish(setup)  # more are not claimed
        assert (await setup.states())[DeliveryState.PENDING] == 1
        receiver.gate.set()
        for _ in range(SLOTS + AHEAD + 1):
            assert isinstance(await setup.events.next(), Delivered)
    assert receiver.max_in_flight == SLOTS
    assert await setup.states() == {DeliveryState.DELIVERED: SLOTS + AHEAD + 2}


async def test_what_waits_for_a_slot_is_not_sent_to_a_failing_receiver(setup):  # noqa: F811
    receiver = Receiver()
    async with setup.running(receiver):
        await make_quick(setup)
        await receiver.arrived.acquire()
        receiver.responses[:] = [Response(500, (), b"")]
        receiver.gate.clear()
        for _ in range(SLOTS + 3):
            await finish(setup)
        for _ in range(SLOTS):
            await receiver.arrived.acquire()
        receiver.gate.set()
        events = [await setup.events.next() for _ in range(SLOTS)]
        assert {type(event) for event in events} <= {DeliveryFailed, CircuitOpened}
    assert len(receiver.posts) == 1 + SLOTS
    waiting = [one for one in await setup.store.webhooks.records(DeliveryFilter()) if one.attempts == 0]
    assert [one.state for one in waiting] == [DeliveryState.PENDING] * 3


async def test_what_waits_for_a_slot_is_handed_back_at_the_stop(setup):  # noqa: F811
    receiver = Receiver()
    async with setup.running(receiver) as engine:
        await occupy(setup, receiver, 3)
        engine.stop()
        receiver.gate.set()
    assert await setup.states() == {DeliveryState.DELIVERED: 1 + SLOTS, DeliveryState.PENDING: 3}
    pending = [one.attempts for one in await setup.store.webhooks.records(DeliveryFilter()) if one.state == "pending"]
    assert pending == [0, 0, 0]


async def test_a_cancelled_dispatcher_ends_and_hands_back_what_waits(setup):  # noqa: F811
    receiver = Receiver()
    engine = setup.engine(receiver)
    task = asyncio.create_task(engine.run())
    await occupy(setup, receiver, 3)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (len(receiver.posts), engine.tokens()) == (1 + SLOTS, [])
    assert await setup.states() == {DeliveryState.DELIVERED: 1, DeliveryState.SENDING: SLOTS, DeliveryState.PENDING: 3}


async def test_a_cancelled_dispatcher_does_not_wait_for_the_end_of_an_outage(setup):  # noqa: F811
    class Outage(CountingStore):
        async def release(self, claimed):
            raise StoreBusy("full", 5)

    receiver = Receiver()
    task = asyncio.create_task(setup.engine(receiver, Outage(setup.store)).run())
    await occupy(setup, receiver, 3)
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("limit", [1, 3])
async def test_all_attempts_together_are_limited(setup, limit):  # noqa: F811
    receiver = Receiver()
    async with setup.running(receiver, limit=limit):
        await make_quick(setup)
        for number in range(8):
            await finish(setup, URL if number % 2 else "https://other.example/")
        for _ in range(8):
            assert isinstance(await setup.events.next(), Delivered)
    assert receiver.max_in_flight <= limit


async def test_the_last_slot_may_be_taken_while_the_dispatcher_reads_what_is_due(setup):  # noqa: F811
    receiver, reading, gate = Receiver(), asyncio.Event(), asyncio.Event()

    class Slow(CountingStore):
        late = False

        async def next_due(self, topic):
            due = await self.store.next_due(topic)
            if self.late and due == 0:
                reading.set()
                await gate.wait()
            return due

    store = Slow(setup.store)
    async with setup.running(receiver, store, limit=1):
        await make_quick(setup)
        await receiver.arrived.acquire()
        receiver.gate.clear()
        before, store.late = store.claims, True
        other = await setup.finish(url="https://other.example/")
        await reading.wait()
        direct = await finish(setup)
        await receiver.arrived.acquire()
        gate.set()
        receiver.gate.set()
        events = [await setup.events.next() for _ in range(2)]
    assert [event.request_id for event in events] == [direct, other]
    assert all(isinstance(event, Delivered) for event in events)
    assert store.claims > before


async def test_a_slot_that_became_free_while_others_waited_is_used(setup, monkeypatch):  # noqa: F811
    """Both the only slot and a claim of the limited host were requested at once."""
    monkeypatch.setattr(background, "LONGEST_WAIT", 1000.0)
    before, committed, after = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(CountingStore):
        notifies = True

        def subscribe(self, topic, listener):
            self.store.subscribe(topic, lambda: self.notifies and listener())

        async def claim(self, room):
            await before.wait()
            claimed = await super().claim(room)
            committed.set()
            await after.wait()
            return claimed

    for gate in (before, after):
        gate.set()
    receiver, other, store = Receiver(), "https://other.example/", Slow(setup.store)
    async with setup.running(receiver, store, limit=1):
        await make_quick(setup)
        for gate in (before, after, committed):
            gate.clear()
        # The first attempt changes no health, so nothing but its free slot shows that the second delivery can be sent.
        receiver.responses[:] = [OutboundRefused("refused", is_final=True), OK]
        refused, last = await setup.submit(other), await setup.submit(other)
        await setup.submit()
        *others, claim = await setup.store.claim(3)
        await asyncio.gather(*[setup.store.complete(one, StoredResponse(200, JSON, b"{}")) for one in others])
        before.set()
        await committed.wait()
        store.notifies = False
        receiver.held_prefix = other
        receiver.gate.clear()
        done = asyncio.get_running_loop().create_future()
        setup.store.end(claim, StoredResponse(200, JSON, b"{}"), done.set_result)
        after.set()
        assert await done
        receiver.gate.set()
        events = [await setup.events.next() for _ in range(4)]
    ended = [event.request_id for event in events if not isinstance(event, DeliveryDead)]
    assert ended == [refused, claim.request_id, last]
