"""What metrics cost: counting one request, and one response of `/metrics` with long queues."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Scenario, Variants
from benchmarks.seeding import add_routes, new_job, seed, store_of
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.jobs.models import Claim, StoredResponse
from queue_middleware.observability.metrics.exposition import expose
from queue_middleware.observability.metrics.meter import Meter
from queue_middleware.stores.sqlite import SQLiteStore

DICTIONARY, COUNTING, MEDIUM, LONG = "a dictionary", "counting", "30,000 waiting requests", "100,000 waiting requests"
_ROUTES = 20
_PER_SECOND = 1000
"""Requests between two `take`: a busy queue stores what was counted once a second."""
_STATUSES = (200, 200, 200, 404, 500)
_SPREAD = f"""
UPDATE job SET route = 1 + (id >> {SEQUENCE_BITS}) % {_ROUTES};
UPDATE job SET state = 'delayed', attempt = 1, due_at = 1 << 50 WHERE (id >> {SEQUENCE_BITS}) % 3 = 0;
"""


def _requests() -> list[tuple[Claim, StoredResponse]]:
    """What a busy queue does in one second: claims of requests that were just submitted, and their responses."""
    new, key = new_job(), time.time_ns() // 1_000_000 << SEQUENCE_BITS
    return [
        (
            Claim(key + number, "", 1, 1, new.retry, new.request, None, route=f"/route-{1 + number % _ROUTES}"),
            StoredResponse(_STATUSES[number // _ROUTES % len(_STATUSES)], (), b"{}"),
        )
        for number in range(_PER_SECOND)
    ]


def _count_all(meter: Meter, requests: Sequence[tuple[Claim, StoredResponse]]) -> None:
    """Count as a queue does: what was submitted, started and ended."""
    for claim, response in requests:
        meter.submitted(claim.route)
        meter.started(claim)
        meter.attempt_ended(claim, response, None, 0.02)


async def _measure_counting(requests: Sequence[tuple[Claim, StoredResponse]], seconds: int) -> Metrics:
    """Microseconds of CPU for one request, with its share of what is done once a second."""
    meter, began = Meter(), time.thread_time()
    for _ in range(seconds):
        _count_all(meter, requests)
        meter.take()
    return {"counting cpu": (time.thread_time() - began) / (seconds * len(requests)) * 1e6}


async def _measure_dictionary(requests: Sequence[tuple[Claim, StoredResponse]], seconds: int) -> Metrics:
    """Microseconds of CPU for the least that counting three things about a request can take."""
    counts, began = dict.fromkeys((claim.route for claim, _ in requests), 0), time.thread_time()
    for _ in range(seconds):
        for claim, _response in requests:
            counts[claim.route] += 1
            counts[claim.route] += 1
            counts[claim.route] += 1
    return {"counting cpu": (time.thread_time() - began) / (seconds * len(requests)) * 1e6}


async def _measure_scrape(store: SQLiteStore, count: int) -> Metrics:
    """Milliseconds of CPU for one response, and for the part of it that reads the database."""
    used = reading = 0.0
    for _ in range(count):
        began = time.process_time()
        numbers = await store.metrics.read()
        reading += time.process_time() - began
        expose(numbers, "text/plain")
        used += time.process_time() - began
    return {"scrape cpu": used / count * 1e3, "read cpu": reading / count * 1e3}


async def _filled(database: Path, count: int, requests: Sequence[tuple[Claim, StoredResponse]]) -> SQLiteStore:
    """A store with so many waiting requests, a third of them delayed, and with numbers of all routes."""
    await seed(database, count)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        add_routes(connection, _ROUTES)
        connection.executescript(_SPREAD)
    store, meter = store_of(database), Meter()
    await store.open()
    store.metrics.attach(meter)
    _count_all(meter, requests)
    await store.metrics.close()
    return store


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    requests = _requests()
    seconds = conditions.count(50, 20)
    variants: dict[str, Measure] = {
        DICTIONARY: partial(_measure_dictionary, requests, seconds),
        COUNTING: partial(_measure_counting, requests, seconds),
    }
    stores: list[SQLiteStore] = []
    try:
        for name, length in ((MEDIUM, 30_000), (LONG, 100_000)):
            stores.append(store := await _filled(conditions.folder / f"metrics-{length}.sqlite3", length, requests))
            await _measure_scrape(store, 1)
            variants[name] = partial(_measure_scrape, store, conditions.count(20, 5))
        yield variants
    finally:
        for store in stores:
            await store.close()


SCENARIO = Scenario(
    name="metrics",
    title="metrics: counting, and responses of /metrics",
    open=_open,
    figures=(
        Figure("metrics.counting", "CPU to count one request", COUNTING, "counting cpu", unit="µs"),
        Figure(
            "metrics.ratio",
            "CPU to count one request ÷ three increments in a dictionary",
            COUNTING,
            "counting cpu",
            (DICTIONARY, "counting cpu"),
        ),
        Figure("metrics.scrape", "CPU of a response of /metrics, 100,000 waiting requests", LONG, "scrape cpu", unit="ms"),
        Figure(
            "metrics.growth",
            "CPU of a response of /metrics, 100,000 ÷ 30,000 waiting requests",
            LONG,
            "scrape cpu",
            (MEDIUM, "scrape cpu"),
        ),
    ),
    columns={
        "counting cpu": "CPU to count one request, µs",
        "scrape cpu": "CPU of a response, ms",
        "read cpu": "of which the database, ms",
    },
    seconds=60,
    quick=True,
    note=(
        f"Everything is measured in process. The requests have {_ROUTES} routes, and a third of those that wait are delayed.",
        f"Counting includes the sums of {_PER_SECOND:,} requests, which a busy queue stores once a second.",
    ),
)
