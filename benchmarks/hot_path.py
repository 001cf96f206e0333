"""The cost of the queue: `python -m benchmarks.hot_path`. Compare ratios of one run, not absolute figures.

1. Submit, replay and store the result behind uvicorn, every response after its fsync, against a bare ASGI application with
   the same 1 KiB POST, counted until the last result is stored. The bound is 0.38, the aim 0.50.
2. All other routes: the time that the middleware adds to a request in process. The bound is 0.5 microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from queue_middleware import QueueMiddleware

from .load import hammer, post
from .servers import uvicorn

LEAST_SHARE = 0.38
MOST_ADDED = 0.5
BODY = b'{"prompt": "' + b"x" * 1010 + b'"}'


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Responds with the body that it reads."""
    if scope["type"] != "http":
        raise ValueError("http only")
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def queued() -> QueueMiddleware:
    """The same application with a queue whose limits are never reached."""
    return QueueMiddleware(
        bare,
        database=os.environ["HOT_PATH_DATABASE"],
        concurrency=int(os.environ["HOT_PATH_CONCURRENCY"]),
        max_queued=10**9,
        max_queued_per_client=10**9,
    )


def stored(database: Path) -> int:
    """The number of results."""
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute("SELECT count(*) FROM job WHERE state = 'completed'").fetchone()[0])
    finally:
        connection.close()


async def queue_round(port: int, database: Path, count: int) -> tuple[float, float, float]:
    """Jobs per second from the first submission to the last stored result, and p50 and p99 of the responses to submissions."""
    before = stored(database)
    began = time.perf_counter()
    run = await hammer(port, post("/fal/queue/submit/x", BODY), count)
    async with asyncio.timeout(300):
        while stored(database) < before + count:
            await asyncio.sleep(0.01)
    return count / (time.perf_counter() - began), run.percentile(0.5), run.percentile(0.99)


async def hot_path(rounds: int, count: int, concurrency: int) -> bool:
    """Run bare and queued in turn and print the ratio of each pair. Returns whether the median keeps the bound."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "queue.sqlite3"
        environ = {"HOT_PATH_DATABASE": str(database), "HOT_PATH_CONCURRENCY": str(concurrency)}
        with (
            uvicorn("benchmarks.hot_path:bare", None, "--lifespan", "off") as plain,
            uvicorn("benchmarks.hot_path:queued", environ, "--factory") as behind,
        ):
            await hammer(plain, post("/x", BODY), 2000)
            await queue_round(behind, database, 2000)
            ratios = []
            for number in range(1, rounds + 1):
                rate = (await hammer(plain, post("/x", BODY), count)).rate
                jobs, p50, p99 = await queue_round(behind, database, count)
                ratios.append(jobs / rate)
                figures = f"bare {rate:7,.0f}/s   queue {jobs:7,.0f}/s   ratio {jobs / rate:.3f}"
                print(f"  {number}: {figures}   submit p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")
    median = statistics.median(ratios)
    print(f"  ratio: median {median:.3f}, best {max(ratios):.3f}   (bound {LEAST_SHARE}, aim 0.50)")
    return median >= LEAST_SHARE


async def pass_through(repeats: int = 9, count: int = 100_000) -> bool:
    """Print the microseconds that the middleware adds to a request of another route. Returns whether they keep the bound."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        return None

    wrapped = QueueMiddleware(nothing)
    scope = {"type": "http", "path": "/some/other/route", "root_path": ""}

    async def timed(app: Callable[[Any, Any, Any], Coroutine[Any, Any, None]]) -> float:
        began = time.perf_counter()
        for _ in range(count):
            await app(scope, None, None)
        return (time.perf_counter() - began) / count * 1e6

    added = [await timed(wrapped) - await timed(nothing) for _ in range(repeats)]
    print(f"  {statistics.median(added):.2f} microseconds a request   (bound {MOST_ADDED})")
    return statistics.median(added) <= MOST_ADDED


def main() -> None:
    """Run both benchmarks; exit status 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20_000, help="requests a round")
    parser.add_argument("--concurrency", type=int, default=256, help="of the queue")
    arguments = parser.parse_args()
    print(f"submit + replay + stored result, 64 connections, concurrency {arguments.concurrency}:")
    kept = uvloop.run(hot_path(arguments.rounds, arguments.count, arguments.concurrency))
    print("other routes:")
    kept &= uvloop.run(pass_through())
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
