"""A thousand receivers, many of which fail; a thousand deliveries, during which the process is killed."""

from __future__ import annotations

import asyncio
import base64
import gc
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import httpx
import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from queue_middleware.events import CircuitOpened, Event
from queue_middleware.observability.emitter import Emitter
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.guard import Guard
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.verify import WebhookVerifier
from queue_middleware.webhooks.body import REQUEST_FORMAT, RequestFormat
from queue_middleware.webhooks.dispatcher import Dispatcher
from queue_middleware.webhooks.message import MessageBuilder
from queue_middleware.webhooks.models import ReceiverHealth
from queue_middleware.webhooks.signing.keyring import KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair
from queue_middleware.webhooks.signing.signer import Signer
from tests.support.factories import make_job, make_response
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import Receiver, Webhook, receiving

from .load import count_rows
from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow

EACH = 3
"""Webhooks for each receiver."""
GOOD = [f"good{number}.test" for number in range(700)]
BAD = [f"{kind}{number}.test" for kind in ("hangs", "refuses", "fails") for number in range(100)]
PATIENCE = 60.0


class Receivers:
    """All receivers on one port, distinguished by the name in `Host`; those that refuse are on a port without a listener."""

    def __init__(self) -> None:
        self.arrived: list[float] = []
        self.all_are_here = asyncio.Event()
        self.port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Receivers]:
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        with socket.socket() as closed_port:
            closed_port.bind(("127.0.0.1", 0))
            self.closed_port = closed_port.getsockname()[1]
            yield self
        server.close()

    def url(self, host: str) -> str:
        return f"http://{host}:{self.closed_port if host.startswith('refuses') else self.port}/hook"

    def expect(self, count: int) -> None:
        self.missing = count
        self.arrived.clear()
        self.all_are_here.clear()

    def respond(self, host: bytes) -> bytes | None:
        if host.startswith(b"hangs"):
            return None
        if host.startswith(b"fails"):
            return b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"
        self.arrived.append(time.perf_counter())
        if len(self.arrived) == self.missing:
            self.all_are_here.set()
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        self._read = b""
        response = self._receivers.respond(head.split(b"host: ")[1])
        if response is not None:
            self._transport.write(response)  # type: ignore[attr-defined]


class CircuitCounter:
    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()

    def on_event(self, event: Event) -> None:
        if isinstance(event, CircuitOpened):
            self.opened[event.host.rstrip("0123456789:").removesuffix(".test").rstrip("0123456789")] += 1


async def fill(store: SQLiteStore, receivers: Receivers, hosts: list[str]) -> None:
    """Store results whose webhooks are due, for good and bad receivers mixed."""

    async def one(host: str) -> None:
        receipt = await store.submit(make_job(webhook=receivers.url(host)), start=True)
        assert receipt.claim
        await store.complete(receipt.claim, make_response(b'"' + b"x" * 8192 + b'"'))

    mixed = sorted(hosts * EACH, key=lambda host: host[::-1])
    for start in range(0, len(mixed), 256):
        await asyncio.gather(*(one(host) for host in mixed[start : start + 256]))


async def p99(folder: Path, receivers: Receivers, hosts: list[str], counter: CircuitCounter | None = None) -> float:
    """Seconds from the start until 99 of 100 webhooks for good receivers have arrived; all of them must arrive."""
    settings = Settings(
        database=str(folder / "queue.sqlite3"), min_free_disk=0, webhook_timeout=5.0, max_queued_per_client=10**6
    )
    store = SQLiteStore(settings)
    await store.open()
    try:
        await fill(store, receivers, hosts)
        receivers.expect(len(GOOD) * EACH)

        async def resolve(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        async with HTTPClient(Guard(["*.test"]), settings.webhook_timeout, resolver=resolve) as outbound:
            signer = Signer(KeyRing.of(KeyPair.generate()))
            messages = MessageBuilder(signer, {REQUEST_FORMAT: RequestFormat(store.response_chunk, settings)}, time.time)
            emit = Emitter([counter] if counter else [])
            engine = Dispatcher(store, store.webhooks, outbound, messages, settings.webhook_schedule, emit, grace=0.0)
            gc.collect()
            began = time.perf_counter()
            task = asyncio.create_task(engine.run())
            async with asyncio.timeout(PATIENCE):
                await receivers.all_are_here.wait()
            times = sorted(arrived - began for arrived in receivers.arrived)
            if counter is not None:
                # By then the circuits of the others are open: each is attempted one delivery at a time.
                await eventually(lambda: sum(counter.opened.values()) >= 1, PATIENCE)
                assert len(await store.webhooks.receivers([ReceiverHealth.HEALTHY])) == len(GOOD)
            engine.stop()
            await task
    finally:
        await store.close()
    return times[int(0.99 * len(times))]


@contextmanager
def little_memory(most: int) -> Iterator[None]:
    """The memory of the process grows by at most this many bytes."""
    status = Path("/proc/self/statm")
    before = int(status.read_text().split()[1]) * 4096 if status.exists() else 0
    yield
    after = int(status.read_text().split()[1]) * 4096 if status.exists() else 0
    assert after - before < most, f"grown by {(after - before) / 2**20:.0f} MiB"


async def test_bad_receivers_delay_no_others(tmp_path: Path) -> None:
    """Of 1,000 receivers, 100 hang, 100 refuse and 100 respond with 500; the other 700 are hardly affected."""
    ratios = []
    async with Receivers().open() as receivers:
        for number in range(2):
            for name in ("alone", "mixed"):
                (tmp_path / f"{name}{number}").mkdir()
            alone = await p99(tmp_path / f"alone{number}", receivers, GOOD)
            with little_memory(64 * 2**20):
                mixed = await p99(tmp_path / f"mixed{number}", receivers, [*GOOD, *BAD], CircuitCounter())
            ratios.append(mixed / alone)
    assert min(ratios) <= 2.0, ratios


async def submit(server: Server, receiver: Receiver, count: int) -> set[str]:
    """Submit this many requests with a webhook; returns their ids."""
    acknowledged: set[str] = set()

    async def submit_some(client: httpx.AsyncClient, numbers: range) -> None:
        for number in numbers:
            response = await client.post(f"/fal/queue/submit/square?fal_webhook={receiver.url}/hook", json={"n": number})
            acknowledged.add(response.raise_for_status().json()["request_id"])

    async with server.client() as client, anyio.create_task_group() as tasks:
        for first in range(8):
            tasks.start_soon(submit_some, client, range(first, count, 8))
    return acknowledged


async def claim_ahead(server: Server, permits: asyncio.Semaphore) -> None:
    """Let the receiver respond to some webhooks, and hold the others, until more are claimed than have a slot.

    They are claimed ahead only after a quick response, which on a busy machine is not every one.
    """
    for _ in range(8):
        for _ in range(32):
            permits.release()
        with suppress(TimeoutError):
            return await eventually(lambda: count_rows(server.database, "delivery WHERE state = 'sending'") > 32, 2.0)
    raise AssertionError("nothing is claimed ahead")


async def test_a_regular_shutdown_hands_back_what_was_claimed_ahead(tmp_path: Path) -> None:
    """What waits for a slot is neither sent before the end of the process, nor charged, nor sent twice."""
    count = 400
    async with receiving() as receiver, serving(uvicorn(), tmp_path, concurrency=64) as server:
        receiver.permits = permits = asyncio.Semaphore(0)
        acknowledged = await submit(server, receiver, count)
        await claim_ahead(server, permits)
        receiver.permits = None
        for _ in range(count):  # those in flight
            permits.release()
        assert await server.stop() in (0, -signal.SIGTERM)
        assert len(receiver.arrived) < count, "the process has to be stopped in the middle"
        assert count_rows(server.database, "delivery WHERE state = 'sending'") == 0
        await server.start()
        await eventually(lambda: receiver.arrived.keys() >= acknowledged, PATIENCE)
        await eventually(lambda: count_rows(server.database, "delivery WHERE state <> 'delivered'") == 0, PATIENCE)
        assert {len(webhooks) for webhooks in receiver.arrived.values()} == {1}
        assert count_rows(server.database, "delivery WHERE attempt <> 1") == 0


async def test_a_kill_in_the_middle_of_a_thousand_deliveries_loses_none(tmp_path: Path) -> None:
    count = 1000
    async with receiving(pause=0.05) as receiver, serving(uvicorn(), tmp_path, concurrency=64) as server:
        acknowledged = await submit(server, receiver, count)
        assert len(acknowledged) == count
        await eventually(lambda: count_rows(server.database, "job WHERE finished_at IS NULL") == 0)
        before = len(receiver.arrived)
        assert before < count, "the process has to be killed in the middle"
        await server.kill_all()
        sending = count_rows(server.database, "delivery WHERE state = 'sending'")
        assert sending > 0
        await server.start()
        await eventually(lambda: receiver.arrived.keys() >= acknowledged, PATIENCE)
        await eventually(lambda: count_rows(server.database, "delivery WHERE state <> 'delivered'") == 0, PATIENCE)
        assert count_rows(server.database, "delivery") == count

        jwks = f"{server.url}/fal/queue/.well-known/jwks.json"
        async with httpx.AsyncClient(trust_env=False) as client:
            keys = (await client.get(jwks)).json()["keys"]
        verifier = WebhookVerifier(jwks)
        for request_id, webhooks in receiver.arrived.items():
            for webhook in webhooks:
                assert (await verifier.verify(webhook.headers, webhook.body)).request_id == request_id
                assert any(_is_signed(key["x"], webhook) for key in keys)
        twice = sum(len(webhooks) > 1 for webhooks in receiver.arrived.values())
        assert twice <= sending, "only deliveries in flight are sent again"


def _is_signed(x: str, webhook: Webhook) -> bool:
    """Whether the webhook is signed by this key, as Standard Webhooks specifies."""
    key = VerifyKey(base64.urlsafe_b64decode(x + "=" * (-len(x) % 4)))
    signed = f"{webhook.headers['webhook-id']}.{webhook.headers['webhook-timestamp']}.".encode() + webhook.body
    for word in webhook.headers["webhook-signature"].split():
        with suppress(BadSignatureError):
            key.verify(signed, base64.b64decode(word.removeprefix("v1a,")))
            return True
    return False
