"""Throughput of webhook deliveries: `python -m benchmarks.deliveries`. Compare ratios of one run, not absolute figures.

Deliveries per second, end to end: from stored results through claim, payload, two signatures, guard and POST to attempts
that are recorded and fsynced. The comparison is a bare `httpx.AsyncClient` that posts the same bytes, 16 at once, to the same
receiver. The bound is 2.5 times as many.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvloop

from queue_middleware.events import Delivered, Event
from queue_middleware.jobs.models import NewJob, RetryPolicy, StoredRequest, StoredResponse
from queue_middleware.observability.emitter import make_emitter
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

from .sink import sink

LEAST_RATIO = 2.5
AT_ONCE = 16
_FILLING = 256
RESULT = b'{"picture": "' + b"x" * 1010 + b'"}'
REQUEST = StoredRequest("POST", "", b"/", b"", (), None, None, "http", "1.1", b"{}")
ANSWER = StoredResponse(200, ((b"content-type", b"application/json"),), RESULT)


class Goal:
    """An observer that waits for a number of deliveries."""

    def __init__(self, wanted: int) -> None:
        self._missing = wanted
        self.reached = asyncio.Event()

    def on_event(self, event: Event) -> None:
        self._missing -= isinstance(event, Delivered)
        if self._missing <= 0:
            self.reached.set()


async def fill(store: SQLiteStore, url: str, count: int) -> None:
    """Store this many results whose webhooks are due."""
    job = NewJob(REQUEST, "", RetryPolicy(1), webhook=url)

    async def one() -> None:
        receipt = await store.submit(job, start=True)
        assert receipt.claim is not None
        await store.complete(receipt.claim, ANSWER)

    for start in range(0, count, _FILLING):
        await asyncio.gather(*(one() for _ in range(min(_FILLING, count - start))))


def builder(store: SQLiteStore, settings: Settings, signer: Signer) -> MessageBuilder:
    return MessageBuilder(signer, {REQUEST_FORMAT: RequestFormat(store.response_chunk, settings)}, time.time)


async def engine(store: SQLiteStore, settings: Settings, signer: Signer, count: int) -> float:
    """Deliveries per second of due webhooks."""
    goal = Goal(count)
    async with HTTPClient(Guard(settings.outbound_allow)) as outbound:
        messages = builder(store, settings, signer)
        sender = Dispatcher(store, store.webhooks, outbound, messages, settings.webhook_schedule, make_emitter([goal]))
        began = time.perf_counter()
        running = asyncio.create_task(sender.run())
        async with asyncio.timeout(300):
            await goal.reached.wait()
        seconds = time.perf_counter() - began
        sender.stop()
        await running
    return count / seconds


async def bare(url: str, headers: list[tuple[bytes, bytes]], body: bytes, count: int) -> float:
    """POSTs per second of one shared client."""
    left = count
    async with httpx.AsyncClient(trust_env=False) as client:

        async def poster() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                answer = await client.post(url, content=body, headers=headers)
                answer.raise_for_status()

        began = time.perf_counter()
        await asyncio.gather(*(poster() for _ in range(AT_ONCE)))
        return count / (time.perf_counter() - began)


async def build_message(store: SQLiteStore, settings: Settings, signer: Signer) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers and body that the dispatcher would send."""
    claimed = await store.webhooks.claim(Capacity(1, 1))
    (delivery,) = claimed.deliveries
    headers, body = await builder(store, settings, signer).build(delivery, claimed.results[delivery.key])
    await store.webhooks.release([delivery.token])
    assert isinstance(body, bytes)
    return list(headers), body


async def compare(rounds: int, count: int, posts: int) -> bool:
    """Run both in turn and print the ratio of each pair. Returns whether the median keeps the bound."""
    signer = Signer(KeyRing.of(KeyPair.generate()))
    ratios = []
    with tempfile.TemporaryDirectory() as folder, sink() as port:
        url = f"http://127.0.0.1:{port}/hook"
        settings = Settings.load(
            {
                "database": Path(folder) / "queue.sqlite3", "outbound_allow": "127.0.0.1", "min_free_disk": 0,
                "max_queued": 10**9, "max_queued_per_client": 10**9,
            },
            {},
        )  # fmt: skip
        store = SQLiteStore(settings)
        await store.open()
        try:
            await fill(store, url, 500)
            await engine(store, settings, signer, 500)
            for number in range(1, rounds + 1):
                await fill(store, url, count)
                headers, body = await build_message(store, settings, signer)
                posted = await bare(url, headers, body, posts)
                delivered = await engine(store, settings, signer, count)
                ratios.append(delivered / posted)
                print(f"  {number}: bare httpx {posted:7,.0f}/s   deliveries {delivered:7,.0f}/s   ratio {ratios[-1]:.2f}")
        finally:
            await store.close()
    median = statistics.median(ratios)
    print(f"  ratio: median {median:.2f}, best {max(ratios):.2f}   (bound {LEAST_RATIO})")
    return median >= LEAST_RATIO


def main() -> None:
    """Run the benchmark; exit status 1 if the bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=4000, help="deliveries a round")
    parser.add_argument("--posts", type=int, default=1000, help="POSTs of the bare client a round")
    arguments = parser.parse_args()
    print(f"signed deliveries of a 1 KiB result, against one httpx client, {AT_ONCE} at once:")
    sys.exit(0 if uvloop.run(compare(arguments.rounds, arguments.count, arguments.posts)) else 1)


if __name__ == "__main__":
    main()
