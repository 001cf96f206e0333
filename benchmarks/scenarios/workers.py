"""Two processes on one file, against one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

from benchmarks.apps import BODY
from benchmarks.jobs import SUBMIT, run_jobs
from benchmarks.load import traced
from benchmarks.scenario import Conditions, Figure, Scenario, Variants
from benchmarks.servers import queue_server


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count = conditions.count(20_000, 2_000)
    requests = traced(SUBMIT, BODY, count)
    alone, shared = conditions.folder / "one-worker.sqlite3", conditions.folder / "two-workers.sqlite3"
    with ExitStack() as stack:
        one = [stack.enter_context(queue_server(alone))]
        two = [stack.enter_context(queue_server(shared)) for _ in range(2)]
        await run_jobs(one, alone, requests, count // 10)
        await run_jobs(two, shared, requests, count // 10)
        yield {
            "one worker": partial(run_jobs, one, alone, requests, count),
            "two workers": partial(run_jobs, two, shared, requests, count),
        }


SCENARIO = Scenario(
    name="workers",
    title="two workers on one file, against one",
    open=_open,
    figures=(
        Figure("workers.rate", "jobs of two workers ÷ those of one", "two workers", "per second", ("one worker", "per second")),
        Figure("workers.p99", "p99 of a submission, two workers ÷ one", "two workers", "p99", ("one worker", "p99")),
    ),
    columns={
        "per second": "jobs per second",
        "p50": "p50, ms",
        "p99": "p99, ms",
        "cpu": "CPU for a job, µs",
    },
    seconds=120,
    note=("Each worker is a server with a port of its own and half of the 64 connections, so that both have the same load.",),
)
