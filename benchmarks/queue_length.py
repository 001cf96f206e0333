"""The cost of a long queue: `python -m benchmarks.queue_length`. Compare ratios of one run, not absolute figures.

The ratios are those of 100,000 queued requests to 100.

1. Status and submission over HTTP, one after the other on one connection, for requests at all positions. The bound is 1.5.
2. Periodic work of the processes, in one process on the same files, with the same bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from queue_middleware import QueueMiddleware, Settings
from queue_middleware.jobs.models import NewJob, RetryPolicy, StoredRequest, StoredResponse
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.sqlite import SQLiteStore

from .servers import uvicorn

MOST = 1.5
OPTIONS: dict[str, Any] = {"max_queued": 10**9, "max_queued_per_client": 10**9, "min_free_disk": 0}
BODY = b'{"prompt": "' + b"x" * 1010 + b'"}'


async def forever(scope: Any, receive: Any, send: Any) -> None:
    """Never responds, so that the other requests stay queued."""
    if scope["type"] == "http":
        await asyncio.Event().wait()


def queued() -> QueueMiddleware:
    """The same application with a queue of one slot."""
    return QueueMiddleware(forever, concurrency=1, shutdown_timeout=0, **OPTIONS)


def new_job(client: str) -> NewJob:
    """A job of one of many clients."""
    headers = ((b"host", b"127.0.0.1"), (b"content-type", b"application/json"))
    request = StoredRequest("POST", "", b"/x", b"", headers, (client, 1), ("127.0.0.1", 80), "http", "1.1", BODY)
    return NewJob(request, client, RetryPolicy(3))


def store_of(database: Path) -> SQLiteStore:
    """A separate process, as far as the file knows."""
    return SQLiteStore(Settings.load({"database": str(database), **OPTIONS}, {}))


async def fill(database: Path, count: int) -> list[str]:
    """Submit this many jobs; returns their ids, the first in the queue first."""
    store = store_of(database)
    await store.open()
    ids: list[str] = []
    for start in range(0, count, 250):
        jobs = [new_job(f"192.0.2.{number % 250}") for number in range(start, min(start + 250, count))]
        ids += [receipt.request_id for receipt in await asyncio.gather(*[store.submit(job) for job in jobs])]
    await store.close()
    return ids


# --- over HTTP


class Connection:
    """One connection on which requests follow each other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[float, dict[str, Any]]:
        """The seconds of a request, and the JSON of its response."""
        head = f"{method} /fal/queue{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.perf_counter()
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        content = await self._reader.readexactly(length)
        return time.perf_counter() - began, json.loads(content)


async def ask_status(connection: Connection, ids: list[str], count: int) -> list[float]:
    """The status of requests at all positions of the queue."""
    seconds = []
    for number in range(count):
        place = random.randrange(1, len(ids)) if number % 4 else len(ids) - 1
        took, told = await connection.ask("GET", f"/requests/{ids[place]}/status")
        if told["queue_position"] != place - 1:  # the first one runs
            raise RuntimeError(f"the position is {told['queue_position']}, and should be {place - 1}")
        seconds.append(took)
    return seconds


async def submit(connection: Connection, ids: list[str], count: int) -> list[float]:
    """Submissions, each of which is cancelled again, so that the length of the queue stays the same."""
    seconds = []
    for _ in range(count):
        took, told = await connection.ask("POST", "/submit/x", BODY)
        if told["queue_position"] != len(ids) - 1:
            raise RuntimeError(f"the position is {told['queue_position']}, and should be {len(ids) - 1}")
        seconds.append(took)
        await connection.ask("PUT", f"/requests/{told['request_id']}/cancel")
    return seconds


async def over_http(files: dict[int, tuple[Path, list[str]]], rounds: int, count: int) -> bool:
    """Run both servers in turn. Returns whether the medians of both kinds of request keep the bound."""
    kept = True
    async with AsyncExitStack() as stack:
        connections: dict[int, Connection] = {}
        for length, (database, _) in files.items():
            environ = {"QUEUE_DATABASE": str(database)}
            port = stack.enter_context(uvicorn("benchmarks.queue_length:queued", environ, "--factory"))
            connections[length] = Connection(*await asyncio.open_connection("127.0.0.1", port))
        for name, verb in (("status", ask_status), ("submit", submit)):
            took: dict[int, list[float]] = {length: [] for length in files}
            for _ in range(rounds):
                for length, (_, ids) in files.items():
                    took[length] += await verb(connections[length], ids, count)
            kept &= judge(name, took)
    return kept


def judge(name: str, took: dict[int, list[float]]) -> bool:
    """Print the medians and their ratio. Returns whether the ratio keeps the bound."""
    few, many = (statistics.median(took[length]) for length in sorted(took))
    tail_of_few, tail_of_many = (statistics.quantiles(took[length], n=20)[-1] for length in sorted(took))
    p50 = f"{few * 1e6:6.0f} → {many * 1e6:6.0f} us, ratio {many / few:.2f}"
    p95 = f"p95 {tail_of_few * 1e6:6.0f} → {tail_of_many * 1e6:6.0f} us, ratio {tail_of_many / tail_of_few:.2f}"
    print(f"  {name:28} {p50}   ({p95})")
    return many / few <= MOST


# --- in process


async def run_one(store: SQLiteStore) -> None:
    """Submit a job; claim and complete the first one."""
    await store.submit(new_job("192.0.2.1"))
    (claim,) = await store.claim(1)
    await store.complete(claim, StoredResponse(200, (), b"{}"))


async def look_after(store: SQLiteStore) -> None:
    """What maintenance and the claim loops read."""
    await store.rescue()
    await store.expire()
    await store.prune(500)
    await store.next_due(Topic.WORK)
    await store.next_due(Topic.DELIVERY)


Stores = tuple[SQLiteStore, SQLiteStore]
"""Two processes on one file."""


async def by_turns(stores: Stores) -> None:
    """Let both processes write in turn: each write makes the counts of the other one outdated."""
    for store in stores:
        await run_one(store)


VERBS: dict[str, Callable[[Stores], Awaitable[None]]] = {
    "submit, claim, complete": lambda stores: run_one(stores[0]),
    "by two processes in turn": by_turns,
    "rescue, expire, prune, due": lambda stores: look_after(stores[0]),
}


async def in_process(files: dict[int, tuple[Path, list[str]]], rounds: int, count: int) -> bool:
    """The periodic work of a process. Returns whether the medians keep the bound."""
    async with AsyncExitStack() as stack:
        stores: dict[int, Stores] = {}
        for length, (database, _) in files.items():
            stores[length] = store_of(database), store_of(database)
            for store in stores[length]:
                await store.open()
                stack.push_async_callback(store.close)
        return all([judge(name, await timed(verb, stores, rounds, count // 4)) for name, verb in VERBS.items()])


async def timed(
    verb: Callable[[Stores], Awaitable[None]], stores: dict[int, Stores], rounds: int, count: int
) -> dict[int, list[float]]:
    """The seconds of each call for each length of the queue, in turn."""
    took: dict[int, list[float]] = {length: [] for length in stores}
    for _ in range(rounds):
        for length in stores:
            for _ in range(count):
                began = time.perf_counter()
                await verb(stores[length])
                took[length].append(time.perf_counter() - began)
    return took


async def both(lengths: list[int], rounds: int, count: int) -> bool:
    """Fill the files, then measure."""
    with tempfile.TemporaryDirectory() as folder:
        files: dict[int, tuple[Path, list[str]]] = {}
        for length in lengths:
            database = Path(folder) / f"{length}.sqlite3"
            files[length] = database, await fill(database, length)
        print("over HTTP, one after the other:")
        kept = await over_http(files, rounds, count)
        print("in process:")
        return await in_process(files, rounds, count) and kept


def main() -> None:
    """Run both benchmarks; exit status 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=100, help="waiting requests of the short queue")
    parser.add_argument("--many", type=int, default=100_000, help="waiting requests of the long one")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=200, help="requests a round")
    arguments = parser.parse_args()
    kept = uvloop.run(both([arguments.few, arguments.many], arguments.rounds, arguments.count))
    print(f"  (bound {MOST} for the medians)")
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
