"""What a long queue costs: status, submission, claim and housekeeping with a hundred and with a million waiting requests."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.apps import BODY
from benchmarks.connection import Connection
from benchmarks.jobs import SUBMIT
from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Scenario, Variants
from benchmarks.seeding import new_job, seed, store_of
from benchmarks.servers import queue_server
from queue_middleware.jobs.models import StoredResponse
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.sqlite import SQLiteStore

SHORT, MEDIUM, LONG = "short queue, 10²", "medium queue, 10⁴", "long queue"
_STATUS = "/fal/queue/requests/{}/status"
_CANCEL = "/fal/queue/requests/{}/cancel"
_RESPONSE = StoredResponse(200, (), b"{}")


class _Queue:
    """A queue of a certain length, used by a server, whose only slot is taken, and by two other processes."""

    def __init__(self, ids: list[str], connection: Connection, stores: tuple[SQLiteStore, SQLiteStore]) -> None:
        self._ids = ids
        self._gone = 1  # the server runs the first one
        self._connection = connection
        self._stores = stores

    async def measure(self, count: int, quick: bool) -> Metrics:
        """Microseconds of each operation, medians."""
        metrics = {
            "status": await _median(self._status, count),
            "submit": await self._submit(count),
            "claim": await self._claim(count),
        }
        if not quick:
            metrics["two processes"] = await _median(self._two_processes, count // 4)
            metrics["housekeeping"] = await _median(self._housekeeping, count // 4)
        return metrics

    async def _status(self) -> None:
        """Of a request anywhere in the queue; each fourth time of the last one."""
        last = len(self._ids) - 1
        place = random.randrange(self._gone, last) if random.random() < 0.75 else last
        status = await self._connection.request("GET", _STATUS.format(self._ids[place]))
        _expect(status["queue_position"], place - self._gone)

    async def _submit(self, count: int) -> float:
        """Of submissions, each cancelled afterwards: the queue keeps its length."""
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            submitted = await self._connection.request("POST", SUBMIT, BODY)
            seconds.append(time.perf_counter() - began)
            _expect(submitted["queue_position"], len(self._ids) - self._gone)
            await self._connection.request("PUT", _CANCEL.format(submitted["request_id"]))
        return statistics.median(seconds) * 1e6

    async def _claim(self, count: int) -> float:
        """Of claims by another process, each completed and replaced: the queue keeps its length."""
        store, seconds = self._stores[0], []
        for _ in range(count):
            began = time.perf_counter()
            (claim,) = await store.claim(1)
            seconds.append(time.perf_counter() - began)
            await store.complete(claim, _RESPONSE)
            self._gone += 1
            await self._add(store)
        return statistics.median(seconds) * 1e6

    async def _two_processes(self) -> None:
        """Submit, claim and complete in two processes in turn: what each has counted is out of date."""
        for store in self._stores:
            await self._add(store)
            (claim,) = await store.claim(1)
            await store.complete(claim, _RESPONSE)
            self._gone += 1

    async def _housekeeping(self) -> None:
        store = self._stores[0]
        await store.rescue()
        await store.expire()
        await store.prune(500)
        await store.next_due(Topic.WORK)
        await store.next_due(Topic.DELIVERY)

    async def _add(self, store: SQLiteStore) -> None:
        self._ids.append((await store.submit(new_job())).request_id)


async def _median(operation: Callable[[], Awaitable[None]], count: int) -> float:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        await operation()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1e6


def _expect(position: int, expected: int) -> None:
    if position != expected:
        raise RuntimeError(f"the position is {position}, and should be {expected}")


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    lengths = {SHORT: 100, MEDIUM: 10_000, LONG: conditions.count(1_000_000, 100_000)}
    if conditions.quick:
        del lengths[MEDIUM]
    count = conditions.count(60, 20)
    variants: dict[str, Measure] = {}
    async with AsyncExitStack() as stack:
        for name, length in lengths.items():
            queue = await _start(stack, conditions.folder / f"{length}-waiting.sqlite3", length)
            await queue.measure(count, conditions.quick)
            variants[name] = partial(queue.measure, count, conditions.quick)
        yield variants


async def _start(stack: AsyncExitStack, database: Path, length: int) -> _Queue:
    ids = await seed(database, length)
    server = stack.enter_context(queue_server(database, "benchmarks.apps:blocked", concurrency=1))
    connection = await stack.enter_async_context(Connection.open(server.port))
    stores = store_of(database), store_of(database)
    for store in stores:
        await store.open()
        stack.push_async_callback(store.close)
    return _Queue(ids, connection, stores)


def _growth(operation: str) -> Figure:
    return Figure(f"queue-length.{operation}", f"{operation}, long queue ÷ short queue", LONG, operation, (SHORT, operation))


SCENARIO = Scenario(
    name="queue-length",
    title="status, submission and claim against the length of the queue",
    open=_open,
    figures=(_growth("status"), _growth("submit"), _growth("claim"), _growth("housekeeping")),
    columns={
        "status": "status, µs",
        "submit": "submission, µs",
        "claim": "claim, µs",
        "two processes": "submit, claim and complete in two processes in turn, µs",
        "housekeeping": "housekeeping, µs",
    },
    seconds=300,
    quick=True,
    split=5,
    note=(
        "The long queue has 10⁶ waiting requests (10⁵ with `--quick`), of 250 clients.",
        "Status and submission are made over HTTP, one after the other; the rest is done in process on the same file.",
        "Housekeeping is rescue, expiry, retention and the query for the next due work.",
    ),
)
