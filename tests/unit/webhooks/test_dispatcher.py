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
from queue_middleware.observability.emitter import make_emitter
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
from queue_middleware.webhooks.models import DeliveryFilter, DeliveryState, HostHealth
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

    def __init__(self, *answers: Response | Exception) -> None:
        super().__init__(*(answers or (OK,)))
        self.posts: list[tuple[str, dict[bytes, bytes], bytes]] = []

    async def post(self, url, headers, body):
        if not isinstance(body, bytes):
            body = b"".join([chunk async for chunk in body.chunks()])
        self.posts.append((url, dict(headers), body))
        return await self.respond(url)


class Bench:
    """A store on a file, a dispatcher on it, and methods that make webhooks due."""

    def __init__(self, store: SQLiteStore, clock: ManualClock) -> None:
        self.store, self.clock, self.events, self.signer = store, clock, EventQueue(), Signer(KeyRing.of(KeyPair.generate()))

    def engine(self, receiver: Receiver, store: object = None, schedule: tuple[float, ...] = SCHEDULE, **options) -> Dispatcher:
        store = store or self.store
        formats = {REQUEST_FORMAT: RequestFormat(store.response_chunk, Settings())}
        messages = MessageBuilder(self.signer, formats, self.clock.seconds)
        emit = make_emitter([self.events])
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

    async def submit(self, url: str = URL, events: tuple[WebhookKind, ...] = ()) -> str:
        request = StoredRequest("POST", "", b"/", b"", (), None, None, "http", "1.1", b"")
        new = NewJob(request, "192.0.2.7", RetryPolicy(3), webhook=url, events=events)
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
async def bench(tmp_path):
    clock = ManualClock()
    store = SQLiteStore(Settings(database=str(create_empty_database(tmp_path / "queue.sqlite3"))), clock, clock.boot)
    await store.open()
    yield Bench(store, clock)
    await store.close()


async def test_a_result_is_sent_signed_and_recorded(bench):
    receiver = Receiver()
    async with bench.running(receiver):
        request_id = await bench.finish()
        event = await bench.events.next()
    assert isinstance(event, Delivered)
    (attempt,) = await bench.store.webhooks.attempts(event.delivery_id)
    assert (event.status, event.request_id, event.host, event.attempt) == (200, request_id, "receiver.example", 1)
    assert (attempt.status, attempt.error, attempt.response_body) == (200, None, b"thanks")
    assert attempt.at == bench.clock.now
    assert await bench.states() == {DeliveryState.DELIVERED: 1}

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
    assert (await _verified(bench, headers, body)).user_id == "anonymous"
    version, signature = headers[b"webhook-signature"].split(b",")
    message = b".".join((headers[b"webhook-id"], headers[b"webhook-timestamp"], body))
    assert version == b"v1a"
    VerifyKey(bench.signer.active.public).verify(message, base64.b64decode(signature))


async def _verified(bench, headers, body):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=bench.signer.jwks()))
    async with httpx.AsyncClient(transport=transport) as client:
        return await WebhookVerifier("https://s.example", client=client, clock=bench.clock.seconds).verify(
            headers.items(), body
        )


async def test_over_a_real_connection(bench):
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
        engine = bench.engine(outbound)
        task = asyncio.create_task(engine.run())
        await bench.finish(url=url)
        event = await bench.events.next()
        engine.stop()
        await task
    assert (type(event), event.status) == (Delivered, 204)
    await _verified(bench, *await received)


async def test_what_was_due_before_the_start_is_sent_too(bench):
    await bench.finish()
    async with bench.running(Receiver()):
        assert isinstance(await bench.events.next(), Delivered)


async def test_a_streamed_response_is_assembled(bench):
    receiver = Receiver()
    async with bench.running(receiver):
        await bench.finish(StoredResponse(200, JSON, b"3]", 2), parts=(b"[1, ", b"2, "))
        await bench.events.next()
    assert b'"payload": [1, 2, 3], ' in receiver.posts[0][2]


async def test_failed_and_cancelled_requests_are_announced(bench):
    receiver = Receiver()
    await bench.finish(Failure(ErrorType.REQUEST_TIMEOUT, "too slow"))
    await bench.store.cancel(await bench.submit())
    async with bench.running(receiver, limit=1):
        await bench.events.next()
        await bench.events.next()
    sent = [json.loads(body) for _, _, body in receiver.posts]
    assert sorted((one["status"], one["error"]) for one in sent) == [
        ("ERROR", "Invalid status code: 504"),
        ("ERROR", "Request was cancelled"),
    ]


async def test_an_attempt_that_fails_is_repeated_by_schedule(bench):
    receiver = Receiver(Response(500, (), b"oops"), OutboundError("no connection: Connection refused"), OK)
    async with bench.running(receiver):
        await bench.finish()
        first = await bench.events.next()
        assert isinstance(first, DeliveryFailed)
        (attempt,) = await bench.store.webhooks.attempts(first.delivery_id)
        assert (first.status, first.error, attempt.response_body) == (500, "response status 500", b"oops")
        assert 4 <= first.retry_in <= 6
        assert await bench.states() == {DeliveryState.PENDING: 1}
        bench.pass_time(6)
        second = await bench.events.next()
        assert (second.status, second.error) == (None, "no connection: Connection refused")
        assert 240 <= second.retry_in <= 360
        bench.pass_time(360)
        assert isinstance(await bench.events.next(), Delivered)


async def test_each_attempt_is_signed_anew_under_the_same_id(bench):
    receiver = Receiver(Response(500, (), b""), OK)
    async with bench.running(receiver):
        await bench.finish()
        await bench.events.next()
        bench.pass_time(3600)
        await bench.events.next()
    (_, first, one), (_, second, other) = receiver.posts
    assert one == other
    assert first[b"webhook-id"] == second[b"webhook-id"]
    assert int(second[b"x-fal-webhook-timestamp"]) - int(first[b"x-fal-webhook-timestamp"]) == 3600
    await _verified(bench, second, other)


async def test_after_the_last_attempt_it_is_dead(bench):
    receiver = Receiver(Response(500, (), b""))
    async with bench.running(receiver):
        await bench.finish()
        for _ in SCHEDULE:
            assert (await bench.events.next()).retry_in is not None
            bench.pass_time(1000)
        assert (await bench.events.next()).retry_in is None
    assert await bench.states() == {DeliveryState.DEAD: 1}
    assert len(receiver.posts) == 1 + len(SCHEDULE)


async def test_events_do_not_repeat_the_target_of_a_redirect(bench):
    """It is the URL of the webhook in another notation, as a rule: with https, or with a slash at the end."""
    target = "https://receiver.example/hook/secret-path/"
    async with bench.running(Receiver(Response(301, ((b"location", target.encode()),), b""))):
        await bench.finish(url=target.removesuffix("/"))
        failed, dead = await bench.events.next(), await bench.events.next()
    assert isinstance(failed, DeliveryFailed)
    assert isinstance(dead, DeliveryDead)
    assert failed.error == dead.error == "response status 301; redirects are not followed"
    (attempt,) = await bench.store.webhooks.attempts(dead.delivery_id)
    assert target in attempt.error


@pytest.mark.parametrize(("status", "error"), [(301, "redirects are not followed"), (307, "not followed"), (410, "status 410")])
async def test_some_responses_are_final(bench, status, error):
    async with bench.running(Receiver(Response(status, (), b""))):
        await bench.finish()
        event = await bench.events.next()
    assert error in event.error
    assert event.retry_in is None
    assert await bench.states() == {DeliveryState.DEAD: 1}


async def test_a_refusal_of_the_guard_is_retried_because_the_address_may_change(bench):
    async with bench.running(Receiver(OutboundRefused("example.com has an address that is not public"))):
        await bench.finish()
        event = await bench.events.next()
    assert event.retry_in is not None
    assert "not public" in event.error


@pytest.mark.parametrize("table", ["payload", "response_chunk"])
async def test_a_delivery_without_its_result_is_dead(bench, table):
    receiver = Receiver()
    await bench.finish(StoredResponse(200, JSON, b"1]", 1), parts=(b"[",))
    with closing(sqlite3.connect(bench.store.path)) as connection, connection:
        connection.execute(f"DELETE FROM {table}")
    async with bench.running(receiver):
        event = await bench.events.next()
    assert (event.error, event.retry_in) == ("the result is no longer stored", None)
    assert receiver.posts == []


async def test_several_are_sent_at_once_but_not_too_many(bench):
    receiver = Receiver()
    receiver.gate.clear()
    for number in range(7):
        await bench.finish(url=f"https://r{number}.example/")
    async with bench.running(receiver, limit=4):
        for _ in range(3):
            await receiver.arrived.acquire()
        receiver.gate.set()
        for _ in range(7):
            assert isinstance(await bench.events.next(), Delivered)
    assert receiver.max_in_flight == 3, "a fourth is kept for healthy hosts"


async def test_a_slow_receiver_does_not_hold_up_the_others(bench):
    receiver = Receiver()
    receiver.gate.clear()
    async with bench.running(receiver, limit=4):
        await bench.finish(url="https://slow.example/")
        await receiver.arrived.acquire()
        quick = Receiver()
        receiver.post, slow = quick.post, receiver.post
        for _ in range(5):
            await bench.finish()
            assert isinstance(await bench.events.next(), Delivered)
        receiver.post = slow
        assert receiver.in_flight == 1


async def test_it_stops_when_the_running_attempts_have_ended(bench):
    receiver = Receiver()
    receiver.gate.clear()
    engine = bench.engine(receiver, grace=60.0)
    task = asyncio.create_task(engine.run())
    await bench.finish()
    await receiver.arrived.acquire()
    engine.stop()
    engine.stop()
    await bench.finish()
    receiver.gate.set()
    async with asyncio.timeout(10):
        await task
    assert isinstance(await bench.events.next(), Delivered)
    assert await bench.states() == {DeliveryState.DELIVERED: 1, DeliveryState.PENDING: 1}
    engine.stop()


async def test_what_does_not_end_is_left_to_its_lease_and_sent_again(bench):
    receiver = Receiver()
    receiver.gate.clear()
    engine = bench.engine(receiver, grace=0.0)
    task = asyncio.create_task(engine.run())
    await bench.finish()
    await receiver.arrived.acquire()
    engine.stop()
    async with asyncio.timeout(10):
        await task
    assert receiver.in_flight == 0
    assert await bench.states() == {DeliveryState.SENDING: 1}

    await lease_passes(bench.store, bench.clock)
    await bench.store.rescue()
    bench.clock.advance(1)  # its backoff
    async with bench.running(Receiver()):
        event = await bench.events.next()
    assert isinstance(event, Delivered)
    assert event.attempt == 2


async def test_an_attempt_that_is_cancelled_before_its_first_step_gives_its_slot_back(bench):
    receiver, loop = Receiver(), asyncio.get_running_loop()

    class Cancelling:
        """A store whose first claim has its attempts cancelled before their first step."""

        webhooks = property(lambda self: self)
        claimed = None

        def __getattr__(self, name):
            return getattr(bench.store.webhooks, name, None) or getattr(bench.store, name)

        async def claim(self, room):
            claimed = await bench.store.webhooks.claim(room)
            if self.claimed is None:
                loop.call_soon(cancel_tasks, "webhook ")  # before the first step of those that are made of this claim
            self.claimed = claimed
            return claimed

    await bench.finish()
    async with bench.running(receiver, Cancelling(), limit=1):
        await until_claimed(bench)
        await lease_passes(bench.store, bench.clock)
        await bench.store.rescue()
        bench.pass_time(1)  # its backoff
        event = await bench.events.next()
    assert (type(event), event.attempt, len(receiver.posts)) == (Delivered, 2, 1)


async def until_claimed(bench):
    async with asyncio.timeout(10):
        while DeliveryState.SENDING not in await bench.states():
            await asyncio.sleep(0)


async def test_a_stop_before_the_start_ends_it_at_once(bench):
    await bench.finish()
    receiver = Receiver()
    engine = bench.engine(receiver)
    engine.stop()
    async with asyncio.timeout(10):
        await engine.run()
    assert receiver.posts == []


async def test_cancelling_it_cancels_its_attempts(bench):
    receiver = Receiver()
    receiver.gate.clear()
    task = asyncio.create_task(bench.engine(receiver).run())
    await bench.finish()
    await receiver.arrived.acquire()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (task.cancelled(), receiver.in_flight) == (True, 0)


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 0.0)


@pytest.mark.parametrize("verb", ["claim", "next_due", "settle"])
async def test_an_outage_of_the_store_is_survived(bench, no_pause, verb):
    receiver = Receiver()
    await bench.finish()
    async with bench.running(receiver, FailingStore(bench.store, verb, StoreBusy("busy", 1), RuntimeError("odd"))):
        heard = [await bench.events.next() for _ in range(4)]
    assert [type(event) for event in heard] == [ServiceError, ServiceError, Recovered, Delivered]
    assert len(receiver.posts) == 1


async def test_a_stop_ends_the_pause_of_an_outage(bench, monkeypatch):
    monkeypatch.setattr("queue_middleware.background.exponential", lambda number, longest: 3600.0)
    async with bench.running(Receiver(), FailingStore(bench.store, "next_due", RuntimeError("odd"))):
        assert (await bench.events.next()).retry_in == 3600.0


async def test_something_unexpected_costs_an_attempt_and_nothing_else(bench):
    receiver = Receiver(RuntimeError("a mistake of ours"), OK)
    async with bench.running(receiver):
        await bench.finish()
        assert isinstance(await bench.events.next(), ServiceError)
        failed = await bench.events.next()
        assert (failed.error, failed.retry_in is None) == ("not sent: RuntimeError", False)
        bench.pass_time(10)
        assert isinstance(await bench.events.next(), Delivered)


async def test_a_lost_lease_is_not_announced(bench):
    receiver = Receiver()
    receiver.gate.clear()
    async with bench.running(receiver, limit=1):
        await bench.finish()
        await receiver.arrived.acquire()
        await lease_passes(bench.store, bench.clock)
        await bench.store.rescue()
        bench.pass_time(1)  # its backoff
        receiver.gate.set()
        event = await bench.events.next()
    assert event.attempt == 2
    assert bench.events.queue.empty()
    assert await bench.states() == {DeliveryState.DELIVERED: 1}


async def test_large_results_are_signed_outside_the_event_loop(bench, monkeypatch):
    signed_in = []

    class Noting(LongSignature):
        def update_first(self, piece):
            signed_in.append((len(piece), threading.current_thread()))
            super().update_first(piece)

        def update_second(self, piece):
            signed_in.append((len(piece), threading.current_thread()))
            super().update_second(piece)

    monkeypatch.setattr(keys, "LongSignature", Noting)
    async with bench.running(Receiver()):
        await bench.finish(StoredResponse(200, JSON, b'"' + b"x" * 300_000 + b'"'))
        await bench.events.next()
    long = [thread for length, thread in signed_in if length > 1000]
    assert len(long) == 4  # two pieces, twice
    assert threading.main_thread() not in long


# --- hosts


async def test_a_circuit_opens_is_probed_and_closes(bench):
    down = OutboundError("no connection: Connection refused")
    receiver = Receiver(*[down] * FAILURE_THRESHOLD, OK)
    for _ in range(FAILURE_THRESHOLD):
        await bench.finish()
    async with bench.running(receiver):
        failed = [await bench.events.next() for _ in range(FAILURE_THRESHOLD)]
        assert {type(event) for event in failed} == {DeliveryFailed}
        opened = await bench.events.next()
        assert (type(opened), opened.host) == (CircuitOpened, "receiver.example")
        await bench.finish()
        bench.pass_time(4)
        assert len(receiver.posts) == FAILURE_THRESHOLD, "what was submitted meanwhile waits"
        bench.pass_time(opened.probe_in)
        assert [type(await bench.events.next()) for _ in range(2)] == [Delivered, CircuitClosed]
        for _ in range(FAILURE_THRESHOLD):
            assert isinstance(await bench.events.next(), Delivered)
    assert await bench.states() == {DeliveryState.DELIVERED: FAILURE_THRESHOLD + 1}


@pytest.mark.parametrize("answer", [OutboundRefused("not public"), RuntimeError("a mistake of ours")])
async def test_local_errors_do_not_change_the_health_of_a_host(bench, answer):
    async with bench.running(Receiver(answer)):
        for _ in range(FAILURE_THRESHOLD + 1):
            await bench.finish()
            while not isinstance(await bench.events.next(), DeliveryFailed):
                pass
    (found,) = await bench.store.webhooks.receivers([HostHealth.NEW])
    assert found.failures == 0


@pytest.mark.parametrize("lack", [OutboundBusy("too many names"), OutboundShortage("Too many open files")])
async def test_what_we_could_not_send_is_not_charged_and_goes_out_soon(bench, lack):
    receiver = Receiver(*[lack] * (len(SCHEDULE) + 3), OK)
    async with bench.running(receiver):
        await bench.finish()
        for _ in range(len(SCHEDULE) + 3):
            await receiver.arrived.acquire()
            while await bench.states() != {DeliveryState.PENDING: 1}:
                await asyncio.sleep(0.001)
            bench.pass_time(30)
        event = await bench.events.next()
    assert (type(event), event.attempt) == (Delivered, 1)
    (found,) = await bench.store.webhooks.receivers(list(HostHealth))
    assert (found.health, found.failures) == (HostHealth.HEALTHY, 0)


async def test_a_refusal_by_the_text_of_the_url_is_final(bench):
    async with bench.running(Receiver(OutboundRefused("the webhook URL names a host of the local network", is_final=True))):
        await bench.finish()
        event = await bench.events.next()
    assert event.retry_in is None
    assert await bench.states() == {DeliveryState.DEAD: 1}


async def test_a_name_with_a_private_address_is_given_up_within_minutes(bench):
    receiver = Receiver(OutboundRefused("hooks.example has an address that is not public"))
    async with bench.running(receiver, schedule=(5.0, 300.0, 1800.0, 7200.0)):
        await bench.finish()
        waits = []
        for _ in range(MAX_REFUSALS):
            event = await bench.events.next()
            waits.append(event.retry_in)
            bench.pass_time(400)
        assert isinstance(await bench.events.next(), DeliveryDead)
    assert [wait is None for wait in waits] == [False, False, True]


async def test_an_unreachable_host_opens_its_circuit_for_all_flows(bench):
    async with bench.running(Receiver(OutboundUnreached("no connection: Connection refused")), schedule=(0.0,) * 9):
        await bench.finish()
        while not isinstance(event := await bench.events.next(), CircuitOpened):
            bench.pass_time(1)
    assert (event.host, event.submitter) == ("receiver.example", None)


async def test_a_healthy_host_gets_many_attempts_at_once(bench):
    receiver = Receiver()
    async with bench.running(receiver):
        await bench.finish()
        await bench.events.next()
        receiver.gate.clear()
        for _ in range(FLOW_LIMITS[HostHealth.HEALTHY] + 5):
            await bench.finish()
        for _ in range(FLOW_LIMITS[HostHealth.HEALTHY] + 1):
            await receiver.arrived.acquire()
        receiver.gate.set()
        for _ in range(FLOW_LIMITS[HostHealth.HEALTHY] + 5):
            assert isinstance(await bench.events.next(), Delivered)
    assert receiver.max_in_flight == FLOW_LIMITS[HostHealth.HEALTHY]


async def test_a_slot_that_becomes_free_during_a_claim_causes_another(bench):
    """The claim saw the host as busy and gave it nothing, so without another claim its deliveries would wait."""
    receiver, call, gate = Receiver(), asyncio.Event(), asyncio.Event()
    many = FLOW_LIMITS[HostHealth.HEALTHY]

    class Slow:
        """A store whose claims return late."""

        webhooks = property(lambda self: self)

        def __getattr__(self, name):
            return getattr(bench.store.webhooks, name, None) or getattr(bench.store, name)

        async def claim(self, room):
            claimed = await bench.store.webhooks.claim(room)
            if room.busy.get("receiver.example 192.0.2.7") == many:
                call.set()
                await gate.wait()
            return claimed

    async with bench.running(receiver, Slow()):
        await bench.occupy(receiver, many)
        await bench.finish()
        await call.wait()
        receiver.gate.set()
        for _ in range(many):
            assert isinstance(await bench.events.next(), Delivered)
        gate.set()
        assert isinstance(await bench.events.next(), Delivered)


async def test_slots_that_become_free_just_before_a_claim_are_included(bench):
    """All of the host's attempts end while the engine still asks whether anything is due; none is left to wake it later."""
    receiver, call, gate = Receiver(), asyncio.Event(), asyncio.Event()
    many = FLOW_LIMITS[HostHealth.HEALTHY]

    class Slow:
        """A store whose `next_due` is slow."""

        late = False

        def __getattr__(self, name):
            return getattr(bench.store, name)

        async def next_due(self, topic):
            due = await bench.store.next_due(topic)
            if self.late and due is not None and due <= 0:
                call.set()
                await gate.wait()
            return due

    store = Slow()
    async with bench.running(receiver, store):
        await bench.occupy(receiver, many)
        store.late = True
        await bench.finish()
        await call.wait()
        receiver.gate.set()
        for _ in range(many):
            assert isinstance(await bench.events.next(), Delivered)
        gate.set()
        assert isinstance(await bench.events.next(), Delivered)


async def test_hanging_hosts_leave_slots_to_healthy_ones(bench):
    receiver = Receiver()
    async with bench.running(receiver, limit=8):
        await bench.finish()
        await bench.events.next()
        receiver.gate.clear()
        for number in range(20):
            await bench.finish(url=f"https://hangs{number}.example/")
        for _ in range(1 + 6):
            await receiver.arrived.acquire()
        quick = Receiver()
        receiver.post, slow = quick.post, receiver.post
        for _ in range(10):
            await bench.finish()
            assert (await bench.events.next()).host == "receiver.example"
        assert receiver.max_in_flight == 6
        receiver.post = slow


async def test_a_receiver_that_was_down_for_an_hour_gets_everything_in_the_order_of_the_schedule(bench):
    """Submitted over an hour of failing; when the host recovers, the oldest are sent first."""
    receiver = Receiver(OutboundError("no connection: Connection refused"))
    ids = []
    async with bench.running(receiver, schedule=Settings().webhook_schedule) as engine:
        for _ in range(60):
            ids.append(await bench.finish())
            bench.pass_time(60)
            await idle(bench, engine)
        receiver.responses = [OK]
        receiver.posts.clear()
        order = [record.request_id for record in sorted(await records(bench), key=lambda record: (record.due_at, record.id))]
        assert sorted(order) == sorted(ids)
        overdue = [record for record in await records(bench) if record.due_at <= bench.clock.now]
        assert len(overdue) > 40
        while (await bench.states()).get(DeliveryState.PENDING):
            bench.pass_time(30)
            await idle(bench, engine)
    sent = [headers[b"webhook-id"].decode() for _, headers, _ in receiver.posts]
    assert sent == order
    assert await bench.states() == {DeliveryState.DELIVERED: 60}


async def records(bench):
    return await bench.store.webhooks.records(DeliveryFilter(), limit=1000)


async def idle(bench, engine):
    """Wait until nothing that is due can be sent: it is claimed first, then sent, then settled."""
    async with asyncio.timeout(10):
        while (
            await bench.store.next_due(Topic.DELIVERY) == 0.0
            or DeliveryState.SENDING in await bench.states()
            or engine.tokens()
        ):
            await asyncio.sleep(0)
    while not bench.events.queue.empty():
        bench.events.queue.get_nowait()


async def test_deliveries_that_are_given_up_with_their_host_are_announced(bench):
    receiver = Receiver(OutboundError("no connection: Connection refused"))
    schedule = Settings().webhook_schedule
    async with bench.running(receiver, schedule=schedule) as engine:
        for _ in range(FAILURE_THRESHOLD):
            await bench.finish()
        await idle(bench, engine)
        sent = len(receiver.posts)
        late = [await bench.finish() for _ in range(3)]
        bench.pass_time(give_up_after(schedule) + 1)
        dead = []
        while len(dead) < len(late) - 1:
            event = await bench.events.next()
            if isinstance(event, DeliveryDead) and event.request_id in late:
                assert "its host has been failing" in event.error
                dead.append(event.request_id)
    assert set(dead) == set(late[1:])
    assert len(receiver.posts) == sent + 1, "the first of them was tried, and then there was no hope"


# --- news before the end


async def test_events_before_the_end_are_signed_and_have_fals_envelope(bench):
    receiver = Receiver()
    async with bench.running(receiver):
        request_id = await bench.submit(events=tuple(WebhookKind))
        (claim,) = await bench.store.claim(1)
        await bench.events.next()
        await bench.store.log(claim, [], Progress(0.5, "half of it"))
        await bench.events.next()
        await bench.store.complete(claim, StoredResponse(200, JSON, b"[1]"))
        await bench.events.next()
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
        await _verified(bench, headers, body)
        message = b".".join((headers[b"webhook-id"], headers[b"webhook-timestamp"], body))
        VerifyKey(bench.signer.active.public).verify(message, base64.b64decode(headers[b"webhook-signature"].split(b",")[1]))


async def test_a_failed_event_is_not_announced_as_retried_if_there_is_a_newer_one(bench):
    receiver = Receiver(Response(500, (), b""), OK)
    receiver.gate.clear()
    async with bench.running(receiver):
        await bench.submit(events=(WebhookKind.PROGRESS,))
        (claim,) = await bench.store.claim(1)
        await bench.store.log(claim, [], Progress(0.5))
        await receiver.arrived.acquire()
        await bench.store.complete(claim, StoredResponse(200, JSON, b"[1]"))
        receiver.gate.set()
        failed, delivered = await bench.events.next(), await bench.events.next()
    assert (type(failed), failed.kind, failed.retry_in) == (DeliveryFailed, WebhookKind.PROGRESS, None)
    assert (type(delivered), delivered.kind) == (Delivered, WebhookKind.COMPLETED)
    assert bench.events.queue.empty(), "nothing was given up: there is better news"
    assert await bench.states() == {DeliveryState.SUPERSEDED: 1, DeliveryState.DELIVERED: 1}


async def test_a_failed_event_is_retried_if_there_is_no_newer_one(bench):
    async with bench.running(Receiver(Response(500, (), b""))):
        await bench.submit(events=(WebhookKind.PROGRESS,))
        (claim,) = await bench.store.claim(1)
        await bench.store.log(claim, [], Progress(0.5))
        assert (await bench.events.next()).retry_in is not None


# --- how many at once


def test_most_files_are_left_to_the_application(monkeypatch):
    for soft, places in ((20_000, 256), (1024, 256), (256, 64), (2, 1), (module.resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(module.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert module._default_limit() == places
