"""What an operator's list costs: one page of each kind, with a hundred thousand stored requests."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Scenario, Variants
from benchmarks.seeding import add_routes, seed, store_of
from queue_middleware.jobs.job_list import JobFilter
from queue_middleware.jobs.models import ErrorType, JobState
from queue_middleware.stores.sqlite import SQLiteStore

_LISTS: Mapping[str, JobFilter] = {
    "all": JobFilter(),
    "failed": JobFilter(failed_only=True),
    "failed of a route": JobFilter(failed_only=True, route="/route-3"),
    "queued of a client": JobFilter(frozenset({JobState.QUEUED}), client="192.0.2.7"),
    "a route": JobFilter(route="/route-3"),
    "an error": JobFilter(error_type=ErrorType.REQUEST_TIMEOUT),
    "a status that no request has": JobFilter(statuses=frozenset({418})),
    "a client without requests": JobFilter(client="id:nobody"),
}
_ENDED = "finished_at = id >> 15, started_at = id >> 15"
_SPREAD = (
    "state = 'delayed', attempt = 1, due_at = 1 << 50 WHERE number BETWEEN 5 AND 7",
    f"state = 'cancelled', {_ENDED}, error_type = 'client_cancelled', error = '' WHERE number BETWEEN 8 AND 9",
    f"state = 'failed', {_ENDED}, error_type = 'request_timeout', error = '' WHERE number BETWEEN 10 AND 14",
    f"state = 'completed', {_ENDED}, status = iif(number < 20, 500, 200) WHERE number >= 15",
)
"""Of 100 requests 5 stay queued, 3 are delayed, 2 were cancelled, 5 failed, and 5 of the others responded with 500."""
_ROUTES = 5


async def _measure(store: SQLiteStore, wanted: JobFilter, count: int) -> Metrics:
    """Milliseconds of the first page of 50 requests, and of the CPU for it."""
    seconds, used = [], time.process_time()
    for _ in range(count):
        began = time.perf_counter()
        await store.page(wanted, None, 50)
        seconds.append(time.perf_counter() - began)
    return {"page": statistics.median(seconds) * 1e3, "page cpu": (time.process_time() - used) / count * 1e3}


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    database = conditions.folder / "lists.sqlite3"
    await seed(database, 100_000)
    _spread(database)
    store = store_of(database)
    await store.open()
    try:
        variants: dict[str, Measure] = {}
        for name, wanted in _LISTS.items():
            await _measure(store, wanted, 1)
            variants[name] = partial(_measure, store, wanted, conditions.count(20, 5))
        yield variants
    finally:
        await store.close()


def _spread(database: Path) -> None:
    """Give the queued jobs states and routes, by their milliseconds."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        add_routes(connection, _ROUTES)
        for change in _SPREAD:
            change = change.replace("number", "(id >> 15) % 100")
            connection.execute(f"UPDATE job SET route = 1 + abs(random()) % {_ROUTES}, {change}")


SCENARIO = Scenario(
    name="lists",
    title="pages of an operator's lists with 100,000 stored requests",
    open=_open,
    figures=tuple(
        Figure(f"lists.{name.replace(' ', '-')}", f"CPU of the first page, {name}", name, "page cpu", unit="ms")
        for name in _LISTS
    ),
    columns={"page": "first page of 50, ms", "page cpu": "CPU, ms"},
    seconds=60,
    note=("The requests have all states, five routes and 250 clients. The pages are read in process.",),
)
