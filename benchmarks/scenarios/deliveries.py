"""Webhooks from stored results to recorded attempts, against POSTs of the same bytes by one `httpx.AsyncClient`.

A delivery is a claim, a payload, two signatures, the guard's check, a POST and a record of the attempt that is fsynced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from benchmarks.scenario import Conditions, Figure, Metrics, Scenario, Variants
from benchmarks.sink import sink
from queue_middleware.events import Delivered, Event
from queue_middleware.jobs.models import NewJob, RetryPolicy, StoredRequest, StoredResponse
from queue_middleware.observability.emitter import Emitter
from queue_middleware.outbound.client import HTTPClient
from queue_middleware.outbound.guard import Guard
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.webhooks.body import REQUEST_FORMAT, RequestFormat
from queue_middleware.webhooks.dispatcher import Dispatcher
from queue_middleware.webhooks.message import MessageBuilder
from queue_middleware.webhooks.models import Capacity
from queue_middleware.webhooks.signing.keyring import KeyRing
from queue_middleware.webhooks.signing.keys import KeyPair
from queue_middleware.webhooks.signing.signer import Signer

AT_ONCE = 16
_FILLING = 256
_RESULT = b'{"picture": "' + b"x" * 1010 + b'"}'
_REQUEST = StoredRequest("POST", "", b"/", b"", (), None, None, "http", "1.1", b"{}")
_RESPONSE = StoredResponse(200, ((b"content-type", b"application/json"),), _RESULT)

Message = tuple[list[tuple[bytes, bytes]], bytes]
"""Headers and body."""


class _Countdown:
    """An observer that waits for a number of deliveries."""

    def __init__(self, wanted: int) -> None:
        self._left = wanted
        self.reached = asyncio.Event()

    def on_event(self, event: Event) -> None:
        self._left -= isinstance(event, Delivered)
        if self._left <= 0:
            self.reached.set()


@dataclass(frozen=True)
class _Sender:
    """What both variants send to."""

    store: SQLiteStore
    settings: Settings
    signer: Signer
    url: str

    async def store_results(self, count: int) -> None:
        """Store results whose webhooks are due."""
        job = NewJob(_REQUEST, "", RetryPolicy(1), webhook=self.url)

        async def one() -> None:
            receipt = await self.store.submit(job, start=True)
            assert receipt.claim is not None
            await self.store.complete(receipt.claim, _RESPONSE)

        for start in range(0, count, _FILLING):
            await asyncio.gather(*(one() for _ in range(min(_FILLING, count - start))))

    async def deliver(self, count: int) -> Metrics:
        """Deliveries per second of results that are stored before, and CPU of this process for each."""
        await self.store_results(count)
        countdown = _Countdown(count)
        async with HTTPClient(Guard(self.settings.outbound_allow)) as outbound:
            schedule, emit = self.settings.webhook_schedule, Emitter([countdown])
            dispatcher = Dispatcher(self.store, self.store.webhooks, outbound, self._messages(), schedule, emit)
            began, processor = time.perf_counter(), time.process_time()
            running = asyncio.create_task(dispatcher.run())
            try:
                await countdown.reached.wait()
                seconds, used = time.perf_counter() - began, time.process_time() - processor
            finally:
                dispatcher.stop()
                await running
        return {"per second": count / seconds, "cpu": used / count * 1e6}

    async def message(self) -> Message:
        """What a delivery sends."""
        await self.store_results(1)
        claimed = await self.store.webhooks.claim(Capacity(1, 1))
        (delivery,) = claimed.deliveries
        headers, body = await self._messages().build(delivery, claimed.results[delivery.key])
        await self.store.webhooks.release([delivery])
        assert isinstance(body, bytes)
        return list(headers), body

    async def post(self, message: Message, count: int) -> Metrics:
        """POSTs per second of one shared client, and CPU of this process for each."""
        headers, body = message
        left = count
        async with httpx.AsyncClient(trust_env=False) as client:

            async def poster() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    response = await client.post(self.url, content=body, headers=headers)
                    response.raise_for_status()

            began, processor = time.perf_counter(), time.process_time()
            await asyncio.gather(*(poster() for _ in range(AT_ONCE)))
            seconds, used = time.perf_counter() - began, time.process_time() - processor
        return {"per second": count / seconds, "cpu": used / count * 1e6}

    def _messages(self) -> MessageBuilder:
        formats = {REQUEST_FORMAT: RequestFormat(self.store.response_chunk, self.settings)}
        return MessageBuilder(self.signer, formats, time.time)


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    deliveries, posts = conditions.count(4000, 1000), conditions.count(1000, 300)
    options = {
        "database": conditions.folder / "deliveries.sqlite3",
        "outbound_allow": "127.0.0.1",
        "min_free_disk": 0,
        "max_queued": 10**9,
        "max_queued_per_client": 10**9,
    }
    settings = Settings.load(options, {})
    store = SQLiteStore(settings)
    with sink() as receiver:
        await store.open()
        try:
            sender = _Sender(store, settings, Signer(KeyRing.of(KeyPair.generate())), receiver.url)
            message = await sender.message()
            await sender.deliver(500)
            yield {
                "one httpx.AsyncClient": lambda: sender.post(message, posts),
                "deliveries": lambda: sender.deliver(deliveries),
            }
        finally:
            await store.close()


SCENARIO = Scenario(
    name="deliveries",
    title="signed deliveries, against one httpx client",
    open=_open,
    figures=(
        Figure(
            "deliveries.rate",
            "deliveries ÷ POSTs of one `httpx.AsyncClient`",
            "deliveries",
            "per second",
            ("one httpx.AsyncClient", "per second"),
        ),
        Figure(
            "deliveries.cpu",
            "CPU for a delivery ÷ CPU for a POST of `httpx.AsyncClient`",
            "deliveries",
            "cpu",
            ("one httpx.AsyncClient", "cpu"),
        ),
    ),
    columns={"per second": "per second", "cpu": "CPU, µs"},
    seconds=120,
    quick=True,
    note=(f"Both send a 1 KiB result to one receiver, {AT_ONCE} at once.",),
)
