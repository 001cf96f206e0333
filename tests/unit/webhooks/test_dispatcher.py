import asyncio
import base64
import json
import sqlite3
import threading
from contextlib import asynccontextmanager, closing, suppress

import httpx
import pytest
from nacl.signing import VerifyKey

from queue_middleware.errors import OutboundBusy, OutboundError, OutboundRefused, OutboundShortage, OutboundUnreached, StoreBusy
from queue_middleware.events import (
    CircuitClosed,
    CircuitOpened,
    Delivered,
    DeliveryDead,
    DeliveryFailed,
    Recovered,
    ServiceError,
)
from queue_middleware.jobs.models import (
    ErrorType,
    Failure,
    NewJob,
    Progress,
    RetryPolicy,
    StoredRequest,
    StoredResponse,
    WebhookKind,
)
from queue_middleware.jobs.store import Topic
from queue_middleware.observability.emitter import Emitter
from queue_middleware.outbound.client import HTTPClient, Response
from queue_middleware.outbound.guard import Guard
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.verify import WebhookVerifier
from queue_middleware.webhooks import dispatcher as module
from queue_middleware.webhooks.body import REQUEST_FORMAT, RequestFormat
from queue_middleware.webhooks.circuit import FAILURE_THRESHOLD, give_up_after
from queue_middleware.webhooks.dispatcher import Dispatcher
from queue_middleware.webhooks.fairness import FLOW_LIMITS
from queue_middleware.webhooks.message import MessageBuilder
from queue_middleware.webhooks.models import DeliveryFilter, DeliveryState, ReceiverHealth
from queue_middleware.webhooks.retry import MAX_REFUSALS
from queue_middleware.webhooks.signing import keys
from queue_middleware.webhooks.signing.keyring import KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair, LongSignature
from queue_middleware.webhooks.signing.signer import Signer
from tests.support.clock import ManualClock
from tests.support.database_template import create_empty_database
from tests.support.doubles import EventQueue, FailingStore, FakeHosts, cancel_tasks, running
from tests.support.leases import lease_passes

URL = "https://receiver.example/hook"
JSON = ((b"content-type", b"application/json"),)
OK = Response(200, (), b"thanks")
SCHEDULE = (5.0, 300.0)


class Receiver(FakeHosts[Response]):
    """Stands for `Outbound`."""

    def __init__(self, *responses: Response | Exception) -> None:
        super().__init__(*(responses or (OK,)))
        self.posts: list[tuple[str, dict[bytes, bytes], bytes]] = []

    async def post(self, url, headers, body):
        if not isinstance(body, bytes):
            body = b"".join([chunk async for chunk in body.chunks()])
        self.posts.append((url, dict(headers), body))
        return await self.respond(url)


class Setup:
    """A store on a file, a dispatcher on it, and methods that make webhooks due."""

    def __init__(self, store: SQLiteStore, clock: ManualClock) -> None:
        self.store, self.clock, self.events, self.signer = store, clock, EventQueue(), Signer(KeyRing.of(KeyPair.generate()))

    def engine(self, receiver: Receiver, store: object = None, schedule: tuple[float, ...] = SCHEDULE, **options) -> Dispatcher:
        store = store or self.store
        formats = {REQUEST_FORMAT: RequestFormat(store.response_chunk, Settings())}
        messages = MessageBuilder(self.signer, formats, self.clock.seconds)
        emit = Emitter([self.events])
        return Dispatcher(store, store.webhooks, receiver, messages, schedule, emit, clock=self.clock.seconds, **options)

    @asynccontextmanager
    async def running(self, receiver: Receiver, store: object = None, **options):
        async with running(self.engine(receiver, store, **options)) as engine:
            try:
                yield engine
            finally:
                receiver.gate.set()

    async def finish(
        self, outcome: StoredResponse | Failure | None = None, parts: tuple[bytes, ...] = (), url: str = URL
    ) -> str:
        receipt = await self.submit(url)
        (claim,) = await self.store.claim(1)
        for number, part in enumerate(parts):
            await self.store.append(claim, number, part)
        if isinstance(outcome, Failure):
            assert await self.store.fail(claim, outcome)
        else:
            assert await self.store.complete(claim, outcome or StoredResponse(200, JSON, b'{"a": 1}', len(parts)))
        return receipt

    async def submit(self, url: str = URL, webhook_kinds: tuple[WebhookKind, ...] = ()) -> str:
        request = StoredRequest("POST", "", b"/", b"", (), None, None, "http", "1.1", b"")
        new = NewJob(request, "192.0.2.7", RetryPolicy(3), webhook=url, webhook_kinds=webhook_kinds)
        return (await self.store.submit(new)).request_id

    async def occupy(self, receiver: Receiver, many: int) -> None:
        """Make the host of `URL` healthy, and keep this many attempts running there."""
        await self.finish()
        assert isinstance(await self.events.next(), Delivered)
        await receiver.arrived.acquire()
        receiver.gate.clear()
        for _ in range(many):
            await self.finish()
            await receiver.arrived.acquire()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.store._notifier.publish({Topic.DELIVERY})

    async def states(self) -> dict[str, int]:
        return dict((await self.store.counts()).deliveries)


@pytest.fixture
async def setup(tmp_path):
    clock = ManualClock()
    store = SQLiteStore(Settings(database=str(create_empty_database(tmp_path / "queue.sqlite3"))), clock, clock.boot)
    await store.open()
    yield Setup(store, clock)
    await store.close()


async def test_a_result_is_sent_signed_and_recorded(setup):
    receiver = Receiver()
    async with setup.running(receiver):
        request_id = await setup.finish()
        event = await setup.events.next()
    assert isinstance(event, Delivered)
    (attempt,) = await setup.store.webhooks.attempts(event.delivery_id)
    assert (event.status, event.request_id, event.host, event.attempt) == (200, request_id, "receiver.example", 1)
    assert (attempt.status, attempt.error, attempt.response_body) == (200, None, b"thanks")
    assert attempt.at == setup.clock.now
    assert await setup.states() == {DeliveryState.DELIVERED: 1}

    ((url, headers, body),) = receiver.posts
    assert url == URL
    assert headers[b"content-type"] == b"application/json"
    assert json.loads(body) == {
        "error": None,
        "gateway_request_id": request_id,
        "payload": {"a": 1},
        "request_id": request_id,
        "status": "OK",
    }
    assert (await _verified(setup, headers, body)).user_id == "anonymous"
    version, signature = headers[b"webhook-signature"].split(b",")
    message = b".".join((headers[b"webhook-id"], headers[b"webhook-timestamp"], body))
    assert version == b"v1a"
    VerifyKey(setup.signer.active.public).verify(message, base64.b64decode(signature))


async def _verified(setup, headers, body):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=setup.signer.jwks()))
    async with httpx.AsyncClient(transport=transport) as client:
        return await WebhookVerifier("https://s.example", client=client, clock=setup.clock.seconds).verify(
            headers.items(), body
        )


async def test_over_a_real_connection(setup):
    received = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1:-2]
        headers = dict(line.split(b": ", 1) for line in head)
        received.set_result((headers, await reader.readexactly(int(headers[b"content-length"]))))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server, HTTPClient(Guard(["127.0.0.1"])) as outbound:
        engine = setup.engine(outbound)
        task = asyncio.create_task(engine.run())
        await setup.finish(url=url)
        event = await setup.events.next()
        engine.stop()
        await task
    assert (type(event), event.status) == (Delivered, 204)
    await _verified(setup, *await received)


async def test_deliveries_due_before_the_start_are_sent(setup):
    await setup.finish()
    async with setup.running(Receiver()):
        assert isinstance(await setup.events.next(), Delivered)


async def test_a_streamed_response_is_assembled(setup):
    receiver = Receiver()
    async with setup.running(receiver):
        await setup.finish(StoredResponse(200, JSON, b"3]", 2), parts=(b"[1, ", b"2, "))
        await setup.events.next()
    assert b'"payload": [1, 2, 3], ' in receiver.posts[0][2]


async def test_failed_and_cancelled_requests_are_announced(setup):
    receiver = Receiver()
    await setup.finish(Failure(ErrorType.REQUEST_TIMEOUT, "too slow"))
    await setup.store.cancel(await setup.submit())
    async with setup.running(receiver, limit=1):
        await setup.events.next()
        await setup.events.next()
    sent = [json.loads(body) for _, _, body in receiver.posts]
    assert sorted((one["status"], one["error"]) for one in sent) == [
        ("ERROR", "Invalid status code: 504"),
        ("ERROR", "Request was cancelled"),
    ]


async def test_a_failed_attempt_is_retried_by_schedule(setup):
    receiver = Receiver(Response(500, (), b"oops"), OutboundError("no connection: Connection refused"), OK)
    async with setup.running(receiver):
        await setup.finish()
        first = await setup.events.next()
        assert isinstance(first, DeliveryFailed)
        (attempt,) = await setup.store.webhooks.attempts(first.delivery_id)
        assert (first.status, first.error, attempt.response_body) == (500, "response status 500", b"oops")
        assert 4 <= first.retry_in <= 6
        assert await setup.states() == {DeliveryState.PENDING: 1}
        setup.pass_time(6)
        second = await setup.events.next()
        assert (second.status, second.error) == (None, "no connection: Connection refused")
        assert 240 <= second.retry_in <= 360
        setup.pass_time(360)
        assert isinstance(await setup.events.next(), Delivered)


async def test_each_attempt_has_a_new_signature_and_the_same_id(setup):
    receiver = Receiver(Response(500, (), b""), OK)
    async with setup.running(receiver):
        await setup.finish()
        await setup.events.next()
        setup.pass_time(3600)
        await setup.events.next()
    (_, first, one), (_, second, other) = receiver.posts
    assert one == other
    assert first[b"webhook-id"] == second[b"webhook-id"]
    assert int(second[b"x-fal-webhook-timestamp"]) - int(first[b"x-fal-webhook-timestamp"]) == 3600
    await _verified(setup, second, other)


async def test_a_delivery_is_dead_after_the_last_attempt(setup):
    receiver = Receiver(Response(500, (), b""))
    async with setup.running(receiver):
        await setup.finish()
        for _ in SCHEDULE:
            assert (await setup.events.next()).retry_in is not None
            setup.pass_time(1000)
        assert (await setup.events.next()).retry_in is None
    assert await setup.states() == {DeliveryState.DEAD: 1}
    assert len(receiver.posts) == 1 + len(SCHEDULE)


async def test_events_do_not_repeat_the_target_of_a_redirect(setup):
    """It is the URL of the webhook in another notation, as a rule: with https, or with a slash at the end."""
    target = "https://receiver.example/hook/secret-path/"
    async with setup.running(Receiver(Response(301, ((b"location", target.encode()),), b""))):
        await setup.finish(url=target.removesuffix("/"))
        failed, dead = await setup.events.next(), await setup.events.next()
    assert isinstance(failed, DeliveryFailed)
    assert isinstance(dead, DeliveryDead)
    assert failed.error == dead.error == "response status 301; redirects are not followed"
    (attempt,) = await setup.store.webhooks.attempts(dead.delivery_id)
    assert target in attempt.error


@pytest.mark.parametrize(("status", "error"), [(301, "redirects are not followed"), (307, "not followed"), (410, "status 410")])
async def test_some_responses_are_final(setup, status, error):
    async with setup.running(Receiver(Response(status, (), b""))):
        await setup.finish()
        event = await setup.events.next()
    assert error in event.error
    assert event.retry_in is None
    assert await setup.states() == {DeliveryState.DEAD: 1}


async def test_a_refusal_of_the_guard_is_retried_because_the_address_may_change(setup):
    async with setup.running(Receiver(OutboundRefused("example.com has an address that is not public"))):
        await setup.finish()
        event = await setup.events.next()
    assert event.retry_in is not None
    assert "not public" in event.error


@pytest.mark.parametrize("table", ["payload", "response_chunk"])
async def test_a_delivery_without_its_result_is_dead(setup, table):
    receiver = Receiver()
    await setup.finish(StoredResponse(200, JSON, b"1]", 1), parts=(b"[",))
    with closing(sqlite3.connect(setup.store.path)) as connection, connection:
        connection.execute(f"DELETE FROM {table}")
    async with setup.running(receiver):
        event = await setup.events.next()
    assert (event.error, event.retry_in) == ("the result is no longer stored", None)
    assert receiver.posts == []


async def test_concurrent_deliveries_are_limited(setup):
    receiver = Receiver()
    receiver.gate.clear()
    for number in range(7):
        await setup.finish(url=f"https://r{number}.example/")
    async with setup.running(receiver, limit=4):
        for _ in range(3):
            await receiver.arrived.acquire()
        receiver.gate.set()
        for _ in range(7):
            assert isinstance(await setup.events.next(), Delivered)
    assert receiver.max_in_flight == 3, "a quarter is reserved for healthy hosts"


async def test_a_slow_receiver_does_not_delay_others(setup):
    receiver = Receiver()
    receiver.gate.clear()
    async with setup.running(receiver, limit=4):
        await setup.finish(url="https://slow.example/")
        await receiver.arrived.acquire()
        quick = Receiver()
        receiver.post, slow = quick.post, receiver.post
        for _ in range(5):
            await setup.finish()
            assert isinstance(await setup.events.next(), Delivered)
        receiver.post = slow
        assert receiver.in_flight == 1


async def test_a_stop_waits_for_running_attempts(setup):
    receiver = Receiver()
    receiver.gate.clear()
    engine = setup.engine(receiver, grace=60.0)
    task = asyncio.create_task(engine.run())
    await setup.finish()
    await receiver.arrived.acquire()
    engine.stop()
    engine.stop()
    await setup.finish()
    receiver.gate.set()
    async with asyncio.timeout(10):
        await task
    assert isinstance(await setup.events.next(), Delivered)
    assert await setup.states() == {DeliveryState.DELIVERED: 1, DeliveryState.PENDING: 1}
    engine.stop()


async def test_an_attempt_that_does_not_end_is_sent_again_after_its_lease(setup):
    receiver = Receiver()
    receiver.gate.clear()
    engine = setup.engine(receiver, grace=0.0)
    task = asyncio.create_task(engine.run())
    await setup.finish()
    await receiver.arrived.acquire()
    engine.stop()
    async with asyncio.timeout(10):
        await task
    assert receiver.in_flight == 0
    assert await setup.states() == {DeliveryState.SENDING: 1}

    await lease_passes(setup.store, setup.clock)
    await setup.store.rescue()
    setup.clock.advance(1)  # its backoff
    async with setup.running(Receiver()):
        event = await setup.events.next()
    assert isinstance(event, Delivered)
    assert event.attempt == 2


async def test_an_attempt_cancelled_before_its_first_step_frees_its_slot(setup):
    receiver, loop = Receiver(), asyncio.get_running_loop()

    class Cancelling:
        """A store whose first claim has its attempts cancelled before their first step."""

        webhooks = property(lambda self: self)
        claimed = None

        def __getattr__(self, name):
            return getattr(setup.store.webhooks, name, None) or getattr(setup.store, name)

        async def claim(self, room):
            claimed = await setup.store.webhooks.claim(room)
            if self.claimed is None:
                loop.call_soon(cancel_tasks, "webhook ")  # before the first step of the attempts of this claim
            self.claimed = claimed
            return claimed

    await setup.finish()
    async with setup.running(receiver, Cancelling(), limit=1):
        await until_claimed(setup)
        await lease_passes(setup.store, setup.clock)
        await setup.store.rescue()
        setup.pass_time(1)  # its backoff
        event = await setup.events.next()
    assert (type(event), event.attempt, len(receiver.posts)) == (Delivered, 2, 1)


async def until_claimed(setup):
    async with asyncio.timeout(10):
        while DeliveryState.SENDING not in await setup.states():
            await asyncio.sleep(0)


async def test_a_stop_before_the_start_ends_the_dispatcher_at_once(setup):
    await setup.finish()
    receiver = Receiver()
    engine = setup.engine(receiver)
    engine.stop()
    async with asyncio.timeout(10):
        await engine.run()
    assert receiver.posts == []


async def test_cancelling_the_dispatcher_cancels_its_attempts(setup):
    receiver = Receiver()
    receiver.gate.clear()
    task = asyncio.create_task(setup.engine(receiver).run())
    await setup.finish()
    await receiver.arrived.acquire()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (task.cancelled(), receiver.in_flight) == (True, 0)


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 0.0)


@pytest.mark.parametrize("method", ["claim", "next_due", "settle"])
async def test_sending_continues_after_an_outage_of_the_store(setup, no_pause, method):
    receiver = Receiver()
    await setup.finish()
    async with setup.running(receiver, FailingStore(setup.store, method, StoreBusy("busy", 1), RuntimeError("odd"))):
        events = [await setup.events.next() for _ in range(4)]
    assert [type(event) for event in events] == [ServiceError, ServiceError, Recovered, Delivered]
    assert len(receiver.posts) == 1


async def test_a_stop_ends_the_pause_of_an_outage(setup, monkeypatch):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 3600.0)
    async with setup.running(Receiver(), FailingStore(setup.store, "next_due", RuntimeError("odd"))):
        assert (await setup.events.next()).retry_in == 3600.0


async def test_an_unexpected_error_costs_only_an_attempt(setup):
    receiver = Receiver(RuntimeError("a defect"), OK)
    async with setup.running(receiver):
        await setup.finish()
        assert isinstance(await setup.events.next(), ServiceError)
        failed = await setup.events.next()
        assert (failed.error, failed.retry_in is None) == ("not sent: RuntimeError", False)
        setup.pass_time(10)
        assert isinstance(await setup.events.next(), Delivered)


async def test_a_lost_lease_is_not_announced(setup):
    receiver = Receiver()
    receiver.gate.clear()
    async with setup.running(receiver, limit=1):
        await setup.finish()
        await receiver.arrived.acquire()
        await lease_passes(setup.store, setup.clock)
        await setup.store.rescue()
        setup.pass_time(1)  # its backoff
        receiver.gate.set()
        event = await setup.events.next()
    assert event.attempt == 2
    assert setup.events.queue.empty()
    assert await setup.states() == {DeliveryState.DELIVERED: 1}


async def test_large_results_are_signed_outside_the_event_loop(setup, monkeypatch):
    signed_in = []

    class RecordingSignature(LongSignature):
        def update_first(self, piece):
            signed_in.append((len(piece), threading.current_thread()))
            super().update_first(piece)

        def update_second(self, piece):
            signed_in.append((len(piece), threading.current_thread()))
            super().update_second(piece)

    monkeypatch.setattr(keys, "LongSignature", RecordingSignature)
    async with setup.running(Receiver()):
        await setup.finish(StoredResponse(200, JSON, b'"' + b"x" * 300_000 + b'"'))
        await setup.events.next()
    long = [thread for length, thread in signed_in if length > 1000]
    assert len(long) == 4  # two pieces, twice
    assert threading.main_thread() not in long


# --- hosts


async def test_a_circuit_opens_is_probed_and_closes(setup):
    down = OutboundError("no connection: Connection refused")
    receiver = Receiver(*[down] * FAILURE_THRESHOLD, OK)
    for _ in range(FAILURE_THRESHOLD):
        await setup.finish()
    async with setup.running(receiver):
        failed = [await setup.events.next() for _ in range(FAILURE_THRESHOLD)]
        assert {type(event) for event in failed} == {DeliveryFailed}
        opened = await setup.events.next()
        assert (type(opened), opened.host) == (CircuitOpened, "receiver.example")
        await setup.finish()
        setup.pass_time(4)
        assert len(receiver.posts) == FAILURE_THRESHOLD, "deliveries submitted meanwhile wait"
        setup.pass_time(opened.probe_in)
        assert [type(await setup.events.next()) for _ in range(2)] == [Delivered, CircuitClosed]
        for _ in range(FAILURE_THRESHOLD):
            assert isinstance(await setup.events.next(), Delivered)
    assert await setup.states() == {DeliveryState.DELIVERED: FAILURE_THRESHOLD + 1}


@pytest.mark.parametrize("error", [OutboundRefused("not public"), RuntimeError("a defect")])
async def test_local_errors_do_not_change_the_health_of_a_host(setup, error):
    async with setup.running(Receiver(error)):
        for _ in range(FAILURE_THRESHOLD + 1):
            await setup.finish()
            while not isinstance(await setup.events.next(), DeliveryFailed):
                pass
    (found,) = await setup.store.webhooks.receivers([ReceiverHealth.NEW])
    assert found.failures == 0


@pytest.mark.parametrize("lack", [OutboundBusy("too many names"), OutboundShortage("Too many open files")])
async def test_an_attempt_that_could_not_be_sent_is_not_charged_and_repeated_soon(setup, lack):
    receiver = Receiver(*[lack] * (len(SCHEDULE) + 3), OK)
    async with setup.running(receiver):
        await setup.finish()
        for _ in range(len(SCHEDULE) + 3):
            await receiver.arrived.acquire()
            while await setup.states() != {DeliveryState.PENDING: 1}:
                await asyncio.sleep(0.001)
            setup.pass_time(30)
        event = await setup.events.next()
    assert (type(event), event.attempt) == (Delivered, 1)
    (found,) = await setup.store.webhooks.receivers(list(ReceiverHealth))
    assert (found.health, found.failures) == (ReceiverHealth.HEALTHY, 0)


async def test_a_refusal_of_the_url_itself_is_final(setup):
    async with setup.running(Receiver(OutboundRefused("the webhook URL names a host of the local network", is_final=True))):
        await setup.finish()
        event = await setup.events.next()
    assert event.retry_in is None
    assert await setup.states() == {DeliveryState.DEAD: 1}


async def test_a_name_with_a_private_address_is_dead_within_minutes(setup):
    receiver = Receiver(OutboundRefused("hooks.example has an address that is not public"))
    async with setup.running(receiver, schedule=(5.0, 300.0, 1800.0, 7200.0)):
        await setup.finish()
        waits = []
        for _ in range(MAX_REFUSALS):
            event = await setup.events.next()
            waits.append(event.retry_in)
            setup.pass_time(400)
        assert isinstance(await setup.events.next(), DeliveryDead)
    assert [wait is None for wait in waits] == [False, False, True]


async def test_an_unreachable_host_opens_its_circuit_for_all_flows(setup):
    async with setup.running(Receiver(OutboundUnreached("no connection: Connection refused")), schedule=(0.0,) * 9):
        await setup.finish()
        while not isinstance(event := await setup.events.next(), CircuitOpened):
            setup.pass_time(1)
    assert (event.host, event.submitter) == ("receiver.example", None)


async def test_a_healthy_host_receives_many_attempts_at_once(setup):
    receiver = Receiver()
    async with setup.running(receiver):
        await setup.finish()
        await setup.events.next()
        receiver.gate.clear()
        for _ in range(FLOW_LIMITS[ReceiverHealth.HEALTHY] + 5):
            await setup.finish()
        for _ in range(FLOW_LIMITS[ReceiverHealth.HEALTHY] + 1):
            await receiver.arrived.acquire()
        receiver.gate.set()
        for _ in range(FLOW_LIMITS[ReceiverHealth.HEALTHY] + 5):
            assert isinstance(await setup.events.next(), Delivered)
    assert receiver.max_in_flight == FLOW_LIMITS[ReceiverHealth.HEALTHY]


async def test_a_slot_that_becomes_free_during_a_claim_causes_another(setup):
    """The claim saw the host as busy and gave it nothing, so without another claim its deliveries would wait."""
    receiver, call, gate = Receiver(), asyncio.Event(), asyncio.Event()
    many = FLOW_LIMITS[ReceiverHealth.HEALTHY]

    class Slow:
        """A store whose claims return late."""

        webhooks = property(lambda self: self)

        def __getattr__(self, name):
            return getattr(setup.store.webhooks, name, None) or getattr(setup.store, name)

        async def claim(self, room):
            claimed = await setup.store.webhooks.claim(room)
            if room.busy.get("receiver.example 192.0.2.7") == many:
                call.set()
                await gate.wait()
            return claimed

    async with setup.running(receiver, Slow()):
        await setup.occupy(receiver, many)
        await setup.finish()
        await call.wait()
        receiver.gate.set()
        for _ in range(many):
            assert isinstance(await setup.events.next(), Delivered)
        gate.set()
        assert isinstance(await setup.events.next(), Delivered)


async def test_slots_that_become_free_just_before_a_claim_are_included(setup):
    """The host's attempts all end while the dispatcher reads when the next delivery is due; no later event wakes it."""
    receiver, call, gate = Receiver(), asyncio.Event(), asyncio.Event()
    many = FLOW_LIMITS[ReceiverHealth.HEALTHY]

    class Slow:
        """A store whose `next_due` is slow."""

        late = False

        def __getattr__(self, name):
            return getattr(setup.store, name)

        async def next_due(self, topic):
            due = await setup.store.next_due(topic)
            if self.late and due is not None and due <= 0:
                call.set()
                await gate.wait()
            return due

    store = Slow()
    async with setup.running(receiver, store):
        await setup.occupy(receiver, many)
        store.late = True
        await setup.finish()
        await call.wait()
        receiver.gate.set()
        for _ in range(many):
            assert isinstance(await setup.events.next(), Delivered)
        gate.set()
        assert isinstance(await setup.events.next(), Delivered)


async def test_hanging_hosts_leave_slots_to_healthy_ones(setup):
    receiver = Receiver()
    async with setup.running(receiver, limit=8):
        await setup.finish()
        await setup.events.next()
        receiver.gate.clear()
        for number in range(20):
            await setup.finish(url=f"https://hangs{number}.example/")
        for _ in range(1 + 6):
            await receiver.arrived.acquire()
        quick = Receiver()
        receiver.post, slow = quick.post, receiver.post
        for _ in range(10):
            await setup.finish()
            assert (await setup.events.next()).host == "receiver.example"
        assert receiver.max_in_flight == 6
        receiver.post = slow


async def test_a_receiver_that_was_down_for_an_hour_receives_everything_in_scheduled_order(setup):
    """Submitted over an hour of failing; when the host recovers, the oldest are sent first."""
    receiver = Receiver(OutboundError("no connection: Connection refused"))
    ids = []
    async with setup.running(receiver, schedule=Settings().webhook_schedule) as engine:
        for _ in range(60):
            ids.append(await setup.finish())
            setup.pass_time(60)
            await idle(setup, engine)
        receiver.responses = [OK]
        receiver.posts.clear()
        order = [record.request_id for record in sorted(await records(setup), key=lambda record: (record.due_at, record.id))]
        assert sorted(order) == sorted(ids)
        overdue = [record for record in await records(setup) if record.due_at <= setup.clock.now]
        assert len(overdue) > 40
        while (await setup.states()).get(DeliveryState.PENDING):
            setup.pass_time(30)
            await idle(setup, engine)
    sent = [headers[b"webhook-id"].decode() for _, headers, _ in receiver.posts]
    assert sent == order
    assert await setup.states() == {DeliveryState.DELIVERED: 60}


async def records(setup):
    return await setup.store.webhooks.records(DeliveryFilter(), limit=1000)


async def idle(setup, engine):
    """Wait until nothing that is due can be sent: it is claimed first, then sent, then settled."""
    async with asyncio.timeout(10):
        while (
            await setup.store.next_due(Topic.DELIVERY) == 0.0
            or DeliveryState.SENDING in await setup.states()
            or engine.tokens()
        ):
            await asyncio.sleep(0)
    while not setup.events.queue.empty():
        setup.events.queue.get_nowait()


async def test_deliveries_that_die_with_their_host_are_announced(setup):
    receiver = Receiver(OutboundError("no connection: Connection refused"))
    schedule = Settings().webhook_schedule
    async with setup.running(receiver, schedule=schedule) as engine:
        for _ in range(FAILURE_THRESHOLD):
            await setup.finish()
        await idle(setup, engine)
        sent = len(receiver.posts)
        late = [await setup.finish() for _ in range(3)]
        setup.pass_time(give_up_after(schedule) + 1)
        dead = []
        while len(dead) < len(late) - 1:
            event = await setup.events.next()
            if isinstance(event, DeliveryDead) and event.request_id in late:
                assert "its host has been failing" in event.error
                dead.append(event.request_id)
    assert set(dead) == set(late[1:])
    assert len(receiver.posts) == sent + 1, "only the first of them was attempted"


# --- events before the end


async def test_events_before_the_end_are_signed_and_have_fals_envelope(setup):
    receiver = Receiver()
    async with setup.running(receiver):
        request_id = await setup.submit(webhook_kinds=tuple(WebhookKind))
        (claim,) = await setup.store.claim(1)
        await setup.events.next()
        await setup.store.log(claim, [], Progress(0.5, "half of it"))
        await setup.events.next()
        await setup.store.complete(claim, StoredResponse(200, JSON, b"[1]"))
        await setup.events.next()
    sent = [json.loads(body) for _, _, body in receiver.posts]
    same = {"error": None, "gateway_request_id": request_id, "payload": None, "request_id": request_id, "status": "IN_PROGRESS"}
    when = {"timestamp": "2027-01-15T08:00:00.000Z"}
    assert sent == [
        {**same, **when, "type": "request.started", "webhook_id": f"{request_id}_1"},
        {
            **same,
            **when,
            "type": "request.progress",
            "webhook_id": f"{request_id}_2",
            "progress": {"fraction": 0.5, "stage": "half of it"},
        },
        {**same, "payload": [1], "status": "OK"},
    ]
    ids = [headers[b"webhook-id"].decode() for _, headers, _ in receiver.posts]
    assert ids == [f"{request_id}_1", f"{request_id}_2", request_id]
    for _, headers, body in receiver.posts:
        assert headers[b"x-fal-webhook-request-id"].decode() == request_id
        await _verified(setup, headers, body)
        message = b".".join((headers[b"webhook-id"], headers[b"webhook-timestamp"], body))
        VerifyKey(setup.signer.active.public).verify(message, base64.b64decode(headers[b"webhook-signature"].split(b",")[1]))


async def test_a_failed_event_is_not_announced_as_retried_if_there_is_a_newer_one(setup):
    receiver = Receiver(Response(500, (), b""), OK)
    receiver.gate.clear()
    async with setup.running(receiver):
        await setup.submit(webhook_kinds=(WebhookKind.PROGRESS,))
        (claim,) = await setup.store.claim(1)
        await setup.store.log(claim, [], Progress(0.5))
        await receiver.arrived.acquire()
        await setup.store.complete(claim, StoredResponse(200, JSON, b"[1]"))
        receiver.gate.set()
        failed, delivered = await setup.events.next(), await setup.events.next()
    assert (type(failed), failed.kind, failed.retry_in) == (DeliveryFailed, WebhookKind.PROGRESS, None)
    assert (type(delivered), delivered.kind) == (Delivered, WebhookKind.COMPLETED)
    assert setup.events.queue.empty(), "no delivery is dead: a newer event replaces it"
    assert await setup.states() == {DeliveryState.SUPERSEDED: 1, DeliveryState.DELIVERED: 1}


async def test_a_failed_event_is_retried_if_there_is_no_newer_one(setup):
    async with setup.running(Receiver(Response(500, (), b""))):
        await setup.submit(webhook_kinds=(WebhookKind.PROGRESS,))
        (claim,) = await setup.store.claim(1)
        await setup.store.log(claim, [], Progress(0.5))
        assert (await setup.events.next()).retry_in is not None


# --- the number of concurrent attempts


def test_most_file_descriptors_are_left_to_the_application(monkeypatch):
    for soft, places in ((20_000, 256), (1024, 256), (256, 64), (2, 1), (module.resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(module.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert module._default_limit() == places
