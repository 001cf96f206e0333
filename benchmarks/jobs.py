"""Sending jobs to a queue, and waiting until all of them have ended, as seen in its database."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from .load import hammer
from .processor_time import processor_time
from .scenario import Metrics
from .servers import Server

SUBMIT = "/fal/queue/submit/x"
COLUMNS = {
    "per second": "per second",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "cpu": "CPU, µs",
    "cpu main thread": "event loop, µs",
    "cpu other threads": "other threads, µs",
}
"""The metrics of jobs behind HTTP, and their titles in the report."""
_CHECK_INTERVAL = 0.005
_UNFINISHED = (
    """SELECT EXISTS (SELECT 1 FROM job WHERE state = 'running') OR EXISTS (SELECT 1 FROM job WHERE state = 'queued')"""
)
"""Partial indexes answer it, however many jobs have ended."""


async def until_all_have_ended(database: Path, interval: float = _CHECK_INTERVAL) -> None:
    """Wait until no job is queued or runs. All submissions must have been acknowledged before."""
    with closing(sqlite3.connect(database)) as connection:
        while connection.execute(_UNFINISHED).fetchone()[0]:
            await asyncio.sleep(interval)


def completed(database: Path) -> int:
    """How many jobs have a stored response."""
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM job WHERE state = 'completed'").fetchone()[0])


async def run_jobs(servers: Sequence[Server], database: Path, requests: bytes | Sequence[bytes], count: int) -> Metrics:
    """Submit jobs over 64 connections, until the last result is stored: jobs per second, CPU for each, latency of submissions.

    Raises `RuntimeError` if fewer results are stored than jobs were submitted.
    """
    pids = [server.pid for server in servers]
    stored_before, processor_before = completed(database), processor_time(pids)
    began = time.perf_counter()
    run = await hammer([server.port for server in servers], requests, count)
    await until_all_have_ended(database)
    seconds = time.perf_counter() - began
    used = processor_time(pids) - processor_before
    if (stored := completed(database) - stored_before) != count:
        raise RuntimeError(f"{stored} of {count} results were stored")
    return {"per second": count / seconds, **run.metrics(), **used.per(count)}


async def run_requests(server: Server, requests: bytes | Sequence[bytes], count: int) -> Metrics:
    """Send ordinary requests over 64 connections: responses per second, CPU for each, latency."""
    before = processor_time([server.pid])
    run = await hammer(server.port, requests, count)
    used = processor_time([server.pid]) - before
    return {"per second": run.rate, **run.metrics(), **used.per(count)}
