"""From the submission to the receiver: replay, stored result and a signed webhook that a local receiver has acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from urllib.parse import quote

from benchmarks.apps import BODY
from benchmarks.jobs import COLUMNS, SUBMIT, run_jobs, run_requests
from benchmarks.load import hammer, traced
from benchmarks.processor_time import processor_time
from benchmarks.scenario import Conditions, Figure, Metrics, Scenario, Variants
from benchmarks.servers import Server, queue_server, uvicorn
from benchmarks.sink import Receiver, sink

_CHECK_INTERVAL = 0.01


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count = conditions.count(10_000, 1_500)
    database = conditions.folder / "webhooks.sqlite3"
    with ExitStack() as stack:
        plain = stack.enter_context(uvicorn("benchmarks.apps:bare", None, "--lifespan", "off"))
        queue = stack.enter_context(queue_server(database))
        receiver = stack.enter_context(sink())
        requests, with_webhook = traced("/x", BODY, count), _submissions(receiver, count)
        await hammer(plain.port, requests, count // 4)
        await _until_received(queue, receiver, with_webhook, count // 4)
        yield {
            "bare": partial(run_requests, plain, requests, count),
            "stored": partial(run_jobs, [queue], database, traced(SUBMIT, BODY, count), count),
            "webhook received": partial(_until_received, queue, receiver, with_webhook, count),
        }


def _submissions(receiver: Receiver, count: int) -> list[bytes]:
    return traced(f"{SUBMIT}?fal_webhook={quote(receiver.url, safe='')}", BODY, count)


async def _until_received(server: Server, receiver: Receiver, requests: list[bytes], count: int) -> Metrics:
    """Jobs per second until the receiver has a webhook of each. Nothing fails here, so none is sent twice."""
    received_before, processor_before = await receiver.received(), processor_time([server.pid])
    began = time.perf_counter()
    run = await hammer(server.port, requests, count)
    while await receiver.received() < received_before + count:
        await asyncio.sleep(_CHECK_INTERVAL)
    seconds = time.perf_counter() - began
    used = processor_time([server.pid]) - processor_before
    return {"per second": count / seconds, **run.metrics(), **used.per(count)}


SCENARIO = Scenario(
    name="webhooks",
    title="end to end with a signed webhook that a local receiver has acknowledged",
    open=_open,
    figures=(
        Figure(
            "webhooks.received",
            "jobs with a webhook received ÷ bare requests",
            "webhook received",
            "per second",
            ("bare", "per second"),
        ),
        Figure("webhooks.cpu", "CPU for a job with a webhook ÷ without", "webhook received", "cpu", ("stored", "cpu")),
    ),
    columns=COLUMNS,
    seconds=200,
    quick=True,
    note=("All webhooks go to one receiver on the same machine.", "p50 and p99 are those of the responses to submissions."),
)
