"""What a long queue costs: status, submission, claim and housekeeping with a hundred and with a million waiting requests."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.apps import BODY
from benchmarks.connection import Connection
from benchmarks.jobs import SUBMIT
from benchmarks.processor_time import processor_time
from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Scenario, Variants
from benchmarks.seeding import new_job, seed, store_of
from benchmarks.servers import Server, queue_server
from queue_middleware.jobs.models import Claim, StoredResponse
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.sqlite import SQLiteStore

SHORT, MEDIUM, LONG = "short queue, 10²", "medium queue, 10⁴", "long queue"
_STATUS = "/fal/queue/requests/{}/status"
_CANCEL = "/fal/queue/requests/{}/cancel"
_RESPONSE = StoredResponse(200, (), b"{}")

T = TypeVar("T")


class _Queue:
    """A queue of a certain length, used by a server, whose only slot is taken, and by two other processes."""

    def __init__(self, ids: list[str], server: Server, connection: Connection, stores: tuple[SQLiteStore, SQLiteStore]) -> None:
        self._ids = ids
        self._gone = 1  # the server runs the first one
        self._server = server
        self._connection = connection
        self._stores = stores

    async def measure(self, count: int, quick: bool) -> Metrics:
        """Microseconds of each operation, and of CPU for it."""
        metrics = {
            **await _cost("status", count, self._of_server, self._status),
            **await _cost("submit", count, self._of_server, self._submit, self._cancel),
            **await _cost("claim", count, time.process_time, self._claim, self._replace),
        }
        if not quick:
            metrics |= await _cost("two processes", count // 4, time.process_time, self._two_processes)
            metrics |= await _cost("housekeeping", count // 4, time.process_time, self._housekeeping)
        return metrics

    def _of_server(self) -> float:
        return processor_time([self._server.pid]).total

    async def _status(self) -> None:
        """Ask for the status of a request anywhere in the queue; each fourth time it is the last one."""
        last = len(self._ids) - 1
        place = random.randrange(self._gone, last) if random.random() < 0.75 else last
        status = await self._connection.request("GET", _STATUS.format(self._ids[place]))
        _expect(status["queue_position"], place - self._gone)

    async def _submit(self) -> str:
        submitted = await self._connection.request("POST", SUBMIT, BODY)
        _expect(submitted["queue_position"], len(self._ids) - self._gone)
        return str(submitted["request_id"])

    async def _cancel(self, request_id: str) -> None:
        """The queue keeps its length."""
        await self._connection.request("PUT", _CANCEL.format(request_id))

    async def _claim(self) -> Claim:
        (claim,) = await self._stores[0].claim(1)
        return claim

    async def _replace(self, claim: Claim) -> None:
        """Complete a job and submit another one: the queue keeps its length."""
        await self._stores[0].complete(claim, _RESPONSE)
        self._gone += 1
        await self._add(self._stores[0])

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


async def _cost(
    name: str,
    count: int,
    processor: Callable[[], float],
    operation: Callable[[], Awaitable[T]],
    after: Callable[[T], Awaitable[None]] | None = None,
) -> Metrics:
    """Median of the time, and mean of the CPU, of an operation. What follows it is not measured."""
    seconds, used = [], 0.0
    for _ in range(count):
        before, began = processor(), time.perf_counter()
        outcome = await operation()
        seconds.append(time.perf_counter() - began)
        used += processor() - before
        if after:
            await after(outcome)
    return {name: statistics.median(seconds) * 1e6, f"{name} cpu": used / count * 1e6}


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
    return _Queue(ids, server, connection, stores)


def _growth(operation: str) -> tuple[Figure, Figure]:
    """Compare the time, and the CPU, which depends less on what else the machine does."""
    key, title, cpu = f"queue-length.{operation}", f"{operation}, long queue ÷ short queue", f"{operation} cpu"
    return Figure(key, title, LONG, operation, (SHORT, operation)), Figure(
        f"{key}-cpu", f"CPU of {title}", LONG, cpu, (SHORT, cpu)
    )


SCENARIO = Scenario(
    name="queue-length",
    title="status, submission and claim against the length of the queue",
    open=_open,
    figures=tuple(figure for operation in ("status", "submit", "claim", "housekeeping") for figure in _growth(operation)),
    columns={
        "status": "status, µs",
        "status cpu": "CPU, µs",
        "submit": "submission, µs",
        "submit cpu": "CPU, µs",
        "claim": "claim, µs",
        "claim cpu": "CPU, µs",
        "two processes": "submit, claim and complete in two processes in turn, µs",
        "housekeeping": "housekeeping, µs",
        "housekeeping cpu": "CPU, µs",
    },
    seconds=300,
    quick=True,
    split=5,
    note=(
        "The long queue has 10⁶ waiting requests (10⁵ with `--quick`), of 250 clients.",
        "Status and submission are made over HTTP, one after the other; the rest is done in process on the same file.",
        "CPU is that of the server for status and submission, and that of the calling process for the rest.",
        "Housekeeping is rescue, expiry, retention and the query for the next due work.",
    ),
)
